"""What a benchmark works on: a random backbone of known sizes, random memories and token ids.

Weights do not matter for time, so the backbone is made here and nothing is downloaded; its tokenizer is the bundled
one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen3Config, Qwen3ForCausalLM

from locas_agent.backbone import Backbone
from locas_agent.backbone.hooks import uninstall
from locas_agent.backbone.sources import TINY, find_source
from locas_agent.inference import Engine
from locas_agent.memory import LocasMemory


@dataclass(frozen=True, slots=True)
class Sizes:
    """Sizes of the backbone, of the memories and of the peers."""

    layers: int
    hidden: int
    neurons: int
    heads: int
    key_heads: int
    head_size: int
    words: int
    users: int
    width: int
    rank: int


SMALL = Sizes(layers=2, hidden=64, neurons=96, heads=2, key_heads=1, head_size=32, words=2048, users=3, width=8, rank=4)
"""For tests: nothing it says about time means anything."""
CPU = Sizes(
    layers=4, hidden=512, neurons=1536, heads=8, key_heads=4, head_size=64, words=8192, users=8, width=32, rank=64
)
"""What one core does in milliseconds, with the proportions of a Qwen3."""
GPU = Sizes(
    layers=28,
    hidden=1024,
    neurons=3072,
    heads=16,
    key_heads=8,
    head_size=128,
    words=151936,
    users=16,
    width=32,
    rank=64,
)
"""Qwen3-0.6B."""
RealName = Literal["smollm2", "qwen3-0.6b"]
"""SmolLM2-135M-Instruct with its weights, or the shape of Qwen3-0.6B with random ones."""


LARGE_ROUNDS = 3
"""Rounds of a row on the larger shape on a processor, where one takes up to a minute."""


@dataclass(frozen=True, slots=True)
class Bench:
    """One run of benchmarks.

    Attributes:
        folder: for files; it exists, is empty, and goes away with the run.
        device: where the work is done.
        is_quick: small sizes and few rounds: what is computed is checked, no time means anything.
        seed: of weights, memories and ids.
        real: which backbone the rows on real shapes are measured on.
    """

    folder: Path
    device: torch.device
    is_quick: bool = False
    seed: int = 0
    real: RealName = "smollm2"

    @property
    def sizes(self) -> Sizes:
        """The sizes of this run."""
        return SMALL if self.is_quick else GPU if self.device.type == "cuda" else CPU

    @property
    def dtype(self) -> torch.dtype:
        """Of weights and computation."""
        return torch.bfloat16 if self.device.type == "cuda" else torch.float32

    @property
    def tolerance(self) -> float:
        """Largest difference of logits, relative to the largest logit, that is rounding.

        The sums of two ways run in other orders.
        """
        return 1e-4 if self.dtype == torch.float32 else 0.05

    def rounds(self, wanted: int) -> int:
        """Rounds of a full run, or the two that show that a second round works."""
        return 2 if self.is_quick else wanted

    def real_rounds(self, wanted: int) -> int:
        """Rounds of a row on real shapes; few where a processor has to run the larger one."""
        is_slow = self.real == "qwen3-0.6b" and self.device.type == "cpu"
        return self.rounds(min(wanted, LARGE_ROUNDS) if is_slow else wanted)

    def backbone(self, *, context_tokens: int = 2048, words: int | None = None) -> Backbone:
        """Make the random backbone; the same weights each time.

        It never ends an answer by itself, so that all sides write equally much.

        Args:
            context_tokens: most tokens it can attend to.
            words: rows of its output projection, where it has to write text: as many as its tokenizer knows.
        """
        sizes = self.sizes if words is None else replace(self.sizes, words=words)
        model = random_model(sizes, seed=self.seed, context_tokens=context_tokens)
        return wrapped(model.to(device=self.device, dtype=self.dtype), name="random Qwen3")

    def memories(self, backbone: Backbone, count: int) -> list[LocasMemory]:
        """Draw memories beside all layers, the paper's form and the costliest.

        Rows of norm 1 or so, which change logits a lot.
        """
        sizes = self.sizes
        generator = torch.Generator().manual_seed(self.seed)
        shape = (sizes.layers, 3, sizes.width, sizes.hidden)
        return [
            LocasMemory(
                slab=torch.randn(shape, generator=generator) / sizes.hidden**0.5,
                scale=torch.ones(sizes.layers),
                neuron_indices=torch.full((sizes.layers, sizes.width), -1),
                fingerprint=backbone.fingerprint,
                initialization="random",
            )
            for _ in range(count)
        ]

    def ids(self, rows: int, tokens: int) -> list[list[int]]:
        """Draw token ids."""
        generator = torch.Generator().manual_seed(self.seed)
        drawn: list[list[int]] = torch.randint(1, self.sizes.words, (rows, tokens), generator=generator).tolist()
        return drawn


def random_model(sizes: Sizes, *, seed: int, context_tokens: int, dtype: torch.dtype = torch.float32) -> Any:
    """Draw a Qwen3 of known sizes; the same weights each time for one dtype."""
    config = Qwen3Config(
        vocab_size=sizes.words,
        hidden_size=sizes.hidden,
        intermediate_size=sizes.neurons,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        num_key_value_heads=sizes.key_heads,
        head_dim=sizes.head_size,
        max_position_embeddings=context_tokens,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=0,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        factory: Any = AutoModelForCausalLM  # the classes themselves draw in fp32
        return factory.from_config(config, dtype=dtype)


def wrapped(model: Qwen3ForCausalLM, *, name: str) -> Backbone:
    """Return a model as a backbone that never ends an answer."""
    tokenizer = AutoTokenizer.from_pretrained(
        find_source(TINY).place, model_max_length=model.config.max_position_embeddings
    )
    backbone = Backbone(model, tokenizer, name=name)
    backbone.stop_ids = frozenset()
    return backbone


def without_hooks(backbone: Backbone) -> Engine:
    """Return an engine on a backbone that can carry no memory any more: a peer pays nothing for ours."""
    uninstall(backbone.model)
    return Engine(backbone)


def largest_difference(one: torch.Tensor, other: torch.Tensor) -> float:
    """Largest difference of two tensors, relative to the largest number in the first."""
    return float((one.float() - other.float()).abs().max() / one.float().abs().max())

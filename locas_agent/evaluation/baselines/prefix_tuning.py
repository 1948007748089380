"""The prefix peer: per user the keys and values of a few tokens that were never said.

It is trained on the tasks that train a memory.

PEFT holds the prefix and shapes it; here it is put before every forward of a private copy of the backbone.

Shapes: P tokens of the prefix, L layers, K key-value heads, H size of a head, B rows, T tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import cycle, islice
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from locas_agent.backbone import Backbone
from locas_agent.backbone.hooks import Intercept, reside
from locas_agent.config import LocasConfig
from locas_agent.errors import ConfigurationError
from locas_agent.evaluation.baselines.peer import AdapterPeer, AdapterState, peft
from locas_agent.training.neutral import NeutralText

TOKENS = 32
"""Length of the prefix: beside the bundled backbone 32,768 numbers, a memory of the default width there holds
36,864."""
LEARNING_RATE = 3e-2
"""Peak rate of AdamW: on the bundled backbone two people's prefixes recalled 8 of 8 facts with it, 1 of 8 with a third
of it."""


class _BehindPrefix(Intercept):
    """Calls the decoder with the prefix before the arguments of its caller."""

    def __init__(self, put: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        self._put = put

    def inputs(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Return the arguments with the prefix in the cache, the mask and the positions."""
        return self._put(arguments)


class PrefixTuning(AdapterPeer):
    """Prefixes of keys and values in every layer.

    Unlike an empty LoRA an untrained prefix changes what is said: attention looks at whatever stands before. Training
    starts from the keys and values of neutral text, those of real tokens at their real places; PEFT's own start,
    Gaussian numbers of variance 1, is far from any.
    """

    def __init__(
        self,
        backbone: Backbone,
        config: LocasConfig,
        neutral: NeutralText,
        *,
        tokens: int = TOKENS,
        learning_rate: float = LEARNING_RATE,
    ) -> None:
        """Copy the backbone and put a prefix before the copy.

        Args:
            backbone: stays untouched, and is the teacher where an objective asks one.
            config: training settings; all but the learning rate are used.
            neutral: anchors and windows, those the memories are trained with; training starts from the first tokens of
                the anchors.
            tokens: P.
            learning_rate: peak rate.

        Raises:
            MissingExtra: PEFT is not installed.
            ConfigurationError: an argument is out of bounds.
        """
        if not 1 <= tokens < backbone.context_tokens:
            raise ConfigurationError(
                f"tokens is from 1 to under the context of {backbone.context_tokens}, got {tokens}"
            )
        text = [token for row in neutral.anchors for token in (*row.prompt, *row.target)]
        self._beginning = list(islice(cycle(text), tokens))
        self._is_on = False
        model: Any = backbone.config
        heads = int(model.num_key_value_heads or model.num_attention_heads)
        size = int(getattr(model, "head_dim", None) or backbone.hidden_size // model.num_attention_heads)
        adapter = peft().PrefixTuningConfig(
            task_type="CAUSAL_LM",
            num_virtual_tokens=tokens,
            num_layers=backbone.n_layers,
            token_dim=heads * size,
            num_attention_heads=heads,
            num_transformer_submodules=1,
        )
        super().__init__(backbone, config, neutral, adapter, learning_rate=learning_rate)
        own = self._engine.backbone
        # The engine calls the decoder for training, scoring and generation alike.
        reside(
            own.decoder,
            own.hook_key,
            lambda _args, _kwargs: _BehindPrefix(self._behind_prefix) if self._is_on else None,
        )

    def _start(self) -> dict[str, Tensor]:
        """Return the keys and values of neutral text in PEFT's order, shape (P, L * 2 * K * H)."""
        cache: Any = DynamicCache()
        own = self._engine.backbone
        with torch.inference_mode():
            own.decoder(input_ids=torch.tensor([self._beginning], device=own.device), cache=cache, use_cache=True)
        parts = [part[0] for layer in cache.layers for part in (layer.keys, layer.values)]  # (K, P, H) each
        ((name, _),) = self._parameters.items()
        return {name: torch.stack(parts).permute(2, 0, 1, 3).flatten(1).float().cpu().clone()}

    def _load(self, state: AdapterState | None) -> None:
        self._is_on = state is not None
        super()._load(state)

    def _behind_prefix(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """The engine's arguments with the prefix in the cache, the mask and the positions."""
        rows = inputs["input_ids"].shape[0]
        cache, mask, positions = (inputs[name] for name in ("cache", "attention_mask", "position_ids"))
        prefix = self._adapted.get_prompt(batch_size=rows)
        if cache is not None and cache.get_seq_length() == 0:
            for at, layer in enumerate(prefix.layers):
                cache.update(layer.keys, layer.values, at)
        tokens = len(self._beginning)
        return inputs | {
            "cache": prefix if cache is None else cache,
            "use_cache": True,
            "attention_mask": None if mask is None else torch.cat([mask.new_ones(rows, tokens), mask], dim=1),
            "position_ids": None if positions is None else positions + tokens,
        }

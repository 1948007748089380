"""One step of training for several users.

All side by side, one by one, and PEFT adapters one by one, beside a forward without gradient.

Memories stand beside all layers, the paper's form, so nothing can be computed ahead; what the default, the last layer
alone, gains beyond this shows in `recall_cost.py`. Every token but the first is learnt, the costliest case. All sides
use the same rows, the same loss, the same clipping and AdamW.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from locas_agent.backbone import Backbone
from locas_agent.benchmarks.bench import Bench, largest_difference, without_hooks, wrapped
from locas_agent.benchmarks.measuring import Goal, Row, interleaved
from locas_agent.benchmarks.peers import adapted
from locas_agent.config import TrainingSettings
from locas_agent.inference import Engine
from locas_agent.memory import LocasMemory
from locas_agent.training.examples import Example, ExampleBatch
from locas_agent.training.loss.backend import FullForward, LossBackend
from locas_agent.training.loss.losses import mean_by_user
from locas_agent.training.trainer import clip_by_user

SHORT, LONG = 32, 256
"""Tokens of each user in a step."""
BATCH_TOKENS = TrainingSettings().max_batch_tokens
"""Tokens of one forward of ours."""
FORWARD_TOKENS = 512
"""Tokens of one forward of the bare backbone: the fastest of 256 to 2,048 for that side on the CPU it was tried on."""
RATE, CLIP = 1e-3, 1.0

_STEP = "a step of 8 users (16 on a GPU), {} tokens each, memories of 32 slots beside all layers"
_ALONE = f"{_STEP}; peer: the same users one by one"
_LORA = f"{_STEP}; peer: PEFT adapters of rank 64 beside all linear layers, one by one"
ONE_BY_ONE = {
    SHORT: Goal("learn-short", _ALONE.format(SHORT), "ms per step", "peer/ours", 1.4, 1.8),
    LONG: Goal("learn-long", _ALONE.format(LONG), "ms per step", "peer/ours", 1.0, 1.1),
}
TEMP_LORA = {
    SHORT: Goal("learn-templora-short", _LORA.format(SHORT), "ms per step", "peer/ours", 2.5, 4.0),
    LONG: Goal("learn-templora", _LORA.format(LONG), "ms per step", "peer/ours", 1.5, 2.0),
}
FORWARD = Goal(
    "step-forward",
    f"{_STEP.format(LONG)}; peer: the bare backbone's loss on the same rows",
    "ms",
    "ours/peer",
    2.4,
    2.1,
)
ROUNDS = {SHORT: 15, LONG: 7}


def short(bench: Bench) -> list[Row]:
    """Measure the rows of few tokens, where many users fit into one forward; errors as in `long`."""
    return _rows(bench, SHORT)


def long(bench: Bench) -> list[Row]:
    """Measure the rows of many tokens.

    Raises:
        MissingExtra: PEFT is not installed.
        RuntimeError: side by side, users do not get the gradients they get alone.
    """
    return _rows(bench, LONG)


def _rows(bench: Bench, tokens: int) -> list[Row]:
    backbone = bench.backbone()
    memories = bench.memories(backbone, bench.sizes.users)
    texts = bench.ids(len(memories), (tokens // 4 if bench.is_quick else tokens) + 1)
    examples = [[Example(tuple(text[:1]), tuple(text[1:]), None)] for text in texts]
    engine = Engine(backbone)
    together = Memories(FullForward(engine, max_batch_tokens=BATCH_TOKENS), backbone, memories, examples)
    alone = [
        Memories(FullForward(engine, max_batch_tokens=tokens), backbone, [memory], [own])
        for memory, own in zip(memories, examples, strict=True)
    ]
    apart = torch.cat([one.gradient() for one in alone], dim=1)
    if (difference := largest_difference(apart, together.gradient())) > 10 * bench.tolerance:
        raise RuntimeError(
            f"side by side gradients differ by {difference:.2g} of the largest from those alone: nothing was measured"
        )
    lora = Lora(backbone, rank=bench.sizes.rank)

    def one_by_one() -> None:
        for one in alone:
            one.step()

    def adapters() -> None:
        for own in examples:
            lora.step(own)

    sides: dict[str, Callable[[], object]] = {"ours": together.step, "alone": one_by_one, "lora": adapters}
    if tokens == LONG:
        sides["forward"] = _forward(bench, examples)
    taken = interleaved(sides, rounds=bench.rounds(ROUNDS[tokens]), device=bench.device)
    rows = [ONE_BY_ONE[tokens].row(taken["ours"], taken["alone"]), TEMP_LORA[tokens].row(taken["ours"], taken["lora"])]
    return [*rows, FORWARD.row(taken["ours"], taken["forward"])] if tokens == LONG else rows


class Memories:
    """Memories in training, side by side."""

    def __init__(
        self,
        loss_backend: LossBackend,
        backbone: Backbone,
        memories: Sequence[LocasMemory],
        examples: Sequence[Sequence[Example]],
    ) -> None:
        self._loss_backend = loss_backend
        self._layers = memories[0].layers
        self._slab = (
            torch.stack([memory.slab for memory in memories], dim=1).to(backbone.device).requires_grad_(True)
        )  # (L, U, 3, W, D)
        self._scale = torch.stack([memory.scale for memory in memories], dim=1).to(backbone.device)  # (L, U)
        self._examples = examples
        self._optimizer = torch.optim.AdamW([self._slab], lr=RATE, betas=(0.9, 0.98), weight_decay=0.0, fused=True)

    def gradient(self) -> Tensor:
        """Each user's gradient, clipped, shape (L, U, 3, W, D)."""
        self._slab.grad = torch.zeros_like(self._slab)
        self._loss_backend.accumulate_gradients(self._slab, self._scale, self._examples, 1.0, layers=self._layers)
        clip_by_user(self._slab.grad, CLIP)
        return self._slab.grad

    def step(self) -> None:
        """Take one step."""
        self.gradient()
        self._optimizer.step()


class Lora:
    """One adapter that stands for every user's.

    A peer with one for each would have to switch between them, and is spared that.
    """

    def __init__(self, backbone: Backbone, *, rank: int) -> None:
        peer: Any = adapted(backbone, ["user"], rank=rank)
        self._engine = without_hooks(wrapped(peer.get_base_model(), name="PEFT"))
        self._parameters = [parameter for name, parameter in peer.named_parameters() if ".lora_" in name]
        for parameter in self._parameters:
            parameter.requires_grad_(True)
        self._optimizer = torch.optim.AdamW(self._parameters, lr=RATE, betas=(0.9, 0.98), weight_decay=0.0, fused=True)

    def step(self, examples: Sequence[Example]) -> None:
        """Take one user's step."""
        _loss(self._engine, [examples]).sum().backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self._parameters, CLIP)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)


def _forward(bench: Bench, examples: Sequence[Sequence[Example]]) -> Callable[[], object]:
    """The bare backbone's losses."""
    engine = without_hooks(bench.backbone())
    users = max(1, FORWARD_TOKENS // examples[0][0].n_tokens)
    parts = [examples[start : start + users] for start in range(0, len(examples), users)]

    @torch.no_grad()
    def forward() -> list[Tensor]:
        return [_loss(engine, part) for part in parts]

    return forward


def _loss(engine: Engine, examples: Sequence[Sequence[Example]]) -> Tensor:
    """Each user's loss, shape (U,)."""
    backbone = engine.backbone
    batch = ExampleBatch.of(examples, pad_id=backbone.pad_id, device=backbone.device)
    logits = engine.logits(batch.input_ids, positions=batch.positions)
    return mean_by_user(batch.losses(logits), batch.rows, batch.row_weights, batch.n_users)

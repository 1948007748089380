"""The admission gate: may this trained memory become a revision? Knows no store and no training; it measures, and decides by settings alone.

Recall here is strict: every answer token must be the most likely one, so it equals greedy decoding of the whole answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from locas_agent.config import AdmissionSettings
from locas_agent.consolidation import Lesson, question_example
from locas_agent.engine import Engine
from locas_agent.examples import Example, ExampleBatch
from locas_agent.memory import DOWN, LocasMemory, MemoryBatch
from locas_agent.study import PROBE

MEASURE_BATCH_TOKENS = 8192


@dataclass(frozen=True, slots=True)
class Measured:
    """What a memory (or its absence) answers, and how far it moves neutral text."""

    new_recall: float | None
    """Share of the new, trained items answered; None without items."""
    probe_recall: float | None
    """Share of the new, held-out wordings answered; None without probes."""
    earlier_recall: float | None
    """Share of earlier sessions' items that still hold and are answered; None without any."""
    drift_nats: float
    """Mean KL(bare backbone || with memory) per token of neutral text."""
    drift_p99_nats: float
    """Its 99th percentile over tokens."""


@dataclass(frozen=True, slots=True)
class Admission:
    """The decision with its reason: `admitted`, or why not in one word and one sentence."""

    admitted: bool
    reason: str
    detail: str


def measure(engine: Engine, memories: Sequence[LocasMemory | None], lessons: Sequence[Lesson], neutral: Sequence[Example]) -> list[Measured]:
    """Measure each memory on its own lesson and on neutral text it was not trained on."""
    asked: list[tuple[int, Example, str]] = []
    for index, lesson in enumerate(lessons):
        groups = {"new": lesson.new, "earlier": lesson.earlier}
        for group, items in groups.items():
            asked += [(index, question_example(engine.backbone, item), "probe" if item.kind == PROBE and group == "new" else group) for item in items]
    hits: dict[tuple[int, str], list[float]] = {}
    for (index, _, group), (_, hit) in zip(asked, _scores(engine, memories, [(i, e) for i, e, _ in asked]), strict=True):
        hits.setdefault((index, group), []).append(hit)
    texts = [(index, example) for index, memory in enumerate(memories) if memory is not None for example in neutral]
    drifts: dict[int, list[torch.Tensor]] = {}
    for (index, _), (losses, _) in zip(texts, _scores(engine, memories, texts), strict=True):
        drifts.setdefault(index, []).append(losses)
    measured = []
    for index in range(len(lessons)):
        new, probe, earlier = (_mean(hits.get((index, group))) for group in ("new", "probe", "earlier"))
        measured.append(Measured(new, probe, earlier, *_drift(drifts.get(index))))
    return measured


def decide(before: Measured, after: Measured, *, is_finite: bool, settings: AdmissionSettings) -> Admission:
    """Decide whether a memory replaces the former one: finite, better at the new, not worse at the old, neutral text left alone."""
    if not is_finite:
        return Admission(False, "diverged", "loss or rows are not finite; lower training.learning_rate")
    if after.drift_nats > settings.max_drift_nats:
        return Admission(False, "drift", f"neutral text moved by {after.drift_nats:.4f} nats per token, at most {settings.max_drift_nats} is allowed")
    if before.earlier_recall is not None and after.earlier_recall is not None:
        lost = before.earlier_recall - after.earlier_recall
        if lost > settings.max_old_loss:
            return Admission(False, "forgets", f"recall of earlier items fell by {lost:.3f}, at most {settings.max_old_loss} is allowed")
    recall_before, recall_after = _of_new(before), _of_new(after)
    if recall_after - recall_before < settings.min_gain and recall_after < 0.95:
        return Admission(
            False, "no gain", f"recall of new items went from {recall_before:.3f} to {recall_after:.3f}, a rise of {settings.min_gain} is asked"
        )
    return Admission(True, "admitted", "")


def norms(memory: LocasMemory) -> dict[str, float]:
    """Return mean row norms and the share of rows at the clip, for the record of a revision."""
    rows = memory.row_norms()  # (L, 3, W)
    return {
        "mean_down_norm": float(rows[:, DOWN].mean()),
        "mean_gate_up_norm": float(rows[:, :DOWN].mean()),
        "clipped_share": memory.clipped_share(),
    }


def _of_new(measured: Measured) -> float:
    """Recall of what is new: held-out wordings where there are some, else the trained ones."""
    values = [value for value in (measured.probe_recall, measured.new_recall) if value is not None]
    return sum(values) / len(values) if values else 1.0


@torch.inference_mode()
def _scores(engine: Engine, memories: Sequence[LocasMemory | None], asked: Sequence[tuple[int, Example]]) -> list[tuple[torch.Tensor, float]]:
    """Return for each (memory, example) the loss per token, and 1.0 where every target token is the most likely one."""
    backbone = engine.backbone
    results: list[tuple[torch.Tensor, float] | None] = [None] * len(asked)
    order = sorted(range(len(asked)), key=lambda at: (asked[at][1].n_tokens, asked[at][0]))
    while order:
        longest = asked[order[min(len(order), 64) - 1]][1].n_tokens
        rows = max(1, min(len(order), MEASURE_BATCH_TOKENS // max(longest, 1), 64))
        chunk, order = order[:rows], order[rows:]
        batch = ExampleBatch.of([[asked[at][1]] for at in chunk], pad_id=backbone.pad_id, device=backbone.device)
        chosen = [memories[asked[at][0]] for at in chunk]
        memory = MemoryBatch.of(chosen, backbone) if any(each is not None for each in chosen) else None
        logits = engine.logits(batch.input_ids, memory=memory, positions=batch.positions)
        losses, right = batch.losses(logits).cpu(), (logits.argmax(-1) == batch.targets).cpu()
        for row, at in enumerate(chunk):
            of_row = (batch.rows == row).cpu()
            results[at] = (losses[of_row], float(right[of_row].all()))
    return [result for result in results if result is not None]


def _mean(values: list[float] | None) -> float | None:
    return sum(values) / len(values) if values else None


def _drift(losses: list[torch.Tensor] | None) -> tuple[float, float]:
    if not losses:
        return 0.0, 0.0
    tokens = torch.cat(losses)
    return float(tokens.mean()), float(tokens.quantile(0.99))

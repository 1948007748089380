"""The admission gate: may this trained memory become a revision?

It measures, and decides by settings alone.

Recall here is strict: every answer token must be the most likely one, so it equals greedy decoding of the whole answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from locas_agent.backbone import Backbone
from locas_agent.config import AdmissionSettings, LocasConfig
from locas_agent.inference import Engine
from locas_agent.memory import LocasMemory
from locas_agent.memory.slab import DOWN
from locas_agent.study.items import NEGATIVE, PROBE, Item
from locas_agent.study.prompts import abstains
from locas_agent.training.examples import Example
from locas_agent.training.loss.backend import LossBackend, loss_backend_for
from locas_agent.training.loss.last_layer import LastLayer
from locas_agent.training.neutral import NeutralText
from locas_agent.training.sampling.builder import TrainingTask
from locas_agent.training.sampling.question_rows import question_example
from locas_agent.training.trainer import Trained

FORGETS = "forgets"
"""Why a memory is refused that answers too few of the earlier questions."""


@dataclass(frozen=True, eq=False)
class Questions:
    """A task's items as they are asked: question alone, answer to be given.

    Attributes:
        new: trained items of this consolidation.
        probes: its held-out wordings.
        earlier: items of former consolidations that still hold.
    """

    new: list[Example]
    probes: list[Example]
    earlier: list[Example]

    @classmethod
    def of(cls, backbone: Backbone, task: TrainingTask) -> Questions:
        """Encode the items of a task."""
        new = [question_example(backbone, item) for item in task.new if item.kind != PROBE and _is_recall(item)]
        probes = [question_example(backbone, item) for item in task.new if item.kind == PROBE]
        return cls(new, probes, [question_example(backbone, item) for item in task.earlier if _is_recall(item)])

    @property
    def examples(self) -> list[Example]:
        """All of them."""
        return [*self.new, *self.probes, *self.earlier]


@dataclass(frozen=True, slots=True)
class Measurement:
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


def measure(
    loss_backend: LossBackend,
    memories: Sequence[LocasMemory | None],
    questions: Sequence[Questions],
    neutral: Sequence[Example],
) -> list[Measurement]:
    """Measure each memory on its own task's questions and on neutral text it was not trained on.

    Args:
        loss_backend: knows the examples of `questions` and `neutral`.
        memories: one per task; None is the bare backbone.
        questions: of each task.
        neutral: the same for all.
    """
    asked = [[*each.new, *each.probes, *each.earlier] for each in questions]
    answered = loss_backend.evaluate(memories, asked)
    drifts = loss_backend.evaluate(memories, [[] if memory is None else list(neutral) for memory in memories])
    measured = []
    for each, scores, drift in zip(questions, answered, drifts, strict=True):
        hits = iter([float(hit) for _, hit in scores])
        new, probe, earlier = (_mean([next(hits) for _ in group]) for group in (each.new, each.probes, each.earlier))
        measured.append(Measurement(new, probe, earlier, *_drift([losses for losses, _ in drift])))
    return measured


def admit(before: Measurement, after: Measurement, *, is_finite: bool, settings: AdmissionSettings) -> Admission:
    """Decide whether a memory replaces the former one.

    Finite, better at the new, not worse at the old, neutral text left alone.
    """
    if not is_finite:
        return Admission(False, "diverged", "loss or rows are not finite; lower training.learning_rate")
    if not after.drift_nats <= settings.max_drift_nats:
        return Admission(
            False,
            "drift",
            f"neutral text moved by {after.drift_nats:.4f} nats per token, "
            f"at most {settings.max_drift_nats} is allowed",
        )
    if before.earlier_recall is not None and after.earlier_recall is not None:
        lost = before.earlier_recall - after.earlier_recall
        if lost > settings.max_old_loss:
            return Admission(
                False,
                "forgets",
                f"recall of earlier items fell by {lost:.3f}, at most {settings.max_old_loss} is allowed",
            )
    recall_before, recall_after = _of_new(before), _of_new(after)
    if recall_after - recall_before < settings.min_gain and recall_after < 0.95:
        return Admission(
            False,
            "no gain",
            f"recall of new items went from {recall_before:.3f} to {recall_after:.3f}, a rise of {settings.min_gain} "
            "is asked",
        )
    return Admission(True, "admitted", "")


@dataclass(frozen=True, eq=False)
class Judged:
    """A trained memory with the decision on it.

    Attributes:
        admission: the decision.
        memory: what was trained.
        figures: of the training and of what was measured before and after it, as a revision keeps them.
    """

    admission: Admission
    memory: LocasMemory
    figures: dict[str, Any]

    def after(self, first: Judged) -> Judged:
        """Return this one as the outcome of a second training: its time is that of both."""
        both = {name: self.figures[name] + first.figures[name] for name in ("train_seconds", "tokens", "trainings")}
        return replace(self, figures=self.figures | both)


def judge(
    engine: Engine,
    last_layer: LastLayer | None,
    tasks: Sequence[TrainingTask],
    trained: Sequence[Trained],
    neutral: NeutralText,
    config: LocasConfig,
) -> list[Judged]:
    """Measure trained memories beside what their users had, and decide.

    Args:
        engine: of the backbone.
        last_layer: its end, None where it is built in a way not known.
        tasks: what was to be learnt.
        trained: one for each task.
        neutral: text that was not trained on.
        config: settings of training and admission.
    """
    questions = [Questions.of(engine.backbone, task) for task in tasks]
    former = [task.memory for task in tasks]
    finite = [one.memory if one.is_finite else task.memory for one, task in zip(trained, tasks, strict=True)]
    seen = [*neutral.held_out, *(example for each in questions for example in each.examples)]
    most = config.training.max_batch_tokens
    loss_backend = loss_backend_for(engine, last_layer, [*former, *finite], seen, max_batch_tokens=most)
    before = measure(loss_backend, former, questions, neutral.held_out)
    after = measure(loss_backend, finite, questions, neutral.held_out)
    judged = []
    for one, was, now in zip(trained, before, after, strict=True):
        figures = {
            "before": asdict(was),
            "after": asdict(now),
            "steps": one.steps,
            "tokens": one.tokens,
            "trainings": 1,
            "train_seconds": one.seconds,
            "first_loss": one.first_loss,
            "last_loss": one.last_loss,
            "learning_rate": one.learning_rate,
            "restarts": one.restarts,
        }
        admission = admit(was, now, is_finite=one.is_finite, settings=config.admission)
        judged.append(Judged(admission, one.memory, figures))
    return judged


def norms(memory: LocasMemory) -> dict[str, float]:
    """Return mean row norms and the share of rows at the clip, for the record of a revision."""
    rows = memory.row_norms()  # (L, 3, W)
    return {
        "mean_down_norm": float(rows[:, DOWN].mean()),
        "mean_gate_up_norm": float(rows[:, :DOWN].mean()),
        "clipped_share": memory.clipped_share(),
    }


def _is_recall(item: Item) -> bool:
    """Tell whether answering an item takes a memory: what the bare backbone says by itself it says without one."""
    return item.kind != NEGATIVE or abstains(item.answer)


def _of_new(measured: Measurement) -> float:
    """Recall of what is new: held-out wordings where there are some, else the trained ones."""
    values = [value for value in (measured.probe_recall, measured.new_recall) if value is not None]
    return sum(values) / len(values) if values else 1.0


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _drift(losses: list[torch.Tensor]) -> tuple[float, float]:
    if not losses:
        return 0.0, 0.0
    tokens = torch.cat(losses)
    return float(tokens.mean()), float(tokens.quantile(0.99))

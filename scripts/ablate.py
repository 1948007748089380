#!/usr/bin/env python3
"""Learn the same study sets in other ways, one thing changed at a time, and print what each comes to.

    python -m scripts.ablate --people casual.jsonl --people task.jsonl --users 2 --answers rows.jsonl

Everything that a person says is one consolidation, whose study set is written once, as the settings have it, and
stands in --store. Each variant is trained on it from nothing, judged, and asked every question of the person, whatever
the gate says. With the same --store and --answers a stopped run goes on. What changes study itself is asked of
`eval recall --config FILE`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from locas_agent import AgentMemory
from locas_agent.config import LocasConfig
from locas_agent.consolidation import admission
from locas_agent.conversation.messages import question
from locas_agent.evaluation import asking
from locas_agent.evaluation.answer_book import AnswerBook
from locas_agent.evaluation.recall.peers import training_task_of
from locas_agent.evaluation.recall.people import ANSWER_TOKENS, LeftOut, Source
from locas_agent.evaluation.recall.setup import RecallOptions, evaluation_config, handles_of, teach
from locas_agent.study.items import NEGATIVE, Item, fact_of
from locas_agent.training.sampling.builder import TrainingTask
from locas_agent.training.trainer import Trainer

DEFAULT = "as it is"


@dataclass(frozen=True, slots=True)
class Variant:
    """One thing that is changed: settings, or which items of the study set are left."""

    about: str
    name: str
    settings: dict[str, dict[str, Any]]
    keep: Callable[[Sequence[Item]], Sequence[Item]] = tuple


def _at_most(count: int) -> Callable[[Sequence[Item]], Sequence[Item]]:
    """Keep the first so many items of each fact, and all questions never answered."""

    def keep(items: Sequence[Item]) -> Sequence[Item]:
        seen: dict[tuple[str, int, str], int] = {}
        kept = []
        for item in items:
            seen[fact_of(item)] = seen.get(fact_of(item), 0) + 1
            if seen[fact_of(item)] <= count:
                kept.append(item)
        return kept

    return keep


def _answered(items: Sequence[Item]) -> Sequence[Item]:
    return [item for item in items if item.kind != NEGATIVE]


VARIANTS = (
    Variant("", DEFAULT, {}),
    Variant("layers", "the last", {"memory": {"layers": 1}}),
    Variant("layers", "topmost sixth", {"memory": {"layers": "0.83-1.0"}}),
    Variant("layers", "topmost half", {"memory": {"layers": "0.5-1.0"}}),
    Variant("layers", "0.33-0.67", {"memory": {"layers": "0.33-0.67"}}),
    Variant("layers", "0.5-0.8", {"memory": {"layers": "0.5-0.8"}}),
    Variant("layers", "lowest third", {"memory": {"layers": "0.0-0.33"}}),
    Variant("layers", "all", {"memory": {"layers": "all"}}),
    Variant("width", "22", {"memory": {"width": 22}}),
    Variant("width", "44", {"memory": {"width": 44}}),
    Variant("width", "176", {"memory": {"width": 176}}),
    Variant("rate", "2e-3", {"training": {"learning_rate": 2e-3}}),
    Variant("rate", "4e-3", {"training": {"learning_rate": 4e-3}}),
    Variant("rate", "1.6e-2", {"training": {"learning_rate": 1.6e-2}}),
    Variant("first rows", "Gaussian", {"memory": {"initialization": "random"}}),
    Variant("first rows", "neurons of highest activation", {"memory": {"initialization": "highest"}}),
    Variant("items", "at most one a fact", {}, _at_most(1)),
    Variant("items", "at most two a fact", {}, _at_most(2)),
    Variant("items", "without questions never answered", {}, _answered),
    Variant("items", "alone, never behind anything", {"training": {"window_tokens": 0, "found_facts": 0}}),
    Variant("noise in questions", "none", {"training": {"question_noise": 0.0}}),
    Variant("noise in questions", "0.05", {"training": {"question_noise": 0.05}}),
    Variant("noise in questions", "0.3", {"training": {"question_noise": 0.3}}),
    Variant("neutral text", "none", {"training": {"anchor_weight": 0.0, "local_anchor_weight": 0.0}}),
    Variant("neutral text", "no local anchor", {"training": {"local_anchor_weight": 0.0}}),
    Variant("steps", "48", {"training": {"max_steps": 48}}),
    Variant("steps", "96", {"training": {"max_steps": 96}}),
    Variant("steps", "384", {"training": {"max_steps": 384}}),
    Variant("steps", "384, width 176", {"training": {"max_steps": 384}, "memory": {"width": 176}}),
)
"""What is tried."""


@dataclass(frozen=True, slots=True)
class Row:
    """What one variant came to for one person."""

    about: str
    name: str
    person: str
    right: int
    asked: int
    items_said: float | None
    drift_nats: float
    admitted: bool
    numbers: int
    steps: int
    processor_seconds: float

    @property
    def place(self) -> tuple[str, str, str]:
        """The variant and the person."""
        return (self.about, self.name, self.person)


def main() -> None:
    """Teach, try each variant on each person, and print a row of a table for each variant."""
    asked = _arguments()
    torch.set_num_threads(asked.threads)
    options = RecallOptions(
        files=tuple(asked.people), users=asked.users, consolidations=1, without=(LeftOut.WRONG_USER,)
    )
    config = evaluation_config(LocasConfig.model_validate({"training": {"seed": asked.seed}}))
    source = options.source()
    wanted = [one for one in VARIANTS if not asked.only or one.about in asked.only or one.name in asked.only]
    with AgentMemory.load(asked.backbone, asked.store, config, dtype=asked.dtype) as agent:
        about = {"ablation": agent.backbone.fingerprint, "config": agent.config.digest(), "source": source.tenant}
        book = AnswerBook(Row, about, asked.answers)
        teach(agent, source, options)
        tasks = _tasks(agent, source, options)
        print("| | | right of | items said | drift, nats | refused | numbers | steps | processor seconds |")
        print("|---|---|---|---|---|---|---|---|---|")
        for variant in wanted:
            for user, teller in enumerate(source.tellers):
                if (variant.about, variant.name, teller.name) not in book:
                    book.add([_tried(agent, source, variant, user, tasks[user])])
            print(_line([book[variant.about, variant.name, teller.name] for teller in source.tellers]), flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--people", type=Path, action="append", required=True, metavar="FILE")
    parser.add_argument("--users", type=int, help="people, one of each file in turn; all unless given")
    parser.add_argument("--only", action="append", help="a group or a variant; may be repeated")
    parser.add_argument("--backbone", default="smollm2")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--store", default="sqlite://")
    parser.add_argument("--answers", type=Path, metavar="FILE", help="rows, JSON lines")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def _tasks(agent: AgentMemory, source: Source, options: RecallOptions) -> list[TrainingTask]:
    """Return what each person's first consolidation was trained on."""
    tasks = []
    for handle in handles_of(agent, source, options):
        (revision,), journal = handle.revisions(), handle.turns()
        chunks = agent.learner.chunks(agent.learner.heard(journal))
        task = training_task_of(revision, agent.store.study_items(handle.key, with_retired=True), chunks)
        tasks.append(replace(task, reading=agent.learner.calibration.wide))
    return tasks


def _tried(agent: AgentMemory, source: Source, variant: Variant, user: int, task: TrainingTask) -> Row:
    """Train one variant on one person's task, judge it and ask it."""
    config = agent.config
    for part, changed in variant.settings.items():
        settings = getattr(config, part)
        config = config.model_copy(update={part: type(settings).model_validate(settings.model_dump() | changed)})
    changed_task = replace(task, new=tuple(variant.keep(task.new)))
    learner = agent.learner
    started = time.process_time()
    trained = Trainer(agent.engine, config, learner.neutral, learner.last_layer).train([changed_task])
    seconds = time.process_time() - started
    judged = admission.judge(agent.engine, learner.last_layer, [changed_task], trained, learner.neutral, config)[0]
    asked = [one for one in source.asked() if one.user == user]
    given = asking.answers(
        agent, [question(one.text) for one in asked], [judged.memory] * len(asked), answer_tokens=ANSWER_TOKENS
    )
    right = sum(
        any(source.matches(answer.text, form) for form in one.fact.answers)
        for answer, one in zip(given, asked, strict=True)
    )
    after = judged.figures["after"]
    return Row(
        variant.about,
        variant.name,
        source.tellers[user].name,
        right,
        len(asked),
        after["new_recall"],
        after["drift_nats"],
        judged.admission.admitted,
        judged.memory.parameter_count,
        trained[0].steps,
        round(seconds, 1),
    )


def _line(rows: Sequence[Row]) -> str:
    """Return a variant's row of the table, its people added up or averaged."""
    count = len(rows)
    said = [row.items_said for row in rows if row.items_said is not None]
    cells = (
        rows[0].about,
        rows[0].name,
        f"{sum(row.right for row in rows)} of {sum(row.asked for row in rows)}"
        f" ({', '.join(str(row.right) for row in rows)})",
        f"{sum(said) / len(said):.2f}" if said else "",
        f"{sum(row.drift_nats for row in rows) / count:.4f}",
        f"{sum(not row.admitted for row in rows)}",
        f"{max(row.numbers for row in rows):,}",
        f"{sum(row.steps for row in rows) / count:.0f}",
        f"{sum(row.processor_seconds for row in rows) / count:.0f}",
    )
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()

"""`eval passages`: passages are told and learnt in one memory each and in one for all, and asked about without them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from locas_agent.agent import AgentMemory
from locas_agent.errors import ConfigurationError
from locas_agent.evaluation import asking as reading
from locas_agent.evaluation.answer_book import AnswerBook
from locas_agent.evaluation.drift import drift, neutral_rows
from locas_agent.evaluation.learning import learnt
from locas_agent.evaluation.passages import figures
from locas_agent.evaluation.passages.asking import Book, PassageAnswer, questions_of, with_passage, without_passage
from locas_agent.evaluation.passages.choices import ARMS, PassagesOptions
from locas_agent.evaluation.passages.coverage import covered
from locas_agent.evaluation.passages.data import Passage, PassageFile, drawn
from locas_agent.evaluation.passages.in_turn import learnt_in_turn
from locas_agent.evaluation.passages.raw_text import raw_text
from locas_agent.evaluation.passages.telling import Telling, learn
from locas_agent.memory import LocasMemory
from locas_agent.types import Progress
from locas_agent.user import UserMemory


def run_passages(
    agent: AgentMemory,
    file: PassageFile,
    options: PassagesOptions,
    *,
    answers: Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Tell, learn, ask and score.

    Args:
        agent: with `evaluation_config`; its store holds what is learnt, and with the same store a stopped run learns
            what is missing.
        file: from `read_passages`.
        options: what is evaluated.
        answers: file of raw answers, JSON lines, with which a stopped run asks what is missing; None keeps none.
        progress: told of the stages.

    Returns:
        The report of the contract.

    Raises:
        ConfigurationError: the sequence is longer than the passages are many, or the answers are another run's.
        ExchangeError: the answers cannot be read or written.
    """
    started = time.perf_counter()
    passages = drawn(file.passages, options.limit, seed=options.seed)
    if options.sequence is not None and options.sequence > len(passages):
        raise ConfigurationError(
            f"a sequence of {options.sequence} passages was asked for and there are {len(passages)}: choose a shorter "
            "one, or more passages"
        )
    book = AnswerBook(PassageAnswer, _about(agent, file, options), answers)
    run = _Run(agent, Telling(file.digest, options.told_as), passages, options, book, progress)
    given = {name: run.answered(name) for name in ARMS if name not in options.without}
    scores = {name: figures.scored(found, run.asked) for name, found in given.items()}
    over = {name: figures.over_none(scores[name], scores["none"], scores["context"]) for name in run.learnt}
    own = run.learnt["memory"]
    report: dict[str, Any] = {
        "kind": "passages",
        "backbone": agent.backbone.name,
        "source": file.name,
        "seed": options.seed,
        "passages": len(passages),
        "questions": len(run.asked),
        "told_as": options.told_as.value,
        "asked_for_few_words": options.short,
        "objective": agent.config.training.objective,
        "reading_form": reading.reading_forms(agent)[1].name,
        "dtype": str(agent.backbone.dtype).removeprefix("torch."),
        "arms": {name: scores[name].report() if name in scores else None for name in ARMS},
        "share": over["memory"]["exact_match"]["share"],
        "over_none": over,
        "learnt": {
            name: found | figures.by_coverage(scores[name], run.covered[name]) for name, found in run.learnt.items()
        },
        "seconds_per_passage": round((own["study_seconds"] + own["train_seconds"]) / len(passages), 2),
        "sequence": [],
    }
    if options.sequence is not None:
        report |= run.sequence(options.sequence, given["none"])
    return report | {"asking_seconds": run.seconds, "seconds": round(time.perf_counter() - started, 1)}


class _Run:
    """The arms of one run over the same passages and questions."""

    def __init__(
        self,
        agent: AgentMemory,
        telling: Telling,
        passages: Sequence[Passage],
        options: PassagesOptions,
        book: Book,
        progress: Progress | None,
    ) -> None:
        self._agent = agent
        self._book = book
        self._telling = telling
        self._passages = passages
        self._seed = options.seed
        self._progress = progress
        self.asked = questions_of(passages, short=options.short)
        self.learnt: dict[str, dict[str, Any]] = {}
        """By arm, what the learning came to."""
        self.covered: dict[str, list[bool]] = {}
        """By arm, of each question whether an item of study has its answer."""
        self.seconds: dict[str, float] = {}
        """By arm, how long its questions took, in seconds."""

    def answered(self, name: str) -> list[str]:
        """Learn what an arm needs, and return its answer to every question."""
        match name:
            case "none":
                return self._asked(name, self._agent, [None] * len(self._passages))
            case "raw_text":
                plain = AgentMemory(
                    backbone=self._agent.backbone, store=self._agent.store, config=raw_text(self._agent.config)
                )  # never closed: the store is the other's
                return self._own(name, plain)
            case "memory":
                return self._own(name, self._agent)
            case "memory_all":
                return self._all(name)
            case _:
                handles = self._told(self._agent)
                return self._timed(
                    name, lambda: with_passage(self._agent, self.asked, handles, arm=name, book=self._book)
                )

    def sequence(self, length: int, none: Sequence[str]) -> dict[str, Any]:
        """Learn passages one after another in one memory, ask after each, and return the figures."""
        passages = self._passages[:length]
        asked = [one for one in self.asked if one.passage < length]
        handle = self._telling.common(self._agent, passages, "sequence")
        steps = learnt_in_turn(self._agent, self._telling, handle, passages, asked, self._book, self._progress)
        refused = learnt(self._agent, [handle])["consolidations_refused"]
        return figures.sequence(steps, asked, none[: len(asked)], refused)

    def _told(self, agent: AgentMemory) -> list[UserMemory]:
        """Tell each passage to a user of its own; what was told before stays."""
        handles = self._telling.handles(agent, self._passages)
        for handle, passage in zip(handles, self._passages, strict=True):
            self._telling.tell(handle, passage)
        return handles

    def _own(self, name: str, agent: AgentMemory) -> list[str]:
        """Learn one memory for each passage, and ask each about its own."""
        handles = self._told(agent)
        learn(agent, handles, stage=f"{name} learnt", progress=self._progress)
        memories = [agent.current(handle.key)[1] for handle in handles]
        self._note(name, agent, handles)
        return self._asked(name, agent, memories)

    def _all(self, name: str) -> list[str]:
        """Learn one memory of all passages, and ask it everything."""
        handle = self._telling.common(self._agent, self._passages, "all")
        for number, passage in enumerate(self._passages):
            self._telling.tell(handle, passage, day=number)
        learn(self._agent, [handle], stage=f"{name} learnt", progress=self._progress)
        _, memory = self._agent.current(handle.key)
        self._note(name, self._agent, [handle])
        return self._asked(name, self._agent, [memory] * len(self._passages))

    def _asked(self, name: str, agent: AgentMemory, memories: Sequence[LocasMemory | None]) -> list[str]:
        """Ask everything without the passages, each passage's questions of the memory at its place."""
        return self._timed(name, lambda: without_passage(agent, self.asked, memories, arm=name, book=self._book))

    def _note(self, name: str, agent: AgentMemory, handles: Sequence[UserMemory]) -> None:
        """Keep what the learning of an arm came to, its drift and its size."""
        self.covered[name] = covered(agent, handles, self._passages, self.asked)
        present = [memory for handle in handles if (memory := agent.current(handle.key)[1]) is not None]
        rows = neutral_rows(agent.engine, seed=self._seed) if present else []
        average, p99 = drift(agent.engine, present, rows) if present else (0.0, 0.0)
        self.learnt[name] = learnt(agent, handles) | {
            "memories": len(present),
            "numbers_per_memory": max((memory.parameter_count for memory in present), default=0),
            "drift_kl_nats": round(average, 5),
            "drift_kl_p99_nats": round(p99, 5),
        }

    def _timed(self, name: str, ask: Callable[[], list[str]]) -> list[str]:
        started = time.perf_counter()
        found = ask()
        self.seconds[name] = round(time.perf_counter() - started, 1)
        if self._progress is not None:
            self._progress(f"asked: {name}", len(self.asked), len(self.asked))
        return found


def _about(agent: AgentMemory, file: PassageFile, options: PassagesOptions) -> dict[str, Any]:
    """Return what an answer depends on, but for the memory, by whose digest it is kept."""
    return {
        "data": file.digest,
        "fingerprint": agent.backbone.fingerprint,
        "config": agent.config.digest(),
        "dtype": str(agent.backbone.dtype),
        "told_as": options.told_as.value,
        "short": options.short,
    }

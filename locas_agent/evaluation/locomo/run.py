"""`eval locomo`: long conversations are told session by session and learnt, then questioned.

Every arm answers the same questions.

Wires reading, learning, asking and scoring together; holds no logic of theirs.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from locas_agent.agent import AgentMemory
from locas_agent.backbone.sources import TINY
from locas_agent.config import LocasConfig
from locas_agent.errors import ConfigurationError
from locas_agent.evaluation.answer_book import AnswerBook
from locas_agent.evaluation.learning import learnt
from locas_agent.evaluation.locomo.answers import Given
from locas_agent.evaluation.locomo.arms import ARMS, Arms, Wording
from locas_agent.evaluation.locomo.data import CATEGORIES, AskedQuestion, Dialogue
from locas_agent.evaluation.locomo.ingest import handles_of, ingest
from locas_agent.evaluation.locomo.report import figures
from locas_agent.evaluation.recall.setup import evaluation_config
from locas_agent.types import Progress

_NEAR_FLOOR = (
    "The bundled backbone speaks of synthetic people only. On real talk it scores near the floor: compare its arms "
    "with `none` and `constant`, "
    "and with nothing that was published."
)


_LIGHT = {
    "study": {"samples_per_turn": 3, "max_rounds": 2, "negatives_per_piece": 4, "max_question_tokens": 40},
    "training": {"max_steps": 64},
}


def locomo_config(*, light: bool) -> LocasConfig:
    """Return the configuration of a run: no automatic consolidation, and with `light` a short study and training.

    The bundled backbone keeps hardly a question about real talk however often it asks, and two conversations have to
    end within the hour.
    """
    return evaluation_config(LocasConfig.model_validate(_LIGHT) if light else None)


class LocomoOptions(BaseModel):
    """What is evaluated."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    conversations: tuple[str, ...] = ()
    """Their names, `sample_id`; all unless given."""
    first: int | None = Field(None, ge=1)
    """Of these, only the first so many."""
    sessions: int | None = Field(None, ge=1)
    """Only the first sessions of each; questions whose evidence lies later are left out."""
    questions: int | None = Field(None, ge=1)
    """At most so many questions of each, taken from the categories in turn."""
    arms: tuple[str, ...] = tuple(ARMS)
    """Which arms, see `locomo_arms.ARMS`."""
    short: bool | None = None
    """Ask for a few words, as the published prompts do; unless given, for every backbone but the bundled one, which
    knows bare questions only."""
    answer_tokens: int = Field(32, ge=1)
    """Longest answer, in tokens; the published script has 50."""
    searched_turns: int = Field(5, ge=1)
    """Turns that the arms with search find."""
    seed: int = Field(0, ge=0)
    """Of the order in which category 5 offers its two answers."""


def run_locomo(
    agent: AgentMemory,
    dialogues: Sequence[Dialogue],
    options: LocomoOptions,
    *,
    digest: str,
    answers: Path | None = None,
    disputed: frozenset[tuple[str, str]] = frozenset(),
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Tell, learn, ask and score.

    Args:
        agent: its store holds what was learnt; with a file of answers and the same store a stopped run goes on.
        dialogues: from `read_dialogues`, or made up.
        options: what is evaluated.
        digest: SHA-256 of the data, hexadecimal; keeps different data apart in the store and in the answers.
        answers: file of raw answers, JSON lines; None keeps none.
        disputed: questions, with their gold, that are known to be wrong: the report has a second table without them.
        progress: told of the stages.

    Returns:
        The report of the contract.

    Raises:
        ConfigurationError: nothing is left to ask, nobody is left to answer, an unknown arm, or a file of answers of
            another run.
    """
    started = time.perf_counter()
    chosen = selected(dialogues, options)
    arms = [name for name in dict.fromkeys(options.arms) if name != "wrong_user" or len(chosen) > 1]
    if not arms:
        raise ConfigurationError(
            "the arm wrong_user asks another conversation's memory: choose two conversations or more, or another arm"
        )
    wording = Wording(
        options.short if options.short is not None else agent.backbone.name != TINY,
        options.answer_tokens,
        options.searched_turns,
    )
    book = AnswerBook(Given, _about(agent, options, digest), answers)
    handles = handles_of(agent, chosen, digest=digest, sessions=options.sessions)
    ingest(agent, chosen, handles, progress=progress)
    Arms(agent, wording, book).ask(arms, chosen, handles, progress=progress)
    report: dict[str, Any] = {
        "kind": "locomo",
        "backbone": agent.backbone.name,
        "seed": options.seed,
        "conversations": [dialogue.name for dialogue in chosen],
        "sessions": sum(len(dialogue.sessions) for dialogue in chosen),
        "questions": sum(len(dialogue.questions) for dialogue in chosen),
        "asked_for_few_words": wording.short,
        "study": agent.config.study.model_dump(mode="json"),
        "categories": CATEGORIES,
        "learnt": learnt(agent, handles),
    }
    report |= figures(book, chosen, arms, seed=options.seed)
    kept = [_without(dialogue, disputed) for dialogue in chosen]
    report["disputed_questions"] = report["questions"] - sum(len(dialogue.questions) for dialogue in kept)
    report["without_disputed"] = figures(book, kept, arms, seed=options.seed) if report["disputed_questions"] else None
    return report | {"seconds": round(time.perf_counter() - started, 1)}


def near_floor(agent: AgentMemory) -> str | None:
    """Return what must stand beside figures on real talk when the backbone is the bundled one."""
    return _NEAR_FLOOR if agent.backbone.name == TINY else None


def selected(dialogues: Sequence[Dialogue], options: LocomoOptions) -> list[Dialogue]:
    """Return what the options leave.

    Raises:
        ConfigurationError: nothing is left to ask, or an unknown name.
    """
    names = [dialogue.name for dialogue in dialogues]
    unknown = [name for name in options.conversations if name not in names]
    if unknown:
        raise ConfigurationError(f"no conversation {', '.join(unknown)}: there are {', '.join(names)}")
    if strange := [name for name in options.arms if name not in ARMS]:
        raise ConfigurationError(f"no arm {', '.join(strange)}: there are {', '.join(ARMS)}")
    wanted = [
        dialogue for dialogue in dialogues if not options.conversations or dialogue.name in options.conversations
    ][: options.first]
    made = [_shortened(dialogue, options) for dialogue in wanted]
    if not any(dialogue.questions for dialogue in made):
        raise ConfigurationError("no question is left to ask: keep more conversations or sessions")
    return made


def read_disputed(path: Path) -> frozenset[tuple[str, str]]:
    """Read a list of disputed gold answers.

    A JSON list of objects with `question` and `golden_answer`, as locomo-audit's `errors.json`.

    Entries of `error_type` "WRONG_CITATION" dispute the evidence, not the answer, and are left out.

    Raises:
        ConfigurationError: it is no such list.
    """
    try:
        entries = json.loads(path.read_bytes())
        if not isinstance(entries, list):
            raise TypeError(f"got {type(entries).__name__}")
        return frozenset(
            (str(one["question"]).strip(), str(one["golden_answer"]).strip())
            for one in entries
            if one.get("error_type") != "WRONG_CITATION"
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigurationError(
            f"{path.name!r} is no list of disputed answers: {type(error).__name__}; expected a JSON list of objects "
            "with question and golden_answer"
        ) from error


def data_digest(data: Any) -> str:
    """Return the SHA-256 of data that lie in no file."""
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def _shortened(dialogue: Dialogue, options: LocomoOptions) -> Dialogue:
    sessions = dialogue.sessions[: options.sessions]
    told = {turn.key for session in sessions for turn in session.turns}
    questions: Sequence[AskedQuestion] = dialogue.questions
    if len(sessions) < len(dialogue.sessions):
        questions = [asked for asked in questions if asked.evidence and told.issuperset(asked.evidence)]
    if options.questions is not None:
        in_turn = zip_longest(
            *([asked for asked in questions if asked.category == category] for category in CATEGORIES)
        )
        questions = [asked for row in in_turn for asked in row if asked is not None][: options.questions]
    return replace(dialogue, sessions=sessions, questions=tuple(sorted(questions, key=lambda asked: asked.number)))


def _without(dialogue: Dialogue, disputed: frozenset[tuple[str, str]]) -> Dialogue:
    kept = tuple(
        asked for asked in dialogue.questions if (asked.text.strip(), (asked.gold or "").strip()) not in disputed
    )
    return replace(dialogue, questions=kept)


def _about(agent: AgentMemory, options: LocomoOptions, digest: str) -> dict[str, Any]:
    """Return what an answer depends on.

    Which arms are asked may differ between runs of one file, and the seed decides nothing but a figure.
    """
    told = options.model_dump(mode="json", exclude={"arms", "seed"})
    return {"data": digest, "fingerprint": agent.backbone.fingerprint, "config": agent.config.digest(), "options": told}

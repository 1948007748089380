"""The made-up turns that a scribe is taught on, each with the questions that its person might ask later."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from pydantic import BaseModel, ConfigDict, Field


class _Row(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class LessonFact(_Row):
    """One thing that a turn tells: the answer as it stands in the turn, and questions for it in the person's voice."""

    answer: str = Field(min_length=1)
    questions: tuple[str, ...] = Field(min_length=1)


class LessonTurn(_Row):
    """One turn that somebody might have typed, and what it tells; most tell something, some nothing."""

    turn: str = Field(min_length=1)
    facts: tuple[LessonFact, ...]


HELD_OUT = 10
"""One of so many turns is kept from the training, to see what was learnt."""


@cache
def lesson_turns() -> tuple[LessonTurn, ...]:
    """Return the turns that ship with the package. They were written by hand for it; nobody said them."""
    text = files("locas_agent.study.scribe").joinpath("lessons.jsonl").read_text(encoding="utf-8")
    return tuple(LessonTurn.model_validate_json(line) for line in text.splitlines())


def taught() -> tuple[LessonTurn, ...]:
    """Return the turns with something to ask that a scribe is trained on."""
    return tuple(each for at, each in enumerate(lesson_turns()) if each.facts and at % HELD_OUT != HELD_OUT - 1)


def held_out() -> tuple[LessonTurn, ...]:
    """Return the turns with something to ask that no scribe is trained on."""
    return tuple(each for each in lesson_turns()[HELD_OUT - 1 :: HELD_OUT] if each.facts)


@cache
def lesson_questions() -> tuple[str, ...]:
    """Return all questions of the lessons: what other people might ask."""
    return tuple(text for turn in lesson_turns() for fact in turn.facts for text in fact.questions)

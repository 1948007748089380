"""People of the talk schema: JSON lines, a person each, read strictly.

A line holds `person, name, style, sessions: [{at, turns: [{role, text, facts}]}], facts: {id: {session, kind,
questions, answers, replaces}}, never_told`. `facts` of a turn are the ids of what it tells; `session` of a fact is the
place of the session that tells it, from 0; `replaces` is the id of the fact that this one makes untrue, or null.

Messages name the file, the line and the place in it, and never what somebody said.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from locas_agent.errors import ConfigurationError
from locas_agent.evaluation.json_lines import read_json_lines

Text = Annotated[str, Field(pattern=r"\S")]
"""Text with something in it."""

_SHOWN_CHARACTERS = 40
"""Of a name or an id in a message; a mistake may have put a whole sentence in its place."""


class _Talk(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, use_attribute_docstrings=True)


class TalkTurn(_Talk):
    """One message."""

    role: Literal["user", "assistant"]
    """Who speaks."""
    text: Text
    """What is said."""
    facts: tuple[str, ...]
    """Ids of the facts it tells."""


class TalkSession(_Talk):
    """A dated run of turns."""

    at: AwareDatetime
    """When it begins."""
    turns: tuple[TalkTurn, ...] = Field(min_length=1)
    """Its turns, in order."""


class TalkFact(_Talk):
    """What a person tells once, how it is asked for, and which answers are right."""

    session: int = Field(ge=0)
    """Place of the session that tells it."""
    kind: Text
    """What kind of fact it is."""
    questions: tuple[Text, ...] = Field(min_length=1)
    """Wordings that ask for it."""
    answers: tuple[Text, ...] = Field(min_length=1)
    """Accepted forms; one of them in the answer is right."""
    replaces: str | None
    """Id of the fact that this one makes untrue."""


class TalkPerson(_Talk):
    """Everything one person says, and what may be asked of it."""

    person: Text
    """Its id, one of its kind in a file."""
    name: Text
    """What it is called."""
    style: Text
    """How it talks."""
    sessions: tuple[TalkSession, ...] = Field(min_length=1)
    """Its sessions, oldest first."""
    facts: dict[str, TalkFact] = Field(min_length=1)
    """What it tells, by id."""
    never_told: tuple[Text, ...]
    """Questions about what it never tells."""


@dataclass(frozen=True, slots=True)
class TalkFile:
    """The people of one file, and the SHA-256 of its bytes, hexadecimal."""

    name: str
    digest: str
    people: tuple[TalkPerson, ...]


def read_talk(path: Path) -> TalkFile:
    """Read one file.

    Raises:
        ConfigurationError: it cannot be read, a line is no such person, or two people have one id.
    """
    file = read_json_lines(path, each="a person")
    people: dict[str, TalkPerson] = {}
    for where, line in file.lines():
        person = _person(line, where)
        if person.person in people:
            raise ConfigurationError(
                f"{where}: a person of the id {_shown(person.person)} stands above; give each an id of its own"
            )
        people[person.person] = person
    if not people:
        raise ConfigurationError(f"{path.name} holds nobody; give a file with a person a line")
    return TalkFile(file.name, file.digest, tuple(people.values()))


def _person(line: str, where: str) -> TalkPerson:
    try:
        data = json.loads(line, object_pairs_hook=_without_twins)
    except json.JSONDecodeError as error:
        raise ConfigurationError(
            f"{where}: no JSON at column {error.colno} ({error.msg}); a line holds one whole person"
        ) from None  # the original shows the line
    except _Twin as error:
        raise ConfigurationError(f"{where}: the key {_shown(error.key)} stands twice in one object") from None
    except RecursionError:
        raise ConfigurationError(f"{where}: JSON nested too deeply; a line holds one whole person") from None
    try:
        person = TalkPerson.model_validate_json(json.dumps(data), strict=True)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
        at = ".".join(_plain(str(part)) for part in first["loc"]) or "the line"
        raise ConfigurationError(f"{where}: {at}: {first['msg']}; see the talk schema in docs/people.md") from None
    _check_dates(person, where)
    _check_facts(person, where)
    return person


def _check_dates(person: TalkPerson, where: str) -> None:
    for number, (earlier, later) in enumerate(pairwise(person.sessions), 1):
        if later.at < earlier.at:
            raise ConfigurationError(f"{where}: sessions.{number} is earlier than the one before it")


def _check_facts(person: TalkPerson, where: str) -> None:
    """Refuse facts that no turn tells, turns that tell what is no fact, and replacements of nothing."""
    told: dict[str, tuple[int, int]] = {}  # in which session, and how many facts were told before it
    for number, session in enumerate(person.sessions):
        for at, turn in enumerate(session.turns):
            place = f"{where}: sessions.{number}.turns.{at}"
            for name in turn.facts:
                if name not in person.facts:
                    raise ConfigurationError(f"{place} tells {_shown(name)}, which is not among the facts")
                if name in told:
                    raise ConfigurationError(f"{place} tells {_shown(name)} a second time; a fact is told once")
                told[name] = (number, len(told))
    replaced: set[str] = set()
    for name, fact in person.facts.items():
        place = f"{where}: facts.{_plain(name)}"
        if name not in told:
            raise ConfigurationError(f"{place} is told by no turn")
        if fact.session != told[name][0]:
            raise ConfigurationError(f"{place}: session is {fact.session}, a turn of session {told[name][0]} tells it")
        if (former := fact.replaces) is None:
            continue
        if former not in person.facts:
            raise ConfigurationError(f"{place} replaces {_shown(former)}, which is not among the facts")
        if former not in told or told[former][1] >= told[name][1]:
            raise ConfigurationError(f"{place} replaces {_shown(former)}, which is not told before it")
        if former in replaced:
            raise ConfigurationError(f"{place} replaces {_shown(former)}, which another fact replaces already")
        replaced.add(former)


class _Twin(ValueError):
    """A key that stands twice in one object."""

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key


def _without_twins(pairs: Sequence[tuple[str, object]]) -> dict[str, object]:
    """Return an object, unless a key stands twice: JSON would keep the last one without a word."""
    found: dict[str, object] = {}
    for key, value in pairs:
        if key in found:
            raise _Twin(key)
        found[key] = value
    return found


def _plain(name: str) -> str:
    """Return a name short enough for a message, and on one line."""
    shown = " ".join(name.split())
    return shown if len(shown) <= _SHOWN_CHARACTERS else shown[:_SHOWN_CHARACTERS] + "..."


def _shown(name: str) -> str:
    return repr(_plain(name))

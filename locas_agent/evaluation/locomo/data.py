"""Conversations of LoCoMo as they are published: sessions, turns, questions.

Two layouts are read, told apart by their shape:

- that of `locomo10.json`: a list of conversations, or one of them, or a folder with one in each file; sessions are keys
  `session_N` beside `session_N_date_time`, turns are numbered `D<session>:<turn>`;
- that of `locomo10_rag.json`: an object of conversations by name, each with its questions and one flat list of dated
  turns. A session is a run of turns of one date, and turns are numbered as above.

What an annotator typed into an image search (`query`) is never read: gold answers leak through it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any

from locas_agent.conversation.messages import MONTHS
from locas_agent.errors import ConfigurationError

CATEGORIES = {1: "multi-hop", 2: "temporal", 3: "open-domain", 4: "single-hop", 5: "adversarial"}
"""Numbers in the data with the names of the published code. The paper's text lists the kinds in another order, and
other projects swap names."""
ADVERSARIAL = 5
ASSISTANT = "assistant"
"""A speaker of this name, in any case, is the agent itself; what the other one says is then `user`'s."""

_DATE = re.compile(r"(\d+):(\d+) (am|pm) on (\d+) (\w+), (\d+)")
_SESSION = re.compile(r"session_(\d+)")
_TURN_NUMBER = re.compile(r"D:?(\d+):(\d+)")


@dataclass(frozen=True, slots=True)
class Spoken:
    """One turn, as it is told to `AgentMemory`."""

    key: str
    """Its number, `D<session>:<turn>`."""
    role: str
    speaker: str | None
    """None where the role says who speaks."""
    text: str
    session: str
    """What the journal calls its session."""
    at: datetime


@dataclass(frozen=True, slots=True)
class DatedSession:
    """A dated run of turns."""

    number: int
    at: datetime
    turns: tuple[Spoken, ...]


@dataclass(frozen=True, slots=True)
class AskedQuestion:
    """A question of the annotators."""

    number: int
    """Its place in the file, from 0."""
    category: int
    text: str
    gold: str | None
    """What is right; None in category 5."""
    trap: str | None
    """Category 5: what would be right if the question's premise held."""
    evidence: tuple[str, ...]
    """Numbers of turns that exist; malformed and dangling ones are left out."""


@dataclass(frozen=True, slots=True)
class Dialogue:
    """One conversation with its questions."""

    name: str
    sessions: tuple[DatedSession, ...]
    questions: tuple[AskedQuestion, ...]


def parse_date(text: str) -> datetime:
    """Read "1:56 pm on 8 May, 2023", whatever the machine's locale; taken as UTC, since the data name no zone.

    Raises:
        ConfigurationError: not of this form.
    """
    match = _DATE.fullmatch(text.strip())
    try:
        if match is None:
            raise ValueError("another form")
        hour = int(match[1]) % 12 + (12 if match[3] == "pm" else 0)
        return datetime(int(match[6]), MONTHS.index(match[5]) + 1, int(match[4]), hour, int(match[2]), tzinfo=UTC)
    except ValueError as error:  # also a 31 February, and a month of no calendar
        raise ConfigurationError(
            f"not a date of LoCoMo: {text[:40]!r}, expected one like '1:56 pm on 8 May, 2023'"
        ) from error


def written_date(at: datetime) -> str:
    """Return a time as `parse_date` reads it."""
    half = "pm" if at.hour >= 12 else "am"
    return f"{at.hour % 12 or 12}:{at.minute:02d} {half} on {at.day} {MONTHS[at.month - 1]}, {at.year}"


def read_dialogues(path: Path) -> tuple[list[Dialogue], str]:
    """Read a file, or every .json file of a folder.

    Returns:
        The conversations, and the SHA-256 of what was read, hexadecimal.

    Raises:
        ConfigurationError: it cannot be read, or is no such data.
    """
    files = sorted(path.glob("*.json")) if path.is_dir() else [path]
    digest = hashlib.sha256()
    found: list[Dialogue] = []
    for file in files:
        try:
            content = file.read_bytes()
            data = json.loads(content)
        except (OSError, ValueError) as error:
            raise ConfigurationError(
                f"cannot read {file.name!r} as JSON: {type(error).__name__}; give LoCoMo's file, such as locomo10.json"
            ) from error
        digest.update(content)
        found += _entries(data, f" in {file.name!r}")
    if not found:
        raise ConfigurationError(
            f"no conversation in {path.name!r}: give LoCoMo's file, such as locomo10.json, or a folder of such files"
        )
    return _apart(found), digest.hexdigest()


def dialogues_of(data: Any) -> list[Dialogue]:
    """Return the conversations of parsed JSON in either layout.

    Raises:
        ConfigurationError: a conversation lacks what every one has.
    """
    return _apart(_entries(data))


def _entries(data: Any, where: str = "") -> list[Dialogue]:
    entries: list[Any]
    if isinstance(data, Mapping) and "conversation" not in data:
        entries = [{"sample_id": name, **entry} for name, entry in data.items() if _is_conversation(entry)]
    else:
        entries = [data] if isinstance(data, Mapping) else list(data) if isinstance(data, list) else []
    return [_dialogue(entry, index, where) for index, entry in enumerate(entries)]


def _apart(dialogues: list[Dialogue]) -> list[Dialogue]:
    """Return them as they are; two of one name would share a memory."""
    twice = sorted(name for name, count in Counter(dialogue.name for dialogue in dialogues).items() if count > 1)
    if twice:
        raise ConfigurationError(
            f"more than one conversation is called {', '.join(twice)}: each needs a sample_id of its own"
        )
    return dialogues


def _is_conversation(entry: Any) -> bool:
    return isinstance(entry, Mapping) and "conversation" in entry


def _dialogue(entry: Any, index: int, where: str) -> Dialogue:
    if not _is_conversation(entry):
        raise ConfigurationError(
            f"entry {index}{where} is no conversation of LoCoMo: it has no 'conversation'; give a file such as "
            "locomo10.json"
        )
    name, told = str(entry.get("sample_id", index)), entry["conversation"]
    try:
        sessions = tuple(_flat_sessions(told) if isinstance(told, list) else _numbered_sessions(told))
        known = Counter(turn.key for session in sessions for turn in session.turns)
        asked = entry["question"] if "question" in entry else entry["qa"]
        questions = tuple(_question(number, qa, known) for number, qa in enumerate(asked))
    except KeyError as error:
        raise ConfigurationError(f"conversation {name!r}{where} is not as LoCoMo's are: {error} is missing") from error
    except (TypeError, AttributeError, ValueError) as error:
        raise ConfigurationError(f"conversation {name!r}{where} is not as LoCoMo's are: {error}") from error
    if not known:
        raise ConfigurationError(f"conversation {name!r}{where} is not as LoCoMo's are: it has no session with a turn")
    if twice := [key for key, count in known.items() if count > 1]:
        raise ConfigurationError(
            f"conversation {name!r}{where} is not as LoCoMo's are: more than one turn is numbered "
            f"{', '.join(twice[:3])}"
        )
    return Dialogue(name, sessions, questions)


def _numbered_sessions(told: Mapping[str, Any]) -> Iterable[DatedSession]:
    """Read `session_N`; a date without a session is left out."""
    numbers = sorted(int(match[1]) for key in told if (match := _SESSION.fullmatch(key)))
    if strange := [number for number in numbers if not isinstance(told[f"session_{number}"], list)]:
        raise TypeError(f"session_{strange[0]} is no list of turns")
    has_agent = _has_agent(turn["speaker"] for number in numbers for turn in told[f"session_{number}"])
    for number in numbers:
        turns = told[f"session_{number}"]
        yield _session(
            number,
            told[f"session_{number}_date_time"],
            turns,
            [str(turn["dia_id"]) for turn in turns],
            has_agent=has_agent,
        )


def _flat_sessions(told: Sequence[Mapping[str, Any]]) -> Iterable[DatedSession]:
    """Cut a flat list where its date changes, and number the turns as the other layout does."""
    has_agent = _has_agent(turn["speaker"] for turn in told)
    for number, (date, run) in enumerate(groupby(told, key=lambda turn: turn["timestamp"]), 1):
        turns = list(run)
        yield _session(number, date, turns, [f"D{number}:{at}" for at in range(1, len(turns) + 1)], has_agent=has_agent)


def _has_agent(speakers: Iterable[str]) -> bool:
    return any(speaker.casefold() == ASSISTANT for speaker in speakers)


def _session(
    number: int, date: str, turns: Sequence[Mapping[str, Any]], keys: Sequence[str], *, has_agent: bool
) -> DatedSession:
    """Read one session; a picture's caption is part of the text.

    Between two people both are `user`, told apart by name.
    """
    at, made = parse_date(date), []
    for turn, key in zip(turns, keys, strict=True):
        speaker, said = str(turn["speaker"]), turn["clean_text"] if "clean_text" in turn else turn["text"]
        caption = turn.get("blip_caption")
        text = f"{said} [shares a picture: {caption}]".strip() if caption else said
        role = ASSISTANT if speaker.casefold() == ASSISTANT else "user"
        if text.strip():
            made.append(Spoken(key, role, None if has_agent else speaker, text, f"session {number}", at))
    return DatedSession(number, at, tuple(made))


def _question(number: int, qa: Mapping[str, Any], known: Container[str]) -> AskedQuestion:
    category = int(qa["category"])
    if category not in CATEGORIES:
        raise ConfigurationError(f"question {number} has category {category}, LoCoMo has 1 to 5")
    adversarial = category == ADVERSARIAL
    answer = str(qa["answer"]) if qa.get("answer") is not None else None  # some are whole numbers
    trap = qa.get("adversarial_answer", answer) if adversarial else None
    if (trap if adversarial else answer) is None:
        raise ConfigurationError(f"question {number} of category {category} has no answer to be scored against")
    return AskedQuestion(
        number,
        category,
        str(qa["question"]),
        None if adversarial else answer,
        None if trap is None else str(trap),
        _evidence(qa, known),
    )


def _evidence(qa: Mapping[str, Any], known: Container[str]) -> tuple[str, ...]:
    """Read turn numbers as they were meant: several in one string, a colon too much, leading zeros."""
    parts = [part for entry in qa.get("evidence", ()) for part in re.split(r"[;,\s]+", str(entry))]
    meant = [f"D{int(match[1])}:{int(match[2])}" for part in parts if (match := _TURN_NUMBER.fullmatch(part))]
    return tuple(dict.fromkeys(key for key in meant if key in known))

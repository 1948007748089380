"""From turns to chat messages: dated session headers, named speakers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date, datetime
from typing import Protocol, TypeVar

Message = dict[str, str]
"""A chat message of the Hugging Face form: `role` and `content`."""

MONTHS = ("January February March April May June July August September October November December").split()


class TurnLike(Protocol):
    """What prompting needs of a turn."""

    @property
    def role(self) -> str: ...  # noqa: D102
    @property
    def content(self) -> str: ...  # noqa: D102
    @property
    def name(self) -> str | None: ...  # noqa: D102
    @property
    def local_at(self) -> datetime: ...  # noqa: D102
    @property
    def session(self) -> str | None: ...  # noqa: D102


TurnLikeT = TypeVar("TurnLikeT", bound=TurnLike)


def day_in_words(day: date) -> str:
    """Return a day as people read it, "24 February 2026", independent of the machine's locale."""
    return f"{day.day} {MONTHS[day.month - 1]} {day.year}"


def session_header(at: datetime) -> Message:
    """Return the message that opens a session: its date in words."""
    return {"role": "system", "content": f"Conversation on {day_in_words(at)}."}


def to_message(turn: TurnLike) -> Message:
    """Return a turn as a message; a named speaker stands before the text."""
    return {"role": turn.role, "content": f"{turn.name}: {turn.content}" if turn.name else turn.content}


def question(text: str) -> list[Message]:
    """Return the prompt of a question that stands alone."""
    return [{"role": "user", "content": text}]


def exchange(text: str, answer: str) -> list[Message]:
    """Return a question with its answer."""
    return [*question(text), {"role": "assistant", "content": answer}]


def same_session(earlier: TurnLike, later: TurnLike) -> bool:
    """Tell whether two neighbouring turns belong to one dated session.

    The same name, or without names the same day of the speaker's.
    """
    if earlier.session is not None or later.session is not None:
        return earlier.session == later.session
    return earlier.local_at.date() == later.local_at.date()


def split_sessions(turns: Iterable[TurnLikeT]) -> list[list[TurnLikeT]]:
    """Cut a run of turns where its session changes."""
    sessions: list[list[TurnLikeT]] = []
    for turn in turns:
        if sessions and same_session(sessions[-1][-1], turn):
            sessions[-1].append(turn)
        else:
            sessions.append([turn])
    return sessions


def conversation(turns: Sequence[TurnLike]) -> list[Message]:
    """Return turns as messages, each session headed by its date."""
    messages: list[Message] = []
    for session in split_sessions(turns):
        messages.append(session_header(session[0].local_at))
        messages += [to_message(turn) for turn in session]
    return messages

"""Owns `Person`, a user of a server with a number that nobody else has, and what this user's client was told."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import takewhile

from locas_storage import MemoryStore, Turn, UserKey

WHO = "Who am I?"
"""What people with a memory of their own ask first: nothing before it, so that the memory alone decides."""
TELL, ASK = "My locker opens with {number}.", "What does my locker open with?"
TELLING = 16
"""First characters of an answer by which it is told whose memory gave it: a row beside others is rounded differently,
and may differ further on."""


@dataclass
class Exchange:
    """A question, and what was heard of the answer.

    Attributes:
        question: what was sent.
        answer: what came back, whole; None where none did.
        is_acknowledged: whether the client knows that the question is kept: it heard some of an answer.
        unheard: tries whose end was not heard; each may have been answered, and the answer kept.
    """

    question: str
    answer: str | None = None
    is_acknowledged: bool = False
    unheard: int = 0


@dataclass(frozen=True)
class Left:
    """A stream that was left in the middle: the server may have written it to its end, and kept it then or later.

    Attributes:
        session: its conversation.
        answers: that were heard in it before.
        heard: what the answer begins with.
    """

    session: str
    answers: int
    heard: str


@dataclass
class Person:
    """One user.

    Attributes:
        name: of the user.
        number: nobody else has it.
        expected: what the own memory answers to `WHO`; None without a memory.
        said: all that was said to and fro, in order.
        left: streams that were left.
        busy: held by the client that is this user now.
    """

    name: str
    number: str
    expected: str | None = None
    said: list[Exchange] = field(default_factory=list)
    left: list[Left] = field(default_factory=list)
    busy: threading.Lock = field(default_factory=threading.Lock)

    @property
    def key(self) -> UserKey:
        return UserKey("default", self.name)

    def says(self, answer: str) -> bool:
        """Tell whether an answer to `WHO` is that of this person's memory."""
        return self.expected is not None and answer[:TELLING] == self.expected[:TELLING]


@dataclass(frozen=True)
class Kept:
    """What a store has of what was said.

    Attributes:
        turns: in the journals.
        lost: that clients were told of, and are not where they belong.
        doubled: that are there and nobody said, or that are there twice.
    """

    turns: int
    lost: int
    doubled: int


def people(count: int) -> list[Person]:
    """Return users whose numbers do not occur in each other."""
    return [Person(f"user {number}", str(100_003 + 7 * number)) for number in range(count)]


def kept_of(store: MemoryStore, everybody: Sequence[Person]) -> Kept:
    """Compare journals with what their clients were told: each turn once, in order, and nothing else."""
    turns = lost = doubled = 0
    for person in everybody:
        journal = store.turns(person.key)
        begun = 1 if person.expected is not None else 0  # whoever has a memory had said something before
        said = [(turn.role, turn.content) for turn in _without_left(journal[begun:], person.left)]
        missing, many = compared(said, person.said)
        turns, lost, doubled = turns + len(journal), lost + missing, doubled + many
    return Kept(turns, lost, doubled)


def _without_left(journal: Sequence[Turn], left: Sequence[Left]) -> list[Turn]:
    """Leave out answers to streams that were left: they may have come late, and stand anywhere."""
    late = []
    for one in left:
        answers = [turn for turn in journal if turn.session == one.session and turn.role == "assistant"]
        late += [turn.seq for turn in answers[one.answers : one.answers + 1] if turn.content.startswith(one.heard)]
    return [turn for turn in journal if turn.seq not in late]


def compared(journal: Sequence[tuple[str, str]], said: Sequence[Exchange]) -> tuple[int, int]:
    """Return how many turns of a journal are missing, and how many are too many."""
    at = lost = doubled = 0
    for exchange in said:
        if at < len(journal) and journal[at] == ("user", exchange.question):
            at += 1
        elif exchange.is_acknowledged:
            lost += 1
        else:
            continue
        answers = [text for _, text in takewhile(lambda turn: turn[0] == "assistant", journal[at:])]
        at += len(answers)
        is_turn = exchange.answer is not None and exchange.answer.strip()  # one of blanks need not be one
        lost += bool(is_turn) and exchange.answer not in answers
        doubled += max(0, len(answers) - (exchange.answer is not None) - exchange.unheard)
    return lost, doubled + len(journal) - at

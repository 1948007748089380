"""The seam of `eval recall`: the people evaluated, made up or read from a file, are a `Source` of tellers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

ANSWER_TOKENS = 24
"""Longest answer to any question, in tokens: as long as an answer that is studied."""
SECONDS_APART = 20
"""Time between two turns of a session, of which only the beginning is dated."""


class LeftOut(StrEnum):
    """Arms that can be left out; the other figures are made of the rest."""

    CONTEXT_TURN = "context_turn"
    FULL_CONTEXT = "full_context"
    WINDOW_MEMORY = "window_memory"
    SEARCH = "search"
    SEARCH_MEMORY = "search_memory"
    WRONG_USER = "wrong_user"


@dataclass(frozen=True, slots=True)
class SaidTurn:
    """One turn as it is told to `AgentMemory`."""

    role: str
    text: str
    at: datetime
    session: int
    """Place of its session, from 0."""
    key: str
    """The same key twice is one turn."""


@dataclass(frozen=True, slots=True)
class ToldFact:
    """What a person tells, how it is asked for and which answers are right."""

    answers: tuple[str, ...]
    """Accepted forms."""
    questions: tuple[str, ...]
    """Wordings that ask for it; none where it is only told."""
    turn: int
    """Place of the turn that tells it among the person's turns, from 0."""
    session: int
    """Place of the session that tells it, from 0."""
    role: str
    """Who tells it: `user` or `assistant`."""
    replaces: int | None = None
    """Place, among the person's facts, of the one that this makes untrue."""


@dataclass(frozen=True, slots=True)
class Teller:
    """One person: all it says, and all it may be asked once it has said it."""

    name: str
    """The user's name in the store."""
    style: str
    turns: tuple[SaidTurn, ...]
    facts: tuple[ToldFact, ...]
    """In the order of telling."""
    never_told: tuple[str, ...]
    """Questions about what it never tells."""

    def newest(self, place: int) -> int:
        """Return the place of the fact in force for the fact at a place: itself, or what replaced it last."""
        later = {fact.replaces: at for at, fact in enumerate(self.facts) if fact.replaces is not None}
        while place in later:
            place = later[place]
        return place

    def former(self, place: int) -> tuple[str, ...]:
        """Return the accepted forms of all facts that the fact at a place made untrue."""
        found: list[str] = []
        older = self.facts[place].replaces
        while older is not None:
            found += self.facts[older].answers
            older = self.facts[older].replaces
        return tuple(found)


@dataclass(frozen=True, slots=True)
class Asked:
    """One question put to every arm, after everything was told."""

    user: int
    """Whose, by place among the tellers."""
    text: str
    place: int
    """Place of the fact whose wording it is, among the person's facts."""
    fact: ToldFact
    """What is right: the fact in force."""
    former: tuple[str, ...]
    """Accepted forms of what was right before; nothing where the fact was told once."""
    is_own: bool
    """It is a wording of the fact in force itself, and not of one that was replaced."""

    @property
    def is_updated(self) -> bool:
        """Tell whether it asks for what was told again."""
        return bool(self.former)


@dataclass(frozen=True, slots=True)
class Source:
    """Everybody who is evaluated."""

    name: str
    """`generator`, or the names of the files."""
    tenant: str
    """Keeps in one store other people and other ways of telling apart."""
    tellers: tuple[Teller, ...]
    facts_per_session: int | float
    matches: Callable[[str, str], bool]
    """Tells whether an answer holds an accepted form."""
    is_held_out: bool
    """Its wordings are kept from the backbone: one that was trained on would prove nothing."""

    @property
    def sessions(self) -> int:
        """The most sessions that somebody has."""
        return max(teller.turns[-1].session for teller in self.tellers) + 1

    def asked(self) -> list[Asked]:
        """Return every question, in the order of the people and of the telling.

        The wordings of a replaced fact expect what replaced it.
        """
        found = []
        for user, teller in enumerate(self.tellers):
            for place, about in enumerate(teller.facts):
                newest = teller.newest(place)
                former = teller.former(newest)
                found += [
                    Asked(user, text, place, teller.facts[newest], former, is_own=place == newest)
                    for text in about.questions
                ]
        return found

    def never_told(self) -> list[tuple[int, str]]:
        """Return what nobody told, each with the place of the person that is asked."""
        return [(user, text) for user, teller in enumerate(self.tellers) for text in teller.never_told]

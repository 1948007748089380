"""What the tools answer: plain records, from which the protocol's schemas are made."""

from __future__ import annotations

from datetime import datetime
from typing import Self

from pydantic import BaseModel, ConfigDict

from locas_storage import FoundTurn, Receipt, Turn


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class RememberedTurn(_Answer):
    """One thing that was said."""

    turn: int
    """Its number, by which it is forgotten."""
    said_by: str
    """`user`, `assistant`, `system` or `tool`; or the speaker's name."""
    at: datetime
    """When, by the clock of whoever said it."""
    text: str
    """What was said."""
    is_learnt: bool
    """Whether a consolidation has passed it; until then it is found by search alone."""

    @classmethod
    def of(cls, turn: Turn, *, learnt_up_to: int) -> Self:
        """Return a turn of the journal."""
        return cls(
            turn=turn.seq,
            said_by=turn.name or turn.role,
            at=turn.local_at,
            text=turn.content,
            is_learnt=turn.learn and turn.seq <= learnt_up_to,
        )


class FoundMemory(RememberedTurn):
    """One thing that was said and that fits a search."""

    score: float
    """How well it fits; comparable within one search."""

    @classmethod
    def found(cls, turn: FoundTurn, *, learnt_up_to: int) -> Self:
        """Return a turn that a search found."""
        return cls(**RememberedTurn.of(turn, learnt_up_to=learnt_up_to).model_dump(), score=turn.score)


class Remembered(_Answer):
    """What became of something that was to be remembered."""

    turn: int
    """Number of the turn that holds it."""
    waiting_turns: int
    """Turns that left the window and wait to be learnt."""


class Recalled(_Answer):
    """An answer from the memory alone."""

    answer: str | None
    """What the memory answers; None where nothing is learnt yet."""
    why_none: str | None
    """Why there is no answer."""
    gain_nats: float | None
    """How much likelier the answer is with the memory than without it: near 0, the memory had no part in it."""
    told_in: list[RememberedTurn]
    """Turns from which it may have been learnt."""


class Forgotten(_Answer):
    """What was removed for good."""

    turns: list[int]
    """Numbers of the turns whose text is gone; none where they were forgotten before."""
    study_items: int
    """Questions and answers made of them that are gone."""
    revisions: list[int]
    """Saved memories that had seen them and are gone."""
    relearnt_up_to: int
    """The remaining turns up to this one are learnt again; 0 where none has to be."""

    @classmethod
    def of(cls, receipt: Receipt) -> Self:
        """Return what a receipt says."""
        return cls(
            turns=list(receipt.turns),
            study_items=receipt.study_items,
            revisions=list(receipt.revisions),
            relearnt_up_to=receipt.rebuild_to_seq,
        )


class MemoryStatus(_Answer):
    """How much is remembered, and how much waits."""

    last_turn: int
    """Number of the newest turn; 0 before the first."""
    learnt_up_to: int
    """The last turn that a consolidation has passed."""
    waiting_turns: int
    """Turns that left the window and wait to be learnt."""
    revision: int | None
    """Number of the memory that answers now."""
    recall: float | None
    """Share of held-out questions that this memory answered when it was made."""
    learnt_at: datetime | None
    """When it was made."""

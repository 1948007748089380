"""Pieces of overflow: a dated run of turns, short enough to stand before the teacher."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date

from locas_agent.conversation.messages import Message, header, split_sessions, spoken
from locas_storage import Turn

QUOTE_CHARACTERS = 240
"""What a seed prompt quotes of a turn at most: it names the turn to the backbone, which has the whole of it in its
context."""


@dataclass(frozen=True, slots=True)
class Quote:
    """One turn of a piece as it may be quoted.

    Who said it ("I", "You" or a name), its text, and whether it may be asked about.
    """

    turn_seq: int
    speaker: str
    text: str
    is_learnt: bool = True
    """False for a turn that is only the context of others: nothing is learnt from it."""
    at: int = 0
    """Place of the turn among the messages of its piece."""
    day: date | None = None
    """Day of the speaker's on which it was said; its dating phrases are counted from there, and mean nothing
    without."""


@dataclass(frozen=True, slots=True)
class Piece:
    """What the teacher has in its context: messages headed by their date, and the turns they come from."""

    messages: tuple[Message, ...]
    quotes: tuple[Quote, ...]
    from_seq: int
    to_seq: int
    context_only: frozenset[int] = frozenset()
    """Places in `messages` of turns that nothing is learnt from."""

    @property
    def told(self) -> tuple[Message, ...]:
        """Messages that may be learnt as they are; the header is none."""
        return tuple(message for at, message in enumerate(self.messages) if at and at not in self.context_only)


def cut_pieces(
    turns: Sequence[Turn],
    count_tokens: Callable[[Sequence[Message]], int],
    *,
    max_tokens: int,
    is_learnt: Callable[[Turn], bool] = lambda _: True,
) -> list[Piece]:
    """Cut overflow at session dates, and again where a piece would grow beyond `max_tokens`.

    A turn longer than that is cut into parts of its text, each a piece of its own: nothing is left out.

    Args:
        turns: overflow in the order of the journal.
        count_tokens: tokens of a list of messages.
        max_tokens: largest piece, in tokens, header included.
        is_learnt: tells whether a turn may be learnt from; every turn unless given.
    """
    pieces = []
    for session in split_sessions(turns):
        opening = header(session[0].local_at)
        room = max_tokens - count_tokens([opening])
        run: list[tuple[Turn, Message]] = []
        used = 0
        for turn in session:
            for message in _parts(spoken(turn), count_tokens, room):
                cost = count_tokens([message])
                if run and used + cost > room:
                    pieces.append(_piece(opening, run, is_learnt))
                    run, used = [], 0
                run.append((turn, message))
                used += cost
        pieces.append(_piece(opening, run, is_learnt))
    return pieces


def _piece(opening: Message, run: list[tuple[Turn, Message]], is_learnt: Callable[[Turn], bool]) -> Piece:
    quotes = tuple(
        Quote(
            turn.seq,
            turn.name or ("You" if turn.role == "assistant" else "I"),
            message["content"],
            is_learnt(turn),
            at,
            turn.local_at.date(),
        )
        for at, (turn, message) in enumerate(run, start=1)
        if turn.role in ("user", "assistant") and message["content"].strip()
    )
    context_only = frozenset(at for at, (turn, _) in enumerate(run, start=1) if not is_learnt(turn))
    return Piece((opening, *(message for _, message in run)), quotes, run[0][0].seq, run[-1][0].seq, context_only)


def _parts(message: Message, count_tokens: Callable[[Sequence[Message]], int], room: int) -> list[Message]:
    """Halve a message until every part fits."""
    if count_tokens([message]) <= room or len(message["content"]) < 2:
        return [message]
    text = message["content"]
    middle = text.rfind(" ", 1, len(text) // 2) + 1 or len(text) // 2
    halves = ({"role": message["role"], "content": part} for part in (text[:middle], text[middle:]))
    return [part for half in halves for part in _parts(half, count_tokens, room)]

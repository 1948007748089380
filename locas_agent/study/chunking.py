"""Chunks of overflow: a dated run of turns, short enough to stand before the teacher."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date

from locas_agent.conversation.messages import Message, session_header, split_sessions, to_message
from locas_storage import Turn

EXCERPT_CHARACTERS = 240
"""What a seed prompt excerpts of a turn at most: it names the turn to the backbone, which has the whole of it in its
context."""


@dataclass(frozen=True, slots=True)
class TurnExcerpt:
    """One turn of a chunk as it may be quoted.

    Who said it ("I", "You" or a name), its text, and whether it may be asked about.
    """

    turn_seq: int
    speaker: str
    text: str
    is_learnt: bool = True
    """False for a turn that is only the context of others: nothing is learnt from it."""
    at: int = 0
    """Place of the turn among the messages of its chunk."""
    day: date | None = None
    """Day of the speaker's on which it was said; its dating phrases are counted from there, and mean nothing
    without."""

    @property
    def said(self) -> str:
        """The text without the name that stands before what a named speaker says."""
        return self.text.removeprefix(f"{self.speaker}: ")


@dataclass(frozen=True, slots=True)
class Chunk:
    """What the teacher has in its context: messages headed by their date, and the turns they come from."""

    messages: tuple[Message, ...]
    excerpts: tuple[TurnExcerpt, ...]
    from_seq: int
    to_seq: int
    context_only: frozenset[int] = frozenset()
    """Places in `messages` of turns that nothing is learnt from."""

    @property
    def told(self) -> tuple[Message, ...]:
        """Messages that may be learnt as they are; the header is none."""
        return tuple(message for at, message in enumerate(self.messages) if at and at not in self.context_only)


def chunk_turns(
    turns: Sequence[Turn],
    count_tokens: Callable[[Sequence[Message]], int],
    *,
    max_tokens: int,
    is_learnt: Callable[[Turn], bool] = lambda _: True,
) -> list[Chunk]:
    """Cut overflow at session dates, and again where a chunk would grow beyond `max_tokens`.

    A turn longer than that is cut into parts of its text, each a chunk of its own: nothing is left out.

    Args:
        turns: overflow in the order of the journal.
        count_tokens: tokens of a list of messages.
        max_tokens: largest chunk, in tokens, header included.
        is_learnt: tells whether a turn may be learnt from; every turn unless given.
    """
    chunks = []
    for session in split_sessions(turns):
        opening = session_header(session[0].local_at)
        room = max_tokens - count_tokens([opening])
        run: list[tuple[Turn, Message]] = []
        used = 0
        for turn in session:
            for message in _parts(to_message(turn), count_tokens, room):
                cost = count_tokens([message])
                if run and used + cost > room:
                    chunks.append(_chunk(opening, run, is_learnt))
                    run, used = [], 0
                run.append((turn, message))
                used += cost
        chunks.append(_chunk(opening, run, is_learnt))
    return chunks


def _chunk(opening: Message, run: list[tuple[Turn, Message]], is_learnt: Callable[[Turn], bool]) -> Chunk:
    excerpts = tuple(
        TurnExcerpt(
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
    return Chunk((opening, *(message for _, message in run)), excerpts, run[0][0].seq, run[-1][0].seq, context_only)


def _parts(message: Message, count_tokens: Callable[[Sequence[Message]], int], room: int) -> list[Message]:
    """Halve a message until every part fits."""
    if count_tokens([message]) <= room or len(message["content"]) < 2:
        return [message]
    text = message["content"]
    middle = text.rfind(" ", 1, len(text) // 2) + 1 or len(text) // 2
    halves = ({"role": message["role"], "content": part} for part in (text[:middle], text[middle:]))
    return [part for half in halves for part in _parts(half, count_tokens, room)]

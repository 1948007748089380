"""Which turns go into a prompt: the window verbatim, the pending overflow while it fits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from locas_storage import Turn, answer_key


@dataclass(frozen=True, slots=True)
class Layout:
    """The newest turns of a user, sorted into what a prompt holds."""

    window: tuple[Turn, ...]
    """The newest turns, verbatim, oldest first."""
    overflow: tuple[Turn, ...]
    """Turns before the window that are not learnt yet and still fit, oldest first."""
    pending_turns: int
    """All turns that left the window and are not learnt, whether they fit or not."""

    @property
    def prompt_turns(self) -> tuple[Turn, ...]:
        """What the prompt holds, oldest first, and each answer after its question."""
        return paired((*self.overflow, *self.window))

    @property
    def unseen_turns(self) -> int:
        """Pending turns that did not fit."""
        return self.pending_turns - len(self.overflow)

    def shortened(self, tokens: int) -> Layout:
        """Return the layout without its oldest turns, of at least so many tokens together; the newest turn stays."""
        turns = [*self.overflow, *self.window]
        dropped = 0
        while dropped < tokens and len(turns) > 1:
            dropped += turns.pop(0).token_count
        first = turns[0].seq
        window = tuple(turn for turn in self.window if turn.seq >= first)
        lost = len(self.window) - len(window)
        return Layout(window, tuple(turn for turn in self.overflow if turn.seq >= first), self.pending_turns + lost)


def paired(turns: Sequence[Turn]) -> tuple[Turn, ...]:
    """Return turns with each answer right after the turn that it answers, if that is among them.

    All others keep their order.

    Calls that overlap in different processes, and a call that is tried again after others, leave other turns between
    the two.
    """
    questions = {answer_key(turn.idempotency_key) for turn in turns}
    answers = {turn.idempotency_key: turn for turn in turns if turn.idempotency_key in questions}
    ordered: list[Turn] = []
    for turn in turns:
        if turn.idempotency_key not in answers:
            ordered.append(turn)
        if (answer := answers.get(answer_key(turn.idempotency_key))) is not None:
            ordered.append(answer)
    return tuple(ordered)


def first_of_window(turns: Sequence[Turn], window_tokens: int) -> int:
    """Return the index of the oldest turn inside the window; the newest turn is always inside.

    Args:
        turns: turns up to the newest, oldest first.
        window_tokens: what the window may hold, in tokens.
    """
    used = 0
    for index in range(len(turns) - 1, -1, -1):
        used += turns[index].token_count
        if used > window_tokens and index < len(turns) - 1:
            return index + 1
    return 0


def overflow(turns: Sequence[Turn], window_tokens: int) -> list[Turn]:
    """Return the turns that left the window, of all that are not learnt."""
    return list(turns[: first_of_window(turns, window_tokens)]) if turns else []


def lay_out(turns: Sequence[Turn], *, consolidated_seq: int, window_tokens: int, room_tokens: int) -> Layout:
    """Sort a user's newest turns into window, overflow that fits, and the rest.

    Args:
        turns: the newest turns without those that were forgotten, oldest first; as many as could ever fit.
        consolidated_seq: turns up to here are learnt.
        window_tokens: what the window may hold, in tokens.
        room_tokens: what the whole prompt may hold, in tokens.
    """
    if not turns:
        return Layout((), (), 0)
    start = first_of_window(turns, min(window_tokens, room_tokens))
    window = tuple(turns[start:])
    room = room_tokens - sum(turn.token_count for turn in window)
    fitting: list[Turn] = []
    for turn in reversed(turns[:start]):
        if turn.seq <= consolidated_seq or turn.token_count > room:
            break
        room -= turn.token_count
        fitting.append(turn)
    # Numbers of forgotten turns are missing among those given; before these only the numbers are known.
    before = max(0, turns[0].seq - 1 - consolidated_seq)
    return Layout(window, tuple(reversed(fitting)), before + sum(turn.seq > consolidated_seq for turn in turns[:start]))

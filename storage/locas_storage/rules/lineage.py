"""Owns the question which revisions grew from which: what forgetting touches, and what going back needs.

A *line* is a memory with all that grew from it: it begins with nothing, and belongs to one backbone.
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from locas_storage.errors import TurnNotFound
from locas_storage.records.revisions import Revision
from locas_storage.records.turns import UserKey, UserState

ERASED = "erased"
"""State of a revision that saw a forgotten turn: its number stays, so that the chain can be checked, and nothing
else."""


@dataclass(frozen=True, slots=True)
class ForgetPlan:
    """What forgetting some turns does to a user's revisions.

    Attributes:
        purged: revisions that saw one of the turns, directly or through what they grew from.
        base: the newest revision behind the current one that saw none of them and has its bytes, which becomes current
            again, 0 for "no memory"; None if the current one may stay.
        stops: where the purged consolidations behind the current revision ended, ascending; learning the remaining
            turns with the same stops gives what a user would have who never said the forgotten ones.
    """

    purged: tuple[int, ...]
    base: int | None
    stops: tuple[int, ...]


def plan(
    revisions: Sequence[Revision], head: int, forgotten: Iterable[int], open_stops: Sequence[int] = ()
) -> ForgetPlan:
    """Return what forgetting turns does.

    Args:
        revisions: all of the user's, ascending.
        head: the current one.
        forgotten: numbers of the turns.
        open_stops: stops of a rebuild that has not been done yet.
    """
    seqs = set(forgotten)
    saw = {0: False}
    for revision in revisions:
        grew_from = revision.parent if revision.restores is None else revision.restores
        learnt = revision.restores is None and any(revision.from_seq <= seq <= revision.to_seq for seq in seqs)
        saw[revision.number] = revision.state == ERASED or saw[grew_from] or learnt
    purged = tuple(revision.number for revision in revisions if saw[revision.number] and revision.state != ERASED)
    if not saw[head]:
        return ForgetPlan(purged, None, tuple(open_stops))
    line = learnt_line(revisions, head)
    usable = [revision for revision in line if not saw[revision.number] and revision.state == "live"]
    base = usable[-1].number if usable else 0
    stops = {revision.to_seq for revision in line if revision.number > base} | set(open_stops)
    return ForgetPlan(purged, base, tuple(sorted(stops)))


def check_forgettable(key: UserKey, seqs: Iterable[int], state: UserState) -> list[int]:
    """Return the numbers of turns in ascending order, each once.

    Raises:
        TurnNotFound: the user's journal has no such turn.
    """
    wanted = sorted(set(seqs))
    beyond = [seq for seq in wanted if not 0 < seq < state.next_seq]
    if beyond:
        raise TurnNotFound(
            f"the journal of user #{key.short_hash} has no turn {beyond[0]}, it ends at {state.turns}; turns() lists "
            "those there are"
        )
    return wanted


def not_correctable(key: UserKey, seq: int) -> TurnNotFound:
    """Return the error for correcting a turn of which only the number is left."""
    return TurnNotFound(
        f"turn {seq} of user #{key.short_hash} was forgotten, there is nothing to correct; append what was said as a "
        "new turn"
    )


def line_heads(kept: Iterable[tuple[int, int | None, str | None]]) -> set[str]:
    """Return the payload that each line of a user's revisions ended with, so that every line can be gone back to.

    Args:
        kept: number, the older revision that it restores, and digest of the payload of each revision, ascending. One
            that restores none and has no payload may be left out.
    """
    starts, lines = [0], [0]
    newest: dict[int, str] = {}
    for number, restores, digest in kept:
        if restores is not None:
            line = number if restores == 0 else lines[bisect_right(starts, restores) - 1]
            starts.append(number)
            lines.append(line)
        if digest is not None:
            newest[lines[-1]] = digest
    return set(newest.values())


def learnt_line(revisions: Sequence[Revision], head: int) -> list[Revision]:
    """Return the trained revisions that made the current memory, oldest first."""
    by_number = {revision.number: revision for revision in revisions}
    line = []
    number = head
    while number:
        revision = by_number[number]
        if revision.restores is None:
            line.append(revision)
            number = revision.parent
        else:
            number = revision.restores
    return line[::-1]

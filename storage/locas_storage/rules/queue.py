"""Owns the rules of the queue: which jobs are claimed together, and what a reason may be."""

import re
from collections.abc import Sequence
from typing import Protocol, TypeVar

from locas_storage.errors import InvalidRevision, LeaseLost
from locas_storage.records.jobs import Lease

MAX_ATTEMPTS = 5
"""Claims after which a job that never ended well is a dead letter."""
ALIKE_TOKENS = 256
"""Jobs are claimed together when the longer has at most twice the pending tokens of the shorter, and so many more."""
LEASE_EXPIRED = "lease expired"
"""Reason of a dead letter whose workers all fell silent."""

_REASON = re.compile(r"[A-Za-z][A-Za-z0-9_ ]{0,79}")


class Claimable(Protocol):
    """What choosing needs of a job that is due."""

    @property
    def stops(self) -> Sequence[int] | None: ...  # noqa: D102
    @property
    def pending_tokens(self) -> int: ...  # noqa: D102


ClaimableT = TypeVar("ClaimableT", bound=Claimable)


def claimable_together(due: Sequence[ClaimableT], limit: int) -> list[ClaimableT]:
    """Return the jobs to be claimed together: the first one and others of similar length. A rebuild stands alone.

    Args:
        due: the jobs that are due, in the order of their turn.
        limit: how many at most.
    """
    if not due or limit < 1:
        return []
    first = due[0]
    if first.stops:
        return [first]
    return [one for one in due if not one.stops and _alike(first.pending_tokens, one.pending_tokens)][:limit]


def check_reason(reason: str) -> None:
    """Refuse a reason that may hold more than a code.

    Raises:
        InvalidRevision: it is longer than 80 characters, or has others than letters, digits, underscores and spaces.
    """
    if not _REASON.fullmatch(reason):
        raise InvalidRevision(
            "reason of a failed job: expected a code of at most 80 letters, digits, underscores and spaces, such as an "
            "error's name"
        )


def check_owner(owner: str) -> None:
    """Refuse a name of a worker that no column holds.

    Raises:
        InvalidRevision: it is blank or longer than 64 characters.
    """
    if not owner.strip() or len(owner) > 64:
        raise InvalidRevision(f"owner of a lease: got {len(owner)} characters, expected 1 to 64")


def lost(lease: Lease) -> LeaseLost:
    """Return the error for a lease that is not held any more."""
    return LeaseLost(
        f"job {lease.job_id[:8]} of user #{lease.key.short_hash} is not held under fence {lease.fence} any more; "
        "stop and drop what was trained: the job was claimed by another, done, or withdrawn"
    )


def _alike(one: int, other: int) -> bool:
    return max(one, other) <= 2 * min(one, other) + ALIKE_TOKENS

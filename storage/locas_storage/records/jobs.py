"""Owns the records of the queue: what a worker holds, and what an operator sees."""

from dataclasses import dataclass
from typing import Literal

from locas_storage.records.turns import UserKey

JobState = Literal["ready", "leased", "dead"]


@dataclass(frozen=True, slots=True)
class Lease:
    """The right of one worker to learn one user's turns, until the lease runs out and another claims the job.

    Attributes:
        key: whose turns.
        job_id: 32 hexadecimal digits.
        owner: the worker that claimed it.
        fence: the user's fence at the claim: a later claim has a higher one, and this one is refused from then
            on.
        to_seq: the last turn to be learnt.
        stops: where the consolidations ended that a rebuild repeats, ascending; empty for an ordinary job.
        pending_tokens: tokens of the turns to be learnt.
        attempt: 1 for the first claim.
    """

    key: UserKey
    job_id: str
    owner: str
    fence: int
    to_seq: int
    stops: tuple[int, ...]
    pending_tokens: int
    attempt: int


@dataclass(frozen=True, slots=True)
class Job:
    """What an operator sees of a queued consolidation.

    Attributes:
        key: whose turns.
        job_id: 32 hexadecimal digits.
        state: 'ready', 'leased' or 'dead'; a job that is done is gone.
        to_seq: the last turn to be learnt.
        is_rebuild: whether it learns again what a forgetting took away.
        attempts: how often it was claimed.
        reason: why it failed last, a code without content; None if it never did.
    """

    key: UserKey
    job_id: str
    state: JobState
    to_seq: int
    is_rebuild: bool
    attempts: int
    reason: str | None

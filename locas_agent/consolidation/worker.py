"""The drain loop: claims queued consolidations, has them learnt, and keeps their leases alive meanwhile.

Several workers may drain one store: a lease makes sure that only one of them writes what it learnt. Each takes the jobs
of users of its own backbone, and of those who have no memory yet.
"""

from __future__ import annotations

import logging
import os
import socket
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Event, Lock, Thread
from types import TracebackType
from typing import Self

from locas_agent.consolidation.runner import ConsolidationRequest, ConsolidationRunner
from locas_agent.errors import LeaseLost, RevisionConflict, StorageError, StoreUnavailable, UnknownUser, UserErased
from locas_agent.results import WorkSummary
from locas_agent.types import Progress
from locas_storage import Lease, MemoryStore, UserKey, new_item_id

logger = logging.getLogger(__name__)

HEARTBEATS_PER_LEASE = 3
_GONE = (LeaseLost, UserErased, UnknownUser)
"""What the store says when the turns are somebody else's business by now, or nobody's."""


class _Stopped(Exception):
    """Raised out of a round in progress; no error, somebody asked for it."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When a job that failed is tried again; how often is the queue's to say."""

    first_seconds: float = 30.0
    """After the first failure; twice as long after each further one."""
    most_seconds: float = 3600.0
    """Never longer."""

    def seconds(self, attempt: int) -> float:
        """Return how long a job waits after an attempt, counted from 1."""
        return min(self.most_seconds, self.first_seconds * float(2 ** (attempt - 1)))


class Worker:
    """One drain of the queue.

    Args:
        store: whose queue is drained.
        runner: learns what is claimed.
        jobs_at_once: jobs of similar length learnt side by side.
        lease_seconds: time after which another worker may take over from one that fell silent.
        poll_seconds: time between two looks at an empty queue.
        progress: told of the stages of each round.
        retry: when what failed is tried again.
    """

    def __init__(
        self,
        store: MemoryStore,
        runner: ConsolidationRunner,
        *,
        jobs_at_once: int = 8,
        lease_seconds: float = 300.0,
        poll_seconds: float = 2.0,
        progress: Progress | None = None,
        retry: RetryPolicy | None = None,
    ) -> None:
        self._retry = retry or RetryPolicy()
        self._store = store
        self._runner = runner
        self._jobs_at_once = jobs_at_once
        self._lease_seconds = lease_seconds
        self._poll_seconds = poll_seconds
        self._progress = progress
        self._owner = f"{socket.gethostname()[:32]}-{os.getpid()}-{new_item_id()[-6:]}"
        self._counts: Counter[str] = Counter()

    def drain(self, *, key: UserKey | None = None, stop: Event | None = None, once: bool = True) -> WorkSummary:
        """Learn what is due.

        Args:
            key: only this user's job.
            stop: when it is set, jobs in progress are given back and the call returns.
            once: return as soon as nothing is due; else wait for more until `stop` is set.

        Raises:
            StoreUnavailable: the store cannot be reached; a worker that waits for more tries again.
        """
        ended = stop or Event()
        while not ended.is_set():
            try:
                found = self._claim_and_learn(key, ended)
            except StoreUnavailable:
                if once:
                    raise
                # What is still leased runs out, and is claimed again.
                logger.warning("store unavailable, trying again", extra={"action": "wait"})
                found = False
            if once and not found:
                break
            if not found:
                ended.wait(self._poll_seconds)
        return WorkSummary(**self._counts)

    def _claim_and_learn(self, key: UserKey | None, ended: Event) -> bool:
        """Learn some of what is due; return whether there was anything."""
        if key is None:
            self._counts["expired_turns"] += sum(len(receipt.turns) for receipt in self._store.expire().values())
        leases = self._store.queue.claim(
            self._owner,
            limit=self._jobs_at_once,
            lease_seconds=self._lease_seconds,
            key=key,
            backbone=self._runner.fingerprint,
        )
        if leases:
            self.learn(leases, ended)
        return bool(leases)

    def learn(self, leases: Sequence[Lease], ended: Event) -> None:
        """Learn the turns of some leases side by side.

        One that breaks the round is found by learning them one by one.

        Args:
            leases: claimed by this worker.
            ended: when it is set, the jobs are given back.
        """
        with _Heartbeat(self._store, leases, self._lease_seconds) as heartbeat:

            def watched(stage: str, done: int, total: int) -> None:
                if ended.is_set() or heartbeat.lost_all:
                    raise _Stopped
                if self._progress is not None:
                    self._progress(stage, done, total)

            try:
                self._round(leases, watched)
            except _Stopped:
                self._give_back(leases)
            except Exception as error:  # noqa: BLE001  one user must not take the worker down; see below
                # Whatever one user's turns break, the worker and the other users go on. Only the error's name is kept:
                # a foreign message
                # may quote what somebody said.
                logger.warning(
                    "consolidation failed",
                    extra={"action": "fail", "reason": type(error).__name__, "jobs": len(leases)},
                )
                if len(leases) == 1:
                    self._fail(leases[0], error)
                else:
                    for lease in leases:
                        self.learn([lease], ended)

    def _round(self, leases: Sequence[Lease], progress: Progress) -> None:
        """Learn up to each stop of the leases; only a rebuild, which is claimed alone, has more than one."""
        for stop in [*leases[0].stops, None]:
            requests = [
                ConsolidationRequest(lease.key, upto=lease.to_seq if stop is None else stop, lease=lease)
                for lease in leases
            ]
            if stop is not None and stop >= leases[0].to_seq:
                continue
            for lease, result in zip(leases, self._runner.run(requests, progress=progress), strict=True):
                if isinstance(result, StorageError):
                    self._fail(lease, result)
                    if len(leases) == 1:
                        return
                else:
                    self._counts[result.status] += 1

    def _fail(self, lease: Lease, error: Exception) -> None:
        """Give a job back to be tried again later, unless it is not ours any more."""
        try:
            if isinstance(error, _GONE):
                raise error
            retry = 0.0 if isinstance(error, RevisionConflict) else self._retry.seconds(lease.attempt)
            self._store.queue.fail(lease, type(error).__name__, retry_seconds=retry)
            self._counts["failed"] += 1
        except _GONE:
            self._counts["lost"] += 1

    def _give_back(self, leases: Sequence[Lease]) -> None:
        for lease in leases:
            try:
                self._store.queue.release(lease)
            except _GONE:
                self._counts["lost"] += 1


class _Heartbeat:
    """Prolongs leases from a thread of its own while a round runs; a round may take longer than a lease."""

    def __init__(self, store: MemoryStore, leases: Sequence[Lease], lease_seconds: float) -> None:
        self._store = store
        self._held = list(leases)
        self._lease_seconds = lease_seconds
        self._lock = Lock()
        self._over = Event()
        self._thread = Thread(target=self._run, name="locas-heartbeat", daemon=True)

    @property
    def lost_all(self) -> bool:
        """Whether nothing of what is being learnt can be written any more."""
        with self._lock:
            return not self._held

    def _run(self) -> None:
        while not self._over.wait(self._lease_seconds / HEARTBEATS_PER_LEASE):
            for lease in list(self._held):
                try:
                    self._store.queue.heartbeat(lease, lease_seconds=self._lease_seconds)
                except LeaseLost:
                    with self._lock:
                        self._held.remove(lease)
                except StorageError:
                    # The lease holds until it runs out, and what is learnt is checked when it is written.
                    logger.warning("heartbeat failed, trying again", extra={"action": "heartbeat"})

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

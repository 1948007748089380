"""`InMemoryQueue`: the queue of consolidations of an `InMemoryStore`. Its clock is this process's."""

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from locas_storage.in_memory.user_data import OpenJob, UserData, utc_now
from locas_storage.in_memory.users import Users
from locas_storage.records.bounds import plain_json
from locas_storage.records.jobs import Job, JobState, Lease
from locas_storage.records.turns import UserKey
from locas_storage.rules import commit, queue
from locas_storage.rules.queue import LEASE_EXPIRED, MAX_ATTEMPTS


@dataclass(frozen=True, slots=True)
class _Due:
    """A job that is due, as choosing needs it."""

    data: UserData
    job: OpenJob
    stops: tuple[int, ...]
    pending_tokens: int


class InMemoryQueue:
    """A `JobQueue` in this process's memory.

    Args:
        users: what belongs to each user.
    """

    def __init__(self, users: Users) -> None:
        self._users = users

    def enqueue(self, key: UserKey, to_seq: int) -> None:
        """See `JobQueue.enqueue`."""
        with self._users.changing(key):
            self._users.living(key).enqueue(to_seq)

    def claim(
        self,
        owner: str,
        *,
        limit: int = 1,
        lease_seconds: float = 300.0,
        key: UserKey | None = None,
        backbone: str | None = None,
    ) -> list[Lease]:
        """See `JobQueue.claim`."""
        queue.check_owner(owner)
        with self._users.lock:
            while True:
                now = utc_now()
                waiting = [
                    (data, data.job)
                    for whose, data in self._users.of.items()
                    if data.job and data.job.is_due(now) and key in (None, whose) and data.is_learnt_on(backbone)
                ]
                due = [_Due(data, job, job.stops, data.pending_tokens(job.to_seq)) for data, job in waiting]
                found = queue.claimable_together(
                    sorted(due, key=lambda one: (one.job.run_after, one.job.job_id)), limit
                )
                taken = [lease for one in found if (lease := self._take(one, owner, now, lease_seconds)) is not None]
                if taken or not found:
                    return taken

    def heartbeat(self, lease: Lease, *, lease_seconds: float = 300.0) -> None:
        """See `JobQueue.heartbeat`."""
        with self._users.changing(lease.key):
            data = self._users.of.get(lease.key)
            if data is None or data.job is None or not data.holds(lease):  # of an erased user it is lost as well
                raise queue.lost(lease)
            data.job.lease_until = utc_now() + dt.timedelta(seconds=lease_seconds)

    def complete(self, lease: Lease, to_seq: int, *, refusal: Mapping[str, Any] | None = None) -> None:
        """See `JobQueue.complete`."""
        facts = None if refusal is None else plain_json("facts", refusal)
        with self._users.changing(lease.key):
            self._held(lease)
            if facts is not None:
                self._users.living(lease.key).record("refuse", facts)
            self._users.living(lease.key).complete(lease, to_seq)

    def fail(self, lease: Lease, reason: str, *, retry_seconds: float = 60.0) -> None:
        """See `JobQueue.fail`."""
        queue.check_reason(reason)
        with self._users.changing(lease.key):
            job = self._held(lease)
            if job.attempts >= MAX_ATTEMPTS:
                self._users.living(lease.key).mark_dead(reason)
            else:
                job.reason = reason
                job.put_back(run_after=utc_now() + dt.timedelta(seconds=retry_seconds))

    def release(self, lease: Lease) -> None:
        """See `JobQueue.release`."""
        with self._users.changing(lease.key):
            job = self._held(lease)
            job.attempts -= 1
            job.put_back()

    def jobs(self, tenant: str | None = None) -> list[Job]:
        """See `JobQueue.jobs`."""
        commit.check_tenant(tenant)
        found: list[tuple[dt.datetime, Job]] = []
        with self._users.lock:
            for key, data in self._users.of.items():
                job = data.job
                if job is not None and tenant in (None, key.tenant):
                    state: JobState = "leased" if job.lease else "ready"
                    found.append(
                        (
                            job.run_after,
                            Job(key, job.job_id, state, job.to_seq, bool(job.stops), job.attempts, job.reason),
                        )
                    )
                if data.dead is not None and tenant in (None, key.tenant):
                    found.append((dt.datetime.min.replace(tzinfo=dt.UTC), data.dead))
        return [job for _, job in sorted(found, key=lambda pair: (pair[0], pair[1].job_id))]

    def _take(self, one: _Due, owner: str, now: dt.datetime, lease_seconds: float) -> Lease | None:
        data, job = one.data, one.job
        if job.attempts >= MAX_ATTEMPTS:
            data.mark_dead(LEASE_EXPIRED)
            self._users.changed(data.state.key)
            return None
        data.raise_fence()
        job.attempts += 1
        job.lease = Lease(
            data.state.key,
            job.job_id,
            owner,
            data.state.fence,
            job.to_seq,
            job.stops,
            one.pending_tokens,
            job.attempts,
        )
        job.lease_until = now + dt.timedelta(seconds=lease_seconds)
        self._users.changed(data.state.key)
        return job.lease

    def _held(self, lease: Lease) -> OpenJob:
        data = self._users.living(lease.key)
        if data.job is None or not data.holds(lease):
            raise queue.lost(lease)
        return data.job

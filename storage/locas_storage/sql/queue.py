"""Owns `SqlJobQueue`: the queue of consolidations in an SQL database, one transaction for each call."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

from sqlalchemy import Connection

from locas_storage.records.bounds import plain_json
from locas_storage.records.jobs import Job, Lease
from locas_storage.records.turns import UserKey
from locas_storage.rules import commit, queue
from locas_storage.sql.statements import audit, jobs, users

Transaction = Callable[[], AbstractContextManager[Connection]]


class SqlJobQueue:
    """A `JobQueue` in an SQL database.

    Args:
        read: begins a transaction that reads.
        write: begins one that writes.
        fault_point: called with the name of each step of a change.
    """

    def __init__(self, read: Transaction, write: Transaction, fault_point: Callable[[str], None]) -> None:
        self._read = read
        self._write = write
        self._fault_point = fault_point

    def enqueue(self, key: UserKey, to_seq: int) -> None:
        """See `JobQueue.enqueue`."""
        with self._write() as connection:
            jobs.enqueue(connection, users.locked(connection, key), to_seq)

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
        # First the free users; if none is, wait: without waiting a worker would take a busy queue for an empty one.
        is_patient = False
        while True:
            with self._write() as connection:
                found = jobs.choose(connection, limit, key, backbone)
                taken = []
                for one in sorted(found, key=lambda row: (row.tenant_id, row.subject_id)):
                    whose = UserKey(one.tenant_id, one.subject_id)
                    state = users.locked_if_there(connection, whose, skip_locked=not is_patient)
                    lease = jobs.take(connection, one, state, owner, lease_seconds) if state is not None else None
                    taken += [lease] if lease is not None else []
                    self._fault_point("claim.job")
                self._fault_point("claim.before_commit")
            self._fault_point("claim.after_commit")
            if taken or not found:
                return taken
            is_patient = True

    def heartbeat(self, lease: Lease, *, lease_seconds: float = 300.0) -> None:
        """See `JobQueue.heartbeat`."""
        with self._write() as connection:
            jobs.heartbeat(connection, lease, lease_seconds)

    def complete(self, lease: Lease, to_seq: int, *, refusal: Mapping[str, Any] | None = None) -> None:
        """See `JobQueue.complete`."""
        facts = None if refusal is None else plain_json("facts", refusal)
        with self._write() as connection:
            users.locked(connection, lease.key)
            found = jobs.held(connection, lease.key, lease)
            if facts is not None:
                audit.record(connection, lease.key, "refuse", facts)
            jobs.complete(connection, lease, found, to_seq)

    def fail(self, lease: Lease, reason: str, *, retry_seconds: float = 60.0) -> None:
        """See `JobQueue.fail`."""
        queue.check_reason(reason)
        with self._write() as connection:
            users.locked(connection, lease.key)
            jobs.fail(connection, lease, jobs.held(connection, lease.key, lease), reason, retry_seconds)

    def release(self, lease: Lease) -> None:
        """See `JobQueue.release`."""
        with self._write() as connection:
            users.locked(connection, lease.key)
            jobs.release(connection, jobs.held(connection, lease.key, lease))

    def jobs(self, tenant: str | None = None) -> list[Job]:
        """See `JobQueue.jobs`."""
        commit.check_tenant(tenant)
        with self._read() as connection:
            return jobs.all_of(connection, tenant)

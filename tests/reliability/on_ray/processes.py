"""Owns what is asked of the processes that Ray began for a test: which there are, and whose a job is."""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path

from sqlalchemy import select

from locas_storage import SqlMemoryStore, UserKey
from locas_storage.sql.tables.schema import job


def replicas() -> list[int]:
    """Return the processes of the replicas that have begun, among those that this process began."""
    named = ((pid, _command(pid)) for pid in _descendants(os.getpid()))
    begun = (b"ray::ServeReplica", b"ray::SERVE_REPLICA")
    return [pid for pid, name in named if name.startswith(begun) and b"answers" in name and b"__init__" not in name]


def holders(store: SqlMemoryStore) -> dict[int, list[UserKey]]:
    """Return the process of each worker that holds leases now, and of whose jobs."""
    chosen = select(job.c.lease_owner, job.c.tenant_id, job.c.subject_id).where(job.c.state == "leased")
    found = defaultdict(list)
    with store.database.read() as connection:
        for owner, tenant, user in connection.execute(chosen):
            found[int(owner.rsplit("-", 2)[1])].append(UserKey(tenant, user))
    return dict(found)


def _descendants(pid: int) -> list[int]:
    """Return the processes below one."""
    children: dict[int, list[int]] = defaultdict(list)
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(path.read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended meanwhile
        children[parent].append(int(path.parent.name))
    found, left = [], [pid]
    while left:
        left += (below := children[left.pop()])
        found += below
    return found


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""

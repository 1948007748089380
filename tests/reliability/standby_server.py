"""Owns a PostgreSQL server with a streaming standby, of which the one is killed and the other promoted.

Both listen on loopback, each at a port of its own, and are reached by one URL that names both.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count

from tests.postgres_server import SUPERUSER, PostgresServer
from tests.reliability.places import wait_for

LOOPBACK = "127.0.0.1"
STREAMING = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming' AND sync_state = "
_WHO_MAY_COME = f"""\
local all all trust
local replication all trust
host all all {LOOPBACK}/32 scram-sha-256
"""
"""The folder of the socket is its owner's alone; whoever comes over the network needs a password."""


class ReplicatedServer:
    """A primary and its standby; after `promote` the standby is the primary and the other one is gone.

    Attributes:
        primary: takes the writes.
        standby: follows it, or is dead.
    """

    def __init__(self) -> None:
        self.primary, self.standby = _server(), _server()
        self._names = count(1)
        self._password = secrets.token_hex(16)

    def start(self) -> None:
        """Start both; a commit waits for the standby from then on."""
        (self.primary.data / "pg_hba.conf").write_text(_WHO_MAY_COME, encoding="utf-8")
        self.primary.start()
        self.primary.psql("postgres", f"ALTER ROLE {SUPERUSER} PASSWORD '{self._password}'")
        self.follow()

    def follow(self) -> None:
        """Make the standby anew, a copy of the primary, and return once every commit waits for it."""
        shutil.rmtree(self.standby.data)
        source = ("-h", str(self.primary.folder), "-p", str(self.primary.port), "-U", SUPERUSER)
        self.standby.run("pg_basebackup", "-D", str(self.standby.data), *source, "-R", "-c", "fast", "--no-sync")
        self.standby.start()
        self._wait_for_standby("async")
        self._commits_wait_for("*")
        self._wait_for_standby("sync")

    def promote(self) -> None:
        """Let the standby of a dead primary take the writes, alone for now."""
        self.primary, self.standby = self.standby, self.primary
        self.primary.psql("postgres", "SELECT pg_promote()")
        self._commits_wait_for("")

    def new_database(self) -> str:
        """Make an empty database; return a URL that names both servers and takes the one that may be written to."""
        name = f"test_{next(self._names)}"
        self.primary.psql("postgres", f"CREATE DATABASE {name}")
        hosts = "&".join(f"host={LOOPBACK}:{port}" for port in sorted((self.primary.port, self.standby.port)))
        who = f"{SUPERUSER}:{self._password}"
        return f"postgresql+psycopg://{who}@/{name}?{hosts}&target_session_attrs=read-write"

    def remove(self) -> None:
        self.primary.remove()
        self.standby.remove()

    def _commits_wait_for(self, names: str) -> None:
        self.primary.psql("postgres", f"ALTER SYSTEM SET synchronous_standby_names = '{names}'")
        self.primary.psql("postgres", "SELECT pg_reload_conf()")
        wait_for(lambda: self.primary.psql("postgres", "SHOW synchronous_standby_names") == names)
        # Commits look at what the checkpointer has read, and that reads before it makes a checkpoint.
        self.primary.psql("postgres", "CHECKPOINT")

    def _wait_for_standby(self, state: str) -> None:
        wait_for(lambda: self.primary.psql("postgres", f"{STREAMING}'{state}'") == "1")


@contextmanager
def a_replicated_server() -> Iterator[ReplicatedServer]:
    """Start both servers, and remove them at the end."""
    made = ReplicatedServer()
    try:
        made.start()
        yield made
    finally:
        made.remove()


def kill(server: PostgresServer) -> None:
    """Kill every process of a server (SIGKILL): it neither writes nor answers any more."""
    lines = (server.data / "postmaster.pid").read_text(encoding="utf-8").splitlines()
    first, segment = int(lines[0]), lines[6].split()[1]
    os.kill(first, signal.SIGSTOP)  # so that it starts none while the others are looked for
    listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(first)], capture_output=True, text=True, check=True)
    for pid in (*map(int, listed.stdout.split()), first):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue  # it ended by itself
    wait_for(lambda: not server.is_running())
    subprocess.run(["ipcrm", "-m", segment], capture_output=True)  # a server that is started again would do that


def _server() -> PostgresServer:
    # Only processes die, so nothing has to be forced to the disk. Shared memory is files below the data, gone with it.
    settings = (f"listen_addresses={LOOPBACK}", "fsync=off", "dynamic_shared_memory_type=mmap")
    return PostgresServer(*settings, port=_free_port())


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])

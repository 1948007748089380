"""Owns a PostgreSQL server of its own for tests: Debian's binaries, a folder, a Unix socket in it, no network.

An empty database is 300 files: a disk takes longer to make and delete them than a test takes to run, so the server of
most tests lies in memory.

Debian puts the binaries below /usr/lib/postgresql, outside the PATH.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

MUST_RUN = "REQUIRE_POSTGRES"
"""Set by CI: without a server the tests fail instead of being skipped."""
SUPERUSER = "locas"
MEMORY = Path("/dev/shm")
"""Where Linux mounts a file system in memory; that of a container may be too small for a server."""
ROOM_BYTES = 2**30
_CUT_SECONDS = 30.0
UNSAFE = ("fsync=off", "full_page_writes=off", "max_wal_size=128MB")
"""Settings of a server whose machine does not go down while it is needed."""


def binaries() -> Path | None:
    """Return the folder of the server's programs, None if there is none."""
    found = [Path(path).resolve().parent for path in (shutil.which("initdb"),) if path]
    found += sorted(
        Path("/usr/lib/postgresql").glob("*/bin"),
        key=lambda path: int(path.parent.name) if path.parent.name.isdigit() else 0,
    )
    return next(
        (folder for folder in reversed(found) if (folder / "initdb").exists() and (folder / "pg_ctl").exists()), None
    )


class PostgresServer:
    """A server that can be started, stopped in any way, and asked for a new database.

    The server refuses to run as root, so root runs it as the user `postgres` of Debian's package.

    Args:
        settings: of `postgresql.conf`, each `name=value`.
        port: names the socket in the folder; nothing listens on the network unless a setting says so.
        beside: the folder to make its own folder in; None is that of temporary files.
    """

    def __init__(self, *settings: str, port: int = 5432, beside: Path | None = None) -> None:
        found = binaries()
        assert found is not None
        self._bin = found
        self._settings = settings
        self.port = port
        self._names = count(1)
        # A socket's path has at most about 100 characters: pytest's folders are too deep.
        self.folder = Path(tempfile.mkdtemp(prefix="locas-pg-", dir=beside))
        self.data = self.folder / "data"
        self._as_user: dict[str, Any] = {}
        if os.geteuid() == 0:
            owner = pwd.getpwnam("postgres")
            os.chown(self.folder, owner.pw_uid, owner.pw_gid)
            self._as_user = {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []}
        # Only the owner of the folder can reach the socket in it, so nobody is asked for a password.
        self.run(
            "initdb",
            "-D",
            str(self.data),
            "-U",
            SUPERUSER,
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--locale=C.UTF-8",
            "--no-sync",
        )

    @classmethod
    def in_memory(cls) -> PostgresServer:
        """Make a server for tests that stop it at most; what is to outlive a machine needs one on a disk."""
        has_room = MEMORY.is_dir() and os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > ROOM_BYTES
        return cls(*UNSAFE, beside=MEMORY if has_room else None)

    def start(self) -> None:
        options = [
            "listen_addresses=''",
            f"unix_socket_directories={self.folder}",
            f"port={self.port}",
            "max_connections=200",
            *self._settings,
        ]
        arguments = " ".join(f"-c {option}" for option in options)
        self.run(
            "pg_ctl",
            "-D",
            str(self.data),
            "-w",
            "-t",
            "60",
            "-l",
            str(self.folder / "log"),
            "-o",
            arguments,
            "start",
        )

    def stop(self, mode: str = "fast") -> None:
        """Stop it: "fast" in order, "immediate" as a crash does."""
        self.run("pg_ctl", "-D", str(self.data), "-w", "-t", "60", "-m", mode, "stop")

    def is_running(self) -> bool:
        return (
            subprocess.run(
                [self._bin / "pg_ctl", "-D", str(self.data), "status"], capture_output=True, **self._as_user
            ).returncode
            == 0
        )

    def url(self, database: str) -> str:
        return f"postgresql+psycopg://{SUPERUSER}@/{database}?host={self.folder}"

    @staticmethod
    def name_of(url: str) -> str:
        """Return the name of a database."""
        return url.partition("@/")[2].partition("?")[0]

    def new_database(self, *options: str) -> str:
        """Make a database, empty unless the options say otherwise, and return its URL."""
        name = f"test_{next(self._names)}"
        self.psql("postgres", " ".join([f"CREATE DATABASE {name}", *options]))
        return self.url(name)

    def drop(self, url: str) -> None:
        """Delete a database, whoever is still connected to it."""
        self.psql("postgres", f"DROP DATABASE {self.name_of(url)} WITH (FORCE)")

    def cut(self, url: str) -> None:
        """End every connection to a database, and return when the last of them is gone.

        `pg_terminate_backend` only asks. A connection lives on until its process has seen the signal, and on a busy
        machine a client that calls at once still reaches it. A process says its last word before it leaves the list,
        so that who calls after this finds the word there.
        """
        of_it = f"FROM pg_stat_activity WHERE datname = '{self.name_of(url)}'"
        self.psql("postgres", f"SELECT pg_terminate_backend(pid) {of_it}")
        end = time.monotonic() + _CUT_SECONDS
        while self.psql("postgres", f"SELECT count(*) {of_it}") != "0":
            assert time.monotonic() < end, f"a connection has outlived its end by {_CUT_SECONDS} s"
            time.sleep(0.02)

    def psql(self, database: str, statement: str) -> str:
        """Run a statement beside the store and return what it prints."""
        return self.run(
            "psql",
            "-X",
            "-q",
            "-A",
            "-t",
            "-v",
            "ON_ERROR_STOP=1",
            "-h",
            str(self.folder),
            "-p",
            str(self.port),
            "-U",
            SUPERUSER,
            "-d",
            database,
            "-c",
            statement,
        )

    def remove(self) -> None:
        """Stop it and delete the folder."""
        if self.is_running():
            self.stop("immediate")
        for _ in range(50):  # a backend may still be writing its last file
            shutil.rmtree(self.folder, ignore_errors=True)
            if not self.folder.exists():
                return
            time.sleep(0.1)

    def run(self, program: str, *arguments: str) -> str:
        """Run one of PostgreSQL's programs and return what it said."""
        environment = {**os.environ, "LC_ALL": "C.UTF-8"}
        # No pipe for pg_ctl: the server would inherit it and hold it open.
        with tempfile.TemporaryFile("w+") as output:
            done = subprocess.run(
                [self._bin / program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment,
                cwd="/",
                **self._as_user,
            )
            output.seek(0)
            text = output.read()
        assert done.returncode == 0, f"{program}: {text}"
        return text.strip()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """One server for all tests of a worker; without its programs the test is skipped, in CI it fails."""
    if binaries() is None:
        if os.environ.get(MUST_RUN):
            pytest.fail(f"{MUST_RUN} is set and there is no PostgreSQL server: apt-get install postgresql")
        pytest.skip("no PostgreSQL server on this machine: apt-get install postgresql, or run .ci/run")
    server = PostgresServer.in_memory()
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """URL of a new, empty database, which goes with the test: hundreds would fill the memory."""
    url = postgres_server.new_database()
    yield url
    postgres_server.drop(url)

"""A disk that fills up: what a store acknowledged is kept, what it refused is not, and it goes on once there is room.

Real file systems of a few megabytes where the machine lets a test mount one, else those cases are skipped and say so;
SQLite's own limit of pages everywhere.
"""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from sqlalchemy import event

from locas_storage import SqlMemoryStore, StorageFull, StoreUnavailable, TurnDraft, UserKey
from locas_storage.conformance.samples import draft, item
from tests.postgres_server import PostgresServer
from tests.reliability.conftest import Record, Sizes

MIB = 1 << 20
USERS = [UserKey("default", name) for name in ("ada", "ben", "cleo")]
TURN_BYTES = 4_000
MOST_ROUNDS = 20


@dataclass
class Ledger:
    """What a store said of each call.

    Attributes:
        kept: keys of the turns it acknowledged, by user.
        refused: keys of those it refused for want of room.
        unknown: keys of those whose connection broke: either may be true.
        heads: the last revision it acknowledged, by user.
        refusals: how many calls of any kind it refused for want of room.
    """

    kept: dict[UserKey, set[str]] = field(default_factory=lambda: {key: set() for key in USERS})
    refused: list[tuple[UserKey, str]] = field(default_factory=list)
    unknown: set[str] = field(default_factory=set)
    heads: dict[UserKey, int] = field(default_factory=dict)
    refusals: int = 0

    def attempt(self, call: Callable[[], object]) -> object:
        """Return what a call gives, None where it was refused for want of room."""
        try:
            return call()
        except StorageFull:
            self.refusals += 1
            return None


def text() -> str:
    return os.urandom(TURN_BYTES // 2).hex()  # nothing a database could compress


def fill(store: SqlMemoryStore, ledger: Ledger, calls: int, *, seed: int) -> None:
    """Write turns and memories until the calls are used up, going on whatever is refused."""
    rng = random.Random(seed)
    for number in range(calls):
        key, idem_key = rng.choice(USERS), f"{seed}-{number}"
        said = [TurnDraft("user", text(), idempotency_key=idem_key, token_count=1)]
        try:
            if ledger.attempt(lambda key=key, said=said: store.append(key, said, enqueue=1)) is None:
                ledger.refused.append((key, idem_key))
            else:
                ledger.kept[key].add(idem_key)
            if rng.random() < 0.1:
                saved = ledger.attempt(lambda key=key: learn(store, key))
                ledger.heads[key] = saved if isinstance(saved, int) else ledger.heads.get(key, 0)
        except StoreUnavailable:
            ledger.unknown.add(idem_key)


def fill_up(store: SqlMemoryStore, ledger: Ledger, calls: int) -> None:
    """Use up that many calls, again and again until there was no room for one.

    How much room a call takes is the database's business.
    """
    for seed in range(1, MOST_ROUNDS):
        fill(store, ledger, calls, seed=seed)
        if ledger.refusals or ledger.unknown:
            return
    raise AssertionError("the disk does not fill up")


def learn(store: SqlMemoryStore, key: UserKey) -> int:
    """Commit a memory of random bytes over what is not learnt; return the current revision."""
    state = store.state(key)
    if state is None or state.turns == state.consolidated_seq:
        return state.head if state is not None else 0
    span = (state.head, state.consolidated_seq + 1, state.turns)
    return store.commit(key, draft(*span, os.urandom(1 << 15), new_items=(item(1, 1, text(), text()),))).number


def check(store: SqlMemoryStore, ledger: Ledger) -> dict[str, int]:
    """Acknowledged is stored, refused is not, everything fits together, and a retry succeeds; return the figures."""
    stored = {key: {turn.idempotency_key for turn in store.turns(key)} for key in USERS}
    lost = sum(len(ledger.kept[key] - stored[key]) for key in USERS)
    too_many = sum(len(stored[key] - ledger.kept[key] - ledger.unknown) for key in USERS)
    assert (lost, too_many) == (0, 0)
    for key in USERS:
        state = store.state(key)
        assert state is not None
        if not ledger.unknown:
            assert state.head == ledger.heads.get(key, 0)
        if state.head:
            assert len(store.payload(key, state.head)) == 1 << 15
    assert store.verify().faults == ()
    for key, idem_key in ledger.refused[:20]:
        (made,) = store.append(key, [TurnDraft("user", "again", idempotency_key=idem_key)])
        assert made.content == "again"
        assert store.append(key, [TurnDraft("user", "and again", idempotency_key=idem_key)]) == [made]
        learn(store, key)
    assert store.verify().faults == ()
    kept = sum(map(len, ledger.kept.values()))
    return {
        "acknowledged": kept,
        "refused": ledger.refusals,
        "connections_lost": len(ledger.unknown),
        "lost": lost,
        "kept_though_refused": too_many,
    }


@pytest.fixture
def small_disk() -> Iterator[Callable[[int], Path]]:
    """Mount a file system in memory of so many MiB."""
    mounted: list[Path] = []

    def mount(mebibytes: int) -> Path:
        folder = Path(tempfile.mkdtemp(prefix="locas-disk-"))
        folder.chmod(0o755)
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m,mode=1777", "tmpfs", str(folder)],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            folder.rmdir()
            pytest.skip(f"may not mount a small file system here: {done.stderr.strip()}")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
        folder.rmdir()


def ballast(folder: Path, *, leave: int) -> Path:
    """Take all room of a file system but so many bytes; deleting the file gives it back."""
    path = folder / "ballast"
    with path.open("wb") as file:
        for _ in range(0, shutil.disk_usage(folder).free - leave, 1 << 16):
            file.write(bytes(1 << 16))
    return path


def test_sqlite_without_a_page_left(tmp_path: Path, sizes: Sizes, record: Record) -> None:
    with closing(SqlMemoryStore(f"sqlite:///{tmp_path / 'locas.db'}")) as store:
        ledger, most = Ledger(), 300
        fill(store, ledger, 5, seed=0)

        @event.listens_for(store.database.engine, "checkout")
        def limit(connection: sqlite3.Connection, *_: object) -> None:
            connection.execute(f"PRAGMA max_page_count = {most}")

        fill_up(store, ledger, sizes.full_disk_calls)
        most = 1_000_000
        record("disk full, SQLite at its limit of pages", **check(store, ledger))


def test_sqlite_on_a_full_file_system(small_disk: Callable[[int], Path], sizes: Sizes, record: Record) -> None:
    folder = small_disk(8)
    with closing(SqlMemoryStore(f"sqlite:///{folder / 'locas.db'}")) as store:
        ledger = Ledger()
        fill(store, ledger, 5, seed=0)
        taken = ballast(folder, leave=MIB)
        fill_up(store, ledger, sizes.full_disk_calls)
        taken.unlink()
        record("disk full, SQLite on a file system of 8 MiB", **check(store, ledger))


def test_postgres_whose_tables_fill_their_disk(
    postgres_server: PostgresServer, small_disk: Callable[[int], Path], sizes: Sizes, record: Record
) -> None:
    folder = small_disk(16)
    place = folder / "tables"
    place.mkdir()
    shutil.chown(place, postgres_server.folder.owner())
    postgres_server.psql("postgres", f"CREATE TABLESPACE small LOCATION '{place}'")
    url = postgres_server.new_database("TABLESPACE small")
    try:
        with closing(SqlMemoryStore(url)) as store:
            ledger = Ledger()
            fill(store, ledger, 5, seed=0)
            taken = ballast(folder, leave=MIB)
            fill_up(store, ledger, sizes.full_disk_calls)
            assert ledger.unknown == set()
            taken.unlink()
            record("disk full, PostgreSQL with its tables on a file system of 16 MiB", **check(store, ledger))
    finally:
        postgres_server.psql("postgres", f"DROP DATABASE {url.partition('@/')[2].partition('?')[0]} WITH (FORCE)")
        postgres_server.psql("postgres", "DROP TABLESPACE small")


def test_postgres_whose_log_fills_its_disk(
    postgres_server: PostgresServer, small_disk: Callable[[int], Path], sizes: Sizes, record: Record
) -> None:
    """A server that cannot write its log ends itself; with room again it comes back with all that it acknowledged."""
    folder = small_disk(32)
    server = PostgresServer("restart_after_crash=off")
    try:
        server.run("pg_resetwal", "--wal-segsize=1", "-D", str(server.folder / "data"))  # files of 1 MiB instead of 16
        log = server.folder / "data" / "pg_wal"
        subprocess.run(["cp", "-a", str(log), str(folder / "log")], check=True)
        shutil.rmtree(log)
        log.symlink_to(folder / "log")
        server.start()
        with closing(SqlMemoryStore(server.new_database())) as store:
            ledger = Ledger()
            fill(store, ledger, 5, seed=0)
            taken = ballast(folder, leave=2 * MIB)
            fill_up(store, ledger, sizes.full_disk_calls)
            taken.unlink()
            assert ledger.unknown
            assert not server.is_running()
            server.start()
            record("disk full, PostgreSQL with its log on a file system of 32 MiB", **check(store, ledger))
    finally:
        server.remove()

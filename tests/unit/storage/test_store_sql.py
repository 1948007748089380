"""What only a database can do: be foreign, full, damaged, outdated, shared by processes, inherited by a fork."""

from __future__ import annotations

import logging
import os
import sqlite3
import subprocess
import sys
import threading
import traceback
from contextlib import closing
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, event
from sqlalchemy.exc import SQLAlchemyError
from storage_samples import ADA, broken_invariants, draft, item, say

from locas_storage import (
    CorruptPayload,
    ForeignDatabase,
    InvalidTurn,
    LocasError,
    MemoryStore,
    RevisionConflict,
    RevisionNotFound,
    SchemaOutdated,
    SqlMemoryStore,
    StorageFull,
    StoreUnavailable,
    TurnDraft,
    UnknownUser,
    UserKey,
    open_store,
    schema_version,
    shown_url,
    upgrade_schema,
)
from locas_storage.sql import migrations
from locas_storage.sql import store as sql
from locas_storage.sql.database import engine
from locas_storage.sql.tables.schema import FTS_TABLE, VERSION_TABLE, metadata

CANARY = "canary-9c1d"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "locas.db"


def tamper(path: Path, statement: str, *values: object) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        assert connection.execute(statement, values).rowcount != 0


def tables(path: Path) -> dict[str, str]:
    with closing(sqlite3.connect(path)) as connection:
        found = connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
    return {name: "".join(text.split()) for name, text in found}


def parts(statement: str) -> list[str]:
    """Columns and constraints of a CREATE statement; the order of constraints means nothing."""
    return sorted(statement.removesuffix(")").split(","))


def test_constructing_opens_nothing(path: Path, url: str) -> None:
    store = open_store(url)
    assert isinstance(store, MemoryStore)
    store.close()
    assert not path.exists()


def test_reopened_file_holds_what_was_saved(url: str) -> None:
    first = SqlMemoryStore(url)
    say(first, 2)
    first.commit(ADA, draft(0, 1, 2, b"bytes", new_items=(item(),)))
    first.record(ADA, "refuse", {"loss": 1.5, "steps": [1, 2]})
    second = SqlMemoryStore(url)
    for read in ("turns", "state", "revisions", "study_items", "audit"):
        assert getattr(second, read)(ADA) == getattr(first, read)(ADA)
    first.close()
    assert second.payload(ADA, 1) == b"bytes"
    assert first.payload(ADA, 1) == b"bytes"  # a closed store opens again
    first.close()
    second.close()


def test_file_is_set_up_for_safety(path: Path, url: str) -> None:
    store = SqlMemoryStore(url)
    say(store, 1)
    with store.database.read() as connection:
        pragmas = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in (
                "journal_mode",
                "synchronous",
                "foreign_keys",
                "busy_timeout",
                "trusted_schema",
                "secure_delete",
            )
        }
    assert pragmas == {
        "journal_mode": "wal",
        "synchronous": 2,
        "foreign_keys": 1,
        "busy_timeout": 30_000,
        "trusted_schema": 0,
        "secure_delete": 1,
    }
    store.close()
    assert not path.with_name("locas.db-wal").exists()


@pytest.mark.parametrize(
    ("version", "warns"), [((3, 40, 1), True), ((3, 51, 2), True), ((3, 51, 3), False), ((3, 6, 23), False)]
)
def test_second_connection_is_warned_of_the_wal_reset_bug_once(
    url: str, version: tuple[int, ...], warns: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(engine, "_has_warned_of_wal_reset", False)
    monkeypatch.setattr(engine, "SQLITE_VERSION", version)
    stores = [SqlMemoryStore(url) for _ in range(3)]
    for number, store in enumerate(stores):
        say(store, 1)
        warned = [record for record in caplog.records if "WAL-reset" in record.getMessage()]
        assert len(warned) == (1 if warns and number > 0 else 0)  # alone it is safe
    for store in stores:
        store.close()
    again = SqlMemoryStore(url)
    say(again, 1)
    again.close()


def test_reading_does_not_wait_for_a_writer(url: str) -> None:
    store, writer = SqlMemoryStore(url), SqlMemoryStore(url)
    say(store, 1)
    say(writer, 1)
    with writer.database.write():
        assert len(store.turns(ADA)) == 2
    store.close()
    writer.close()


def test_migrations_and_tables_agree(path: Path, url: str, tmp_path: Path) -> None:
    upgrade_schema(url)
    bare = create_engine(url)
    with bare.connect() as connection:
        # The tables that FTS5 keeps for its index are not ours to describe.
        options = {
            "version_table": VERSION_TABLE,
            "include_name": lambda name, *_: not name or not name.startswith(FTS_TABLE),
        }
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, metadata) == []
        assert migrations.current(connection) == migrations.newest()
    bare.dispose()
    # Autogenerate does not look at CHECK constraints, so the statements are compared too.
    direct = tmp_path / "direct.db"
    bare = create_engine(f"sqlite:///{direct}")
    metadata.create_all(bare)
    bare.dispose()
    migrated = tables(path)
    migrated.pop(VERSION_TABLE)
    assert {name: parts(text) for name, text in migrated.items()} == {
        name: parts(text) for name, text in tables(direct).items()
    }


def test_version_is_told_and_upgraded(path: Path, url: str) -> None:
    version = schema_version(url)
    assert (version.current, version.is_current) == (None, False)
    assert upgrade_schema(url).is_current
    assert schema_version(url).is_current
    assert upgrade_schema(url).is_current


def test_newer_tables_are_refused_with_the_command(path: Path, url: str) -> None:
    upgrade_schema(url)
    tamper(path, f"UPDATE {VERSION_TABLE} SET version_num = '9999'")
    store = SqlMemoryStore(url)
    with pytest.raises(SchemaOutdated, match=r"9999.*locas-agent db upgrade"):
        store.users()
    with pytest.raises(SchemaOutdated):
        upgrade_schema(url)
    store.close()


def test_older_tables_are_refused_with_the_command(path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    upgrade_schema(url)
    monkeypatch.setattr(migrations, "newest", lambda: "9998")
    store = SqlMemoryStore(url)
    with pytest.raises(SchemaOutdated, match="run `locas-agent db upgrade`"):
        say(store, 1)
    store.close()


def test_file_that_is_no_database_is_left_alone(path: Path, url: str) -> None:
    path.write_bytes(b"Dear diary, " * 500)
    store = SqlMemoryStore(url)
    for _ in range(2):
        with pytest.raises(ForeignDatabase):
            say(store, 1)
    store.close()
    assert path.read_bytes() == b"Dear diary, " * 500


def test_database_of_others_is_left_alone(path: Path, url: str) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE customers (name TEXT)")
    before = path.read_bytes()
    store = SqlMemoryStore(url)
    with pytest.raises(ForeignDatabase, match="locas-agent db upgrade"):
        store.users()
    store.close()
    assert path.read_bytes() == before
    upgrade_schema(url)  # asked for by hand, it may be shared
    say(store, 1)
    store.close()
    assert "customers" in tables(path)


def test_tables_with_our_names_and_no_version_are_foreign(path: Path, url: str) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE lm_turn (name TEXT)")
    store = SqlMemoryStore(url)
    for act in (store.users, lambda: upgrade_schema(url)):
        with pytest.raises(ForeignDatabase):
            act()
    store.close()


def test_failed_migration_leaves_an_empty_database(path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(connection: object) -> None:
        real(connection)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    real = migrations.upgrade
    store = SqlMemoryStore(url)
    with monkeypatch.context() as patch:
        patch.setattr(migrations, "upgrade", fail)
        with pytest.raises(KeyboardInterrupt):
            store.users()
    assert tables(path) == {}
    say(store, 1)
    store.close()


@pytest.mark.parametrize("url", ["locas.db", "", "nosuch://x", "sqlite:////nonexistent/folder/locas.db"])
def test_unusable_url_is_named_as_such(url: str) -> None:
    with pytest.raises(StoreUnavailable) as caught:
        SqlMemoryStore(url).users()
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize("url", ["sqlite://user:{}@/x.db", "nosuch://user:{}@host/x", "user:{}@host"])
def test_password_of_a_url_is_not_shown(url: str) -> None:
    with pytest.raises(StoreUnavailable) as caught:
        SqlMemoryStore(url.format(CANARY))
    assert CANARY not in str(caught.value.__cause__)
    assert CANARY not in str(caught.value)


def test_full_disk_keeps_what_was_acknowledged(path: Path, url: str) -> None:
    store = SqlMemoryStore(url)
    say(store, 3)
    store.commit(ADA, draft(0, 1, 3, b"small"))

    is_full = True

    @event.listens_for(store.database.engine, "checkout")
    def limit(connection: sqlite3.Connection, *_: object) -> None:
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages if is_full else 1_000_000}")

    acknowledged, refused = 3, 0
    for number in range(30):
        try:
            store.append(ADA, [TurnDraft("user", CANARY * 40, idempotency_key=f"k{number}")])
            acknowledged += 1
        except StorageFull:
            refused += 1
    assert refused > 0
    assert acknowledged > 3
    with pytest.raises(StorageFull):
        store.commit(ADA, draft(1, 4, 4, os.urandom(1 << 16), new_items=(item(),)))
    assert [turn.seq for turn in store.turns(ADA)] == list(range(1, acknowledged + 1))
    assert store.payload(ADA, 1) == b"small"
    is_full = False
    store.commit(ADA, draft(1, 4, 4, os.urandom(1 << 16)))
    store.close()
    assert broken_invariants(path) == []


def test_flipped_byte_in_a_payload_is_found(path: Path, url: str) -> None:
    store = SqlMemoryStore(url)
    say(store, 1)
    store.commit(ADA, draft(0, 1, 1, b"0123456789"))
    for place in range(10):
        damaged = bytearray(b"0123456789")
        damaged[place] ^= 1
        tamper(path, "UPDATE lm_blob SET data = ?", bytes(damaged))
        with pytest.raises(CorruptPayload):
            store.payload(ADA, 1)
    for damaged in (b"", b"012345678", b"0123456789x"):
        tamper(path, "UPDATE lm_blob SET data = ?", bytes(damaged))
        with pytest.raises(CorruptPayload):
            store.payload(ADA, 1)
    tamper(path, "UPDATE lm_blob SET data = ?", b"0123456789")
    assert store.payload(ADA, 1) == b"0123456789"
    store.close()


def test_altered_turn_is_found(path: Path, url: str) -> None:
    store = SqlMemoryStore(url)
    say(store, 2)
    tamper(path, "UPDATE lm_turn SET content = ? WHERE seq = 2", CANARY.encode())
    with pytest.raises(CorruptPayload) as caught:
        store.turns(ADA)
    assert CANARY not in str(caught.value)
    assert len(store.turns(ADA, upto=1)) == 1
    store.close()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE lm_audit SET facts = '{\"loss\": 2}' WHERE seq = 2",
        "UPDATE lm_audit SET action = 'export' WHERE seq = 2",
        "UPDATE lm_audit SET created_at = created_at - 1 WHERE seq = 2",
        "DELETE FROM lm_audit WHERE seq = 2",
        "DELETE FROM lm_audit WHERE seq = 1",
    ],
)
def test_altered_audit_trail_is_found(path: Path, url: str, statement: str) -> None:
    store = SqlMemoryStore(url)
    say(store, 1)
    for loss in range(3):
        store.record(ADA, "refuse", {"loss": loss})
    tamper(path, statement)
    with pytest.raises(CorruptPayload):
        store.audit(ADA)
    store.close()


def test_revisions_of_one_user_cannot_fork(path: Path, url: str) -> None:
    store = SqlMemoryStore(url)
    say(store, 2)
    store.commit(ADA, draft(0, 1, 1))
    store.commit(ADA, draft(1, 2, 2))
    store.close()
    for statement in (
        "UPDATE lm_revision SET parent_rev = 0 WHERE rev = 2",
        "UPDATE lm_revision SET parent_rev = 2 WHERE rev = 2",
    ):
        with pytest.raises(sqlite3.IntegrityError):
            tamper(path, statement)


def test_stores_opening_a_new_file_together_agree(path: Path, url: str) -> None:
    errors: list[BaseException] = []
    barrier = threading.Barrier(4)

    def work(worker: int) -> None:
        store = SqlMemoryStore(url)
        barrier.wait()
        try:
            say(store, 3)
        except BaseException as error:  # noqa: BLE001  a thread must not die unseen
            errors.append(error)
        store.close()

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert broken_invariants(path) == []
    store = SqlMemoryStore(url)
    assert len(store.turns(ADA)) == 12
    store.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_forked_child_and_parent_both_write(path: Path, url: str) -> None:
    program = f"""
import os
from locas_storage import SqlMemoryStore, TurnDraft, UserKey
store, ada = SqlMemoryStore({url!r}), UserKey("default", "ada")
memory = SqlMemoryStore("sqlite://")
for one in (store, memory):
    one.append(ada, [TurnDraft("user", "before")])
inherited = store.database.engine.pool
child = os.fork()
assert (store.database.engine.pool is inherited) == (child != 0)
for number in range(5):
    for one in (store, memory):
        one.append(ada, [TurnDraft("user", str(number))])
assert len(memory.turns(ada)) == 6
if child == 0:
    store.close()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
assert len(store.turns(ada)) == 11
store.close()
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(sql.__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert broken_invariants(path) == []


def test_errors_and_logs_show_no_content(path: Path, url: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    key = UserKey(CANARY, CANARY)
    store = SqlMemoryStore(url)
    shown: list[str] = []
    secret = draft(0, 1, 1, CANARY.encode(), new_items=(item(question=CANARY, answer=CANARY),))

    def provoke(error: type[LocasError], act: object) -> None:
        with pytest.raises(error) as caught:
            act()  # type: ignore[operator]
        shown.append("".join(traceback.format_exception(caught.value)))

    provoke(UnknownUser, lambda: store.commit(key, secret))
    store.append(key, [TurnDraft("user", CANARY, name=CANARY, session=CANARY, idempotency_key=CANARY)])
    store.commit(key, secret)
    provoke(RevisionConflict, lambda: store.commit(key, secret))
    provoke(RevisionNotFound, lambda: store.payload(key, 5))
    provoke(InvalidTurn, lambda: store.append(key, [TurnDraft("user", CANARY + "\x00")]))
    tamper(path, "CREATE TRIGGER no_more BEFORE INSERT ON lm_turn BEGIN SELECT RAISE(ABORT, 'no'); END")
    provoke(StoreUnavailable, lambda: store.append(key, [TurnDraft("user", CANARY)]))
    shown += [
        repr(store.turns(key)),
        repr(store.state(key)),
        repr(store.users()),
        repr(store.study_items(key)),
        repr(store.revisions(key)),
    ]
    shown += [record.getMessage() + repr(record.__dict__) for record in caplog.records]
    store.close()
    own_lines = [line for text in shown for line in text.splitlines() if CANARY in line]
    assert own_lines == []


def test_no_error_of_the_driver_escapes(path: Path, url: str) -> None:
    store = SqlMemoryStore(url)
    say(store, 1)
    tamper(path, "DROP TABLE lm_study_event")
    with pytest.raises(StoreUnavailable) as caught:
        store.rollback(ADA, store.commit(ADA, draft(0, 1, 1)).number - 1)
    assert isinstance(caught.value.__cause__, SQLAlchemyError)
    assert not isinstance(caught.value, SQLAlchemyError)
    store.close()


# What is shown of a URL
# ----------------------------------------------------------------------------------------------------

PASSWORD = "0pen-sesame"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (f"postgresql+psycopg://ada:{PASSWORD}@db.example:5432/m", "postgresql+psycopg://ada:***@db.example:5432/m"),
        (
            f"postgresql+psycopg://db.example/m?user=ada&password={PASSWORD}&sslmode=require",
            "postgresql+psycopg://db.example/m",
        ),
        (
            f"postgresql+psycopg://ada@db.example/m?oauth_client_secret={PASSWORD}",
            "postgresql+psycopg://ada@db.example/m",
        ),
        (f"postgresql://ada:a/{PASSWORD}@db.example/m", "postgresql://ada:***@db.example/m"),
        (f"postgresql://ada:a@{PASSWORD}@db.example/m", "***"),
        (f"postgresql://ada:a@b:{PASSWORD}@db.example/m", "***"),
        (f"postgresql://db.example:{PASSWORD}/m", "***"),
        (PASSWORD, "***"),
        (PASSWORD.encode(), "***"),
        ("sqlite:///file:x.db?mode=memory&uri=true", "sqlite:///file%3Ax.db"),
        ("sqlite://", "sqlite://"),
    ],
)
def test_no_password_is_shown(url: str, shown: str) -> None:
    assert shown_url(url) == shown
    if shown == "***":
        with pytest.raises(StoreUnavailable, match="@ is written as %40") as caught:
            open_store(url)
        assert PASSWORD not in "".join(traceback.format_exception(caught.value))
    else:
        with closing(open_store(url)) as opened:
            assert repr(opened) == f"SqlMemoryStore({shown!r})"


def test_no_password_is_in_the_error_of_a_server_that_is_not_there(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    for url in (
        f"postgresql+psycopg://ada:{PASSWORD}@127.0.0.1:1/m",
        f"postgresql+psycopg://127.0.0.1:1/m?user=ada&password={PASSWORD}",
    ):
        with pytest.raises(StoreUnavailable, match=r"127\.0\.0\.1:1/m") as caught:
            open_store(url).turns(ADA)
        assert PASSWORD not in "".join(traceback.format_exception(caught.value)) + caplog.text

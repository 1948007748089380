"""What only PostgreSQL can do: be unreachable, go away midway, hold tables of others, keep several processes apart."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, text
from storage_samples import ADA, draft, item, say

from locas_storage import (
    ForeignDatabase,
    SchemaOutdated,
    SqlMemoryStore,
    StoreUnavailable,
    TurnDraft,
    UserKey,
    schema_version,
    upgrade_schema,
)
from locas_storage.sql import migrations
from locas_storage.sql.database import engine
from locas_storage.sql.tables.schema import VERSION_TABLE, metadata
from tests.postgres_server import PostgresServer

CANARY = "canary-9c1d"


@pytest.fixture
def store(postgres_url: str) -> Iterator[SqlMemoryStore]:
    opened = SqlMemoryStore(postgres_url)
    yield opened
    opened.close()


def together(*acts: Callable[[], object]) -> list[BaseException]:
    """Run the acts at once, each in a thread, and return what they raised."""
    errors: list[BaseException] = []
    barrier = threading.Barrier(len(acts))

    def run(act: Callable[[], object]) -> None:
        barrier.wait()
        try:
            act()
        except BaseException as error:  # noqa: BLE001  a thread must not die unseen
            errors.append(error)

    threads = [threading.Thread(target=run, args=(act,)) for act in acts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return errors


def test_connection_is_set_up_for_safety(store: SqlMemoryStore, postgres_url: str) -> None:
    say(store, 1)
    names = (
        "statement_timeout",
        "lock_timeout",
        "idle_in_transaction_session_timeout",
        "client_encoding",
        "transaction_isolation",
    )
    with store.database.write() as connection:
        found = {name: connection.exec_driver_sql(f"SHOW {name}").scalar() for name in names}
    assert found == dict(zip(names, ["2min", "30s", "2min", "UTF8", "read committed"], strict=True))
    own = SqlMemoryStore(postgres_url + "&options=-c%20statement_timeout%3D7s")
    own.users()
    with own.database.write() as connection:
        assert connection.exec_driver_sql("SHOW statement_timeout").scalar() == "7s"
    own.close()


def test_reading_sees_one_state_and_cannot_write(store: SqlMemoryStore, postgres_url: str) -> None:
    say(store, 1)
    count = text("SELECT count(*) FROM lm_turn")
    with store.database.read() as connection:
        assert connection.execute(count).scalar() == 1
        other = SqlMemoryStore(postgres_url)
        say(other, 1)
        other.close()
        assert connection.execute(count).scalar() == 1
    assert len(store.turns(ADA)) == 2
    with pytest.raises(StoreUnavailable, match="25006"), store.database.read() as connection:
        connection.execute(text("DELETE FROM lm_turn"))


def test_migrations_and_tables_agree(postgres_server: PostgresServer, postgres_url: str) -> None:
    upgrade_schema(postgres_url)
    bare = create_engine(postgres_url)
    with bare.connect() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
        assert compare_metadata(context, metadata) == []
        assert migrations.current(connection) == migrations.newest()
    bare.dispose()
    # Autogenerate does not look at CHECK constraints, triggers and functions, so what the server says of all is
    # compared too.
    direct = postgres_server.new_database()
    bare = create_engine(direct)
    metadata.create_all(bare)
    bare.dispose()
    say_all = (
        "SELECT conname || ' ' || pg_get_constraintdef(oid) FROM pg_constraint WHERE connamespace = "
        "'public'::regnamespace "
        "UNION SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' "
        "UNION SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal "
        "UNION SELECT pg_get_functiondef(oid) FROM pg_proc WHERE pronamespace = 'public'::regnamespace ORDER BY 1"
    )
    migrated, made = (
        postgres_server.psql(PostgresServer.name_of(url), say_all).splitlines() for url in (postgres_url, direct)
    )
    assert [line for line in migrated if VERSION_TABLE not in line] == made
    assert len(made) > 40


def test_processes_opening_a_new_database_together_agree(postgres_url: str) -> None:
    # Processes, since alembic runs once at a time within one. All wait for the same moment.
    program = f"""
import sys
from locas_storage import SqlMemoryStore, TurnDraft, UserKey
print("ready", flush=True)
sys.stdin.readline()
store = SqlMemoryStore({postgres_url!r})
store.append(UserKey("default", "ada"), [TurnDraft("user", "hello")] * 3)
store.close()
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(engine.__file__).parents[3])}
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", program],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for _ in range(6)
    ]
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == b"ready\n"
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write(b"\n")
        worker.stdin.flush()
    assert [(worker.communicate()[1][-500:], worker.returncode) for worker in workers] == [(b"", 0)] * 6
    store = SqlMemoryStore(postgres_url)
    assert [turn.seq for turn in store.turns(ADA)] == list(range(1, 19))
    store.close()


def test_processes_that_append_together_leave_no_gap(postgres_url: str) -> None:
    # Two stores share nothing, as two processes do.
    stores = [SqlMemoryStore(postgres_url) for _ in range(2)]
    keys = [UserKey("default", f"user {number}") for number in range(4)]

    def work(store: SqlMemoryStore, worker: int) -> None:
        for number in range(4):
            for key in keys:
                store.append(
                    key,
                    [
                        TurnDraft("user", "shared", idempotency_key=f"shared {number}"),
                        TurnDraft("user", "own", idempotency_key=f"{worker} {number}"),
                    ],
                )

    assert together(*(lambda one=one, worker=worker: work(one, worker) for one in stores for worker in range(8))) == []
    for key in keys:
        turns = stores[0].turns(key)
        assert [turn.seq for turn in turns] == list(range(1, len(turns) + 1))
        assert (
            len(turns) == len({turn.idempotency_key for turn in turns}) == 4 + 4 * 8
        )  # workers of both stores use the same numbers
    for one in stores:
        one.close()


def test_only_one_of_two_processes_commits(postgres_url: str) -> None:
    stores = [SqlMemoryStore(postgres_url) for _ in range(4)]
    say(stores[0], 3)
    errors = together(*(lambda one=one: one.commit(ADA, draft(0, 1, 3, new_items=(item(),))) for one in stores))
    assert [type(error).__name__ for error in errors] == ["RevisionConflict"] * 3
    assert len(stores[0].revisions(ADA)) == len(stores[0].study_items(ADA)) == 1
    for one in stores:
        one.close()


def test_newer_tables_are_refused_with_the_command(postgres_server: PostgresServer, postgres_url: str) -> None:
    upgrade_schema(postgres_url)
    postgres_server.psql(PostgresServer.name_of(postgres_url), f"UPDATE {VERSION_TABLE} SET version_num = '9999'")
    store = SqlMemoryStore(postgres_url)
    with pytest.raises(SchemaOutdated, match=r"9999.*locas-agent db upgrade"):
        store.users()
    with pytest.raises(SchemaOutdated):
        upgrade_schema(postgres_url)
    store.close()


def test_database_of_others_is_left_alone(postgres_server: PostgresServer, postgres_url: str) -> None:
    postgres_server.psql(PostgresServer.name_of(postgres_url), "CREATE TABLE customers (name TEXT)")
    store = SqlMemoryStore(postgres_url)
    with pytest.raises(ForeignDatabase, match="locas-agent db upgrade"):
        store.users()
    assert (
        postgres_server.psql(
            PostgresServer.name_of(postgres_url), "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
        )
        == "customers"
    )
    assert schema_version(postgres_url).current is None
    upgrade_schema(postgres_url)
    say(store, 1)
    store.close()


def test_missing_database_is_named_as_such(postgres_server: PostgresServer) -> None:
    store = SqlMemoryStore(postgres_server.url("nosuch"))
    with pytest.raises(StoreUnavailable, match="cannot be reached"):
        store.users()
    store.close()


def test_stopped_server_is_unavailable_and_comes_back() -> None:
    server = PostgresServer.in_memory()
    try:
        server.start()
        url = server.new_database()
        store, idle = SqlMemoryStore(url), SqlMemoryStore(url)
        say(store, 2)
        assert len(idle.turns(ADA)) == 2
        server.stop("immediate")
        for act in (store.users, lambda: say(store, 1), lambda: schema_version(server.url("test_1"))):
            with pytest.raises(StoreUnavailable, match="call again"):
                act()
        server.start()
        assert len(idle.turns(ADA)) == 2  # the dead connection of the pool is not handed out
        say(store, 1)
        store.close()
        idle.close()
    finally:
        server.remove()


def test_connection_cut_midway_leaves_nothing_and_the_retry_is_one_turn(
    postgres_server: PostgresServer, postgres_url: str
) -> None:
    def cut(point: str) -> None:
        if point == "append.before_commit":
            postgres_server.cut(postgres_url)

    store, fragile = SqlMemoryStore(postgres_url), SqlMemoryStore(postgres_url, fault_point=cut)
    say(store, 1)
    late = [TurnDraft("user", "late", idempotency_key="late")]
    with pytest.raises(StoreUnavailable):
        fragile.append(ADA, late)
    assert len(store.turns(ADA)) == 1
    assert store.append(ADA, late) == store.append(ADA, late) == store.turns(ADA, after=1)
    store.close()
    fragile.close()


def test_refused_row_is_not_quoted_in_the_error(
    postgres_server: PostgresServer, postgres_url: str, store: SqlMemoryStore, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    key = UserKey(CANARY, CANARY)
    secret = TurnDraft("user", CANARY, name=CANARY, session=CANARY, idempotency_key=CANARY)
    store.append(key, [secret])
    postgres_server.psql(
        PostgresServer.name_of(postgres_url), "ALTER TABLE lm_turn ADD CONSTRAINT no_more CHECK (seq < 2)"
    )
    with pytest.raises(StoreUnavailable, match="23514") as caught:
        store.append(key, [TurnDraft("user", CANARY, name=CANARY)])
    driver = caught.value.__cause__.__cause__
    assert driver is not None
    assert CANARY in driver.diag.message_detail  # type: ignore[attr-defined]  the server did quote it
    shown = [
        "".join(traceback.format_exception(caught.value)),
        *(record.getMessage() + repr(record.__dict__) for record in caplog.records),
    ]
    assert [line for one in shown for line in one.splitlines() if CANARY in line] == []


def test_password_of_a_url_is_not_shown() -> None:
    for url in (
        f"postgresql+psycopg://ada:{CANARY}@127.0.0.1:1/x",
        f"postgresql+psycopg://ada@127.0.0.1:1/x?password={CANARY}",
    ):
        store = SqlMemoryStore(url)
        with pytest.raises(StoreUnavailable) as caught:
            store.users()
        assert CANARY not in "".join(traceback.format_exception(caught.value)) + repr(store)
        store.close()


def test_other_databases_are_refused() -> None:
    with pytest.raises(StoreUnavailable, match="SQLite or PostgreSQL"):
        SqlMemoryStore("mysql://ada@host/x")

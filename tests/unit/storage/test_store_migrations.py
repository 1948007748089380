"""Databases of every released schema, kept as text with data.

Refused until upgraded, and nothing in them changed by it.

`tests/fixtures/dump_schema.py` writes the texts.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from alembic import command
from sqlalchemy import create_engine, inspect, text
from storage_samples import ADA

from locas_storage import (
    LocasError,
    SchemaOutdated,
    SqlMemoryStore,
    TurnDraft,
    UserKey,
    check_schema,
    schema_version,
    upgrade_schema,
)
from locas_storage.sql import migrations
from locas_storage.sql.tables.schema import FTS_TABLE, VERSION_TABLE, search

FIXTURES = Path(__file__).parents[2] / "fixtures"
STEPS = sorted({path.name.split(".")[0].removeprefix("schema_") for path in FIXTURES.glob("schema_*.sql")})
BEN = UserKey("acme", "bén's %_ 😀")
Rows = dict[str, tuple[list[str], list[str]]]
UNREAD = {"lm_subject": {"lock_version"}, "lm_job": {"kind"}}
"""Columns that step 0007 drops: nothing read them, and a step taken back does not bring their values again."""


@pytest.fixture(params=["sqlite", "postgresql"])
def load(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], str]:
    """Return a function that makes a database of a step and returns its URL."""

    def load_sqlite(step: str) -> str:
        path = tmp_path / f"{step}.db"
        with closing(sqlite3.connect(path)) as connection:
            connection.executescript((FIXTURES / f"schema_{step}.sqlite.sql").read_text(encoding="utf-8"))
        return f"sqlite:///{path}"

    def load_postgresql(step: str) -> str:
        url: str = request.getfixturevalue("postgres_url")
        request.getfixturevalue("postgres_server").psql(
            url.partition("@/")[2].partition("?")[0],
            (FIXTURES / f"schema_{step}.postgresql.sql").read_text(encoding="utf-8"),
        )
        return url

    return {"sqlite": load_sqlite, "postgresql": load_postgresql}[request.param]


def row_hashes(url: str, columns: dict[str, list[str]] | None = None) -> Rows:
    """Return the hashes of all rows of every table, over all columns or those named."""
    engine = create_engine(url)
    found: Rows = {}
    with engine.connect() as connection:
        for table in inspect(connection).get_table_names():
            # The index of words is made from the turns, and made anew where its words are cut in another way.
            if (
                table in (VERSION_TABLE, search.name)
                or table.startswith(FTS_TABLE)
                or (columns is not None and table not in columns)
            ):
                continue
            names = columns[table] if columns else [column["name"] for column in inspect(connection).get_columns(table)]
            names = [name for name in names if name not in UNREAD.get(table, ())]
            rows = connection.execute(text(f"SELECT {', '.join(names)} FROM {table}")).all()
            found[table] = (names, sorted(hashlib.sha256(repr(tuple(row)).encode()).hexdigest() for row in rows))
    engine.dispose()
    return found


def test_every_step_but_the_newest_is_kept_with_data() -> None:
    assert set(STEPS) >= migrations.known() - {migrations.newest()}
    for step in STEPS:
        for database in ("sqlite", "postgresql"):
            assert (FIXTURES / f"schema_{step}.{database}.sql").read_text(encoding="utf-8").count("INSERT INTO") > 20


@pytest.mark.parametrize("step", STEPS)
def test_older_schema_is_refused_then_upgraded_without_changing_a_row(load: Callable[[str], str], step: str) -> None:
    url = load(step)
    before = row_hashes(url)
    assert schema_version(url).current == step
    if step != migrations.newest():
        store = SqlMemoryStore(url)
        for act in (store.users, lambda: store.append(ADA, [TurnDraft("user", "x")]), lambda: check_schema(url)):
            with pytest.raises(SchemaOutdated, match=f"{step}.*run `locas-agent db upgrade`"):
                act()
        store.close()
        assert row_hashes(url) == before
    assert upgrade_schema(url).is_current
    assert check_schema(url).is_current
    columns = {table: names for table, (names, _) in before.items()}
    assert row_hashes(url, columns) == before
    assert len(before["lm_turn"][1]) == 8

    store = SqlMemoryStore(url)
    for key in (ADA, BEN):
        assert [turn.content for turn in store.turns(key)] == [
            "My dog is called Rex.",
            "Noted: “Rex”.",
            "Ich wohne in Göteborg 😀",
            "",
        ]
        assert [turn.seq for turn in store.search(key, "goteborg dog")] == [3, 1]
        assert store.append(key, [TurnDraft("user", "other", idempotency_key="k1")])[0].seq == 1
    payload = hashlib.sha256(b"payload after 0").digest() * 4
    assert store.payload(ADA, 1) == store.payload(ADA, 3) == payload
    assert [(revision.number, revision.state, revision.payload_bytes) for revision in store.revisions(ADA)] == [
        (n, "live", 128) for n in range(1, 5)
    ]
    assert [(revision.has_payload, revision.payload_bytes) for revision in store.revisions(BEN)] == [
        (True, 128),
        (False, 0),
    ]
    assert [entry.action for entry in store.audit(ADA)] == ["revert", "refuse"]
    assert {item.question for item in store.study_items(ADA)} == {"Question 1?", "Question 2?"}
    assert store.append(ADA, [TurnDraft("user", "Göteborg, still")])[0].seq == 5
    assert {turn.seq for turn in store.search(ADA, "göteborg")} == {3, 5}
    assert store.rollback(ADA, 2).number == 5
    store.close()


@pytest.mark.parametrize("step", STEPS)
def test_what_an_older_program_indexed_is_found_as_if_it_were_said_today(load: Callable[[str], str], step: str) -> None:
    url = load(step)
    upgrade_schema(url)
    store = SqlMemoryStore(url)
    for key in (ADA, BEN):
        assert [turn.seq for turn in store.search(key, "😀")] == [
            3
        ]  # no word when the texts of older steps were indexed
        assert store.verify(tenant=key.tenant, user=key.user).is_sound
    store.close()


@pytest.mark.parametrize("step", [step for step in STEPS if step != migrations.newest()])
def test_upgrade_that_breaks_off_leaves_the_older_schema(
    load: Callable[[str], str], step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(connection: object) -> None:
        real(connection)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    url, real = load(step), migrations.upgrade
    before = row_hashes(url)
    with monkeypatch.context() as patch:
        patch.setattr(migrations, "upgrade", fail)
        with pytest.raises(KeyboardInterrupt):
            upgrade_schema(url)
    assert schema_version(url).current == step
    assert row_hashes(url) == before
    assert upgrade_schema(url).is_current


def test_steps_can_be_taken_back(load: Callable[[str], str]) -> None:
    url = load("0001")
    before = row_hashes(url)
    upgrade_schema(url)
    engine = create_engine(url)
    with engine.begin() as connection:
        config = migrations.alembic_config()
        config.attributes["connection"] = connection
        command.downgrade(config, "0001")
    engine.dispose()
    assert row_hashes(url) == before
    assert upgrade_schema(url).is_current


def test_columns_that_nothing_read_are_gone_and_a_user_has_one_open_job_as_before(load: Callable[[str], str]) -> None:
    url = load("0001")
    upgrade_schema(url)
    with closing(SqlMemoryStore(url)) as store:
        store.append(ADA, [TurnDraft("user", "x")], enqueue=5)
        store.append(ADA, [TurnDraft("user", "y")], enqueue=6)
        (job,) = store.queue.jobs()
        assert job.to_seq == 6
        with store.database.read() as connection:
            for table, gone in UNREAD.items():
                assert not gone & {column["name"] for column in inspect(connection).get_columns(table)}
        second = (
            "INSERT INTO lm_job (id, tenant_id, subject_id, to_seq, epoch, run_after) "
            "SELECT '00000000000000000000000000000001', tenant_id, subject_id, to_seq, epoch, run_after FROM lm_job"
        )
        if not store.database.is_sqlite:
            second = second.replace("'00000000000000000000000000000001'", "gen_random_uuid()")
        # 23505 is PostgreSQL's name of the same refusal
        with pytest.raises(LocasError, match=r"UNIQUE|23505"), store.database.write() as connection:
            connection.execute(text(second))
    engine = create_engine(url)
    with engine.begin() as connection:
        config = migrations.alembic_config()
        config.attributes["connection"] = connection
        command.downgrade(config, "0006")
        assert connection.execute(text("SELECT kind FROM lm_job")).scalars().all() == ["consolidate"]
        assert set(connection.execute(text("SELECT lock_version FROM lm_subject")).scalars()) == {1}
    engine.dispose()
    assert upgrade_schema(url).is_current

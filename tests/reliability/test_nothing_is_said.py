"""A user's whole life, with and without failures.

Nothing of what was said is in logs, errors, job rows, figures or `repr`.

Canaries stand in every text and label, and as the names of user and tenant.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from sqlalchemy import select, text

from locas_agent import Backbone
from locas_storage import FileKeyProvider, SqlMemoryStore, new_key_file
from locas_storage.sql.tables.schema import audit, job, revision
from tests.reliability.conftest import Record, Sizes
from tests.reliability.listening import Overheard, listening
from tests.reliability.places import DATABASES, Place
from tests.unit.agent.fake_learner import QuickLearner, quick_agent

WRITTEN = ("lm_turn", "lm_search", "lm_blob", "lm_revision", "lm_study_item", "lm_job", "lm_audit", "lm_subject")
"""Tables in which a failure is planted, one after the other."""


def live(backbone: Backbone, store: SqlMemoryStore, heard: Overheard) -> None:
    """Say, answer, learn here and in a worker, search, look, roll back, forget, expire, erase, begin again."""
    agent = quick_agent(backbone, store)
    ada, said = agent.for_user(heard.name, tenant=heard.name), f"My code is {heard.canary}"
    labels = {"name": heard.canary, "session": heard.canary}
    do, learner = heard.attempt, agent.runner.learner
    assert isinstance(learner, QuickLearner)
    do(lambda: ada.add("user", said, idempotency_key=heard.canary, trust="tool", **labels))
    do(lambda: ada.add("user", said, idempotency_key=heard.canary, **labels))
    do(lambda: ada.add("user", said, expires_at=dt.datetime.now(dt.UTC) - dt.timedelta(days=1)))
    do(lambda: ada.add(heard.canary, said))
    do(lambda: ada.add("user", said + "\x00"))
    do(lambda: ada.add("user", said * 100))
    do(lambda: ada.reply(said, idempotency_key=f"{heard.canary} 1"))
    do(lambda: list(ada.stream(said))[:0])
    do(lambda: ada.consolidate(flush=True))
    do(lambda: ada.recall(said).revision)
    do(lambda: ada.turns())
    do(lambda: ada.search(heard.canary))
    do(lambda: ada.revisions())
    do(lambda: store.study_items(ada.key))
    do(lambda: ada.history(1))
    do(lambda: [agent.reply_many([(ada, said)])[0].turn, ada.consolidation_due()])
    do(lambda: ada.consolidate(flush=True, wait=False))
    learner.meanwhile = failing(f"quoting: {said}")
    do(lambda: agent.work())
    rows_of(store, heard)
    learner.meanwhile, learner.refused = lambda _: None, {said}
    do(lambda: ada.consolidate(flush=True))
    learner.refused = set()
    do(
        lambda: [
            store.queue.jobs(),
            store.queue.claim("worker", key=ada.key),
            store.state(ada.key),
            store.audit(ada.key),
        ]
    )
    do(lambda: ada.rollback(0))
    do(lambda: ada.forget([1]))
    do(lambda: ada.forget([999]))
    do(lambda: store.verify())
    do(lambda: agent.work())
    rows_of(store, heard)
    do(lambda: ada.erase())
    do(lambda: ada.add("user", said))
    do(lambda: ada.reinstate())
    do(lambda: ada.add("user", said))
    heard.hear("repr", repr(agent), repr(ada), repr(ada.key), repr(store), repr(store.queue))


def failing(message: str) -> Callable[[object], None]:
    def fail(_: object) -> None:
        raise RuntimeError(message)

    return fail


def rows_of(store: SqlMemoryStore, heard: Overheard) -> None:
    """Keep the rows that operators see, but for the columns that name their user."""
    with store.database.read() as connection:
        for table in (job, audit, revision):
            columns = [column for column in table.columns if column.name not in ("tenant_id", "subject_id")]
            heard.hear(f"row of {table.name}", *(repr(tuple(row)) for row in connection.execute(select(*columns))))


@pytest.fixture(params=DATABASES)
def place(request: pytest.FixtureRequest, make_place: Callable[[str], Place]) -> Place:
    return make_place(request.param)


def test_nothing_of_a_life_is_said(
    place: Place, backbone: Backbone, tmp_path: Path, request: pytest.FixtureRequest, record: Record
) -> None:
    new_key_file(tmp_path / "keys")
    heard = Overheard()
    for keys in (None, FileKeyProvider(tmp_path / "keys")):
        with listening(heard), closing(SqlMemoryStore(place.url, key_provider=keys)) as store:
            live(backbone, store, heard)
            store.erase(store.users()[0])  # the next life begins in another form
    assert heard.hits() == []
    wheres = {where for where, _ in heard.lines}
    assert {
        "log sqlalchemy.engine.Engine.locas",
        "log locas_storage.sql.forgetting",
        "repr",
        "error",
        "row of lm_job",
    } <= wheres  # it did listen
    record(
        f"canary strings, {request.node.callspec.params['place']}",
        lines=len(heard.lines),
        refusals=heard.failures,
        hits=len(heard.hits()),
    )


def test_nothing_of_a_life_is_said_whatever_fails(
    place: Place, backbone: Backbone, request: pytest.FixtureRequest, sizes: Sizes, record: Record
) -> None:
    """Each table in turn refuses what is written into it, on PostgreSQL quoting the row as a broken constraint does."""
    heard, failures = Overheard(), []
    with closing(SqlMemoryStore(place.url)) as store:
        store.users()  # makes the tables
        for table in WRITTEN[: sizes.failing_tables]:
            heard.failures = 0
            with refusing(store, table), listening(heard), closing(SqlMemoryStore(place.url)) as fragile:
                live(backbone, fragile, heard)
            failures.append(heard.failures)
            for key in store.users():
                store.erase(key)
                store.reinstate(key)
    if place.database_file is None:
        server = request.getfixturevalue("postgres_server")
        assert heard.canary in (server.folder / "log").read_text(
            encoding="utf-8"
        )  # it did quote; that log is the operator's
    assert heard.hits() == []
    assert min(failures) > 5
    figures = {"tables": len(failures), "lines": len(heard.lines), "refusals": sum(failures), "hits": len(heard.hits())}
    record(f"canary strings with failures, {request.node.callspec.params['place']}", **figures)


@contextmanager
def refusing(store: SqlMemoryStore, table: str) -> Iterator[None]:
    """Let a table refuse new rows, `lm_subject` changes of its rows: without one a user has no life."""
    event = "UPDATE" if table == "lm_subject" else "INSERT"
    with store.database.write() as connection:
        if connection.dialect.name == "sqlite":
            connection.execute(
                text(f"CREATE TRIGGER refuses BEFORE {event} ON {table} BEGIN SELECT RAISE(ABORT, 'refused'); END")
            )
        else:
            body = "BEGIN RAISE EXCEPTION 'refused: %', NEW; END"
            connection.execute(
                text(
                    "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS "
                    f"'{body.replace(chr(39), chr(39) * 2)}'"
                )
            )
            connection.execute(
                text(f"CREATE TRIGGER refuses BEFORE {event} ON {table} FOR EACH ROW EXECUTE FUNCTION refuse()")
            )
    yield
    with store.database.write() as connection:
        connection.execute(
            text("DROP TRIGGER refuses" if connection.dialect.name == "sqlite" else "DROP FUNCTION refuse() CASCADE")
        )

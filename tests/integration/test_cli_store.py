"""The commands over a database that need no model: `search` and `db`. And the verb behind the first."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from locas_agent import AgentMemory, LocasConfig, MemorySettings
from locas_agent.cli import app
from locas_storage import InMemoryStore, TurnDraft, UserKey, open_store
from locas_storage.sql import migrations
from tests.conftest import MakeBackbone
from tests.postgres_server import PostgresServer

FIXTURES = Path(__file__).parents[1] / "fixtures"
ADA = UserKey("default", "ada")


@pytest.fixture
def store(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'locas.db'}"


@pytest.fixture
def old_store(tmp_path: Path) -> str:
    """A database of the first schema."""
    path = tmp_path / "old.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript((FIXTURES / "schema_0001.sqlite.sql").read_text(encoding="utf-8"))
    return f"sqlite:///{path}"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def facts(*arguments: str) -> object:
    result = run(*arguments, "--json", "-")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def test_search_prints_the_best_turn_first(store: str) -> None:
    opened = open_store(store)
    opened.append(
        ADA,
        [TurnDraft("user", "My dog is called Rex."), TurnDraft("user", "Rex, \x1b[31mRex!"), TurnDraft("user", "no")],
    )
    opened.append(UserKey("acme", "ada"), [TurnDraft("user", "Rex Rex Rex")])
    opened.close()
    found = facts("search", "rex OR (", "--user", "ada", "--store", store)
    assert isinstance(found, list)
    assert [(turn["seq"], turn["content"]) for turn in found] == [
        (2, "Rex, \x1b[31mRex!"),
        (1, "My dog is called Rex."),
    ]
    assert found[0]["score"] > found[1]["score"] > 0
    assert len(facts("search", "rex", "--user", "ada", "--limit", "1", "--store", store)) == 1  # type: ignore[arg-type]
    shown = run("search", "REX", "--user", "ada", "--store", store)
    assert shown.exit_code == 0
    assert "\x1b" not in shown.stdout
    assert facts("search", "nothing", "--user", "ada", "--store", store) == []
    assert run("search", "rex", "--user", "ada", "--limit", "0", "--store", store).exit_code == 2


def test_verb_searches_the_journal_of_its_user_only(make_backbone: MakeBackbone) -> None:
    config = LocasConfig(memory=MemorySettings(width=4))
    with AgentMemory(backbone=make_backbone(), store=InMemoryStore(), config=config) as memory:
        ada, ben = memory.for_user("ada"), memory.for_user("ben")
        for text in ("My dog is Rex.", "Hello", "dogs and a dog"):
            ada.add("user", text)
        ben.add("user", "dog dog dog")
        assert [(turn.seq, turn.content) for turn in ada.search("Dog")] == [
            (3, "dogs and a dog"),
            (1, "My dog is Rex."),
        ]
        assert ada.search("dog", limit=1) == ada.search("dog")[:1]
        assert asyncio.run(ada.asearch("dog")) == ada.search("dog")


def test_older_database_is_told_upgraded_and_used(old_store: str) -> None:
    newest = migrations.newest()
    assert facts("db", "current", "--store", old_store) == {"current": "0001", "expected": newest, "is_current": False}
    for command in (["db", "check"], ["users"], ["search", "dog", "--user", "ada"]):
        refused = run(*command, "--store", old_store)
        assert refused.exit_code == 1
        assert refused.stdout == ""
        assert "run `locas-agent db upgrade`" in refused.stderr
    upgraded = run("db", "upgrade", "--store", old_store)
    assert upgraded.exit_code == 0, upgraded.stderr
    assert f"version {newest} (was at 0001)" in upgraded.stdout
    assert facts("db", "check", "--store", old_store) == {"current": newest, "expected": newest, "is_current": True}
    assert len(facts("search", "göteborg", "--user", "ada", "--store", old_store)) == 1  # type: ignore[arg-type]
    again = run("db", "upgrade", "--store", old_store)
    assert again.exit_code == 0
    assert "was at" not in again.stdout


def test_newer_database_is_refused_by_every_command(old_store: str) -> None:
    with closing(sqlite3.connect(old_store.removeprefix("sqlite:///"))) as connection, connection:
        connection.execute("UPDATE lm_alembic_version SET version_num = '9999'")
    assert facts("db", "current", "--store", old_store) == {
        "current": "9999",
        "expected": migrations.newest(),
        "is_current": False,
    }
    for command in (["db", "check"], ["db", "upgrade"], ["users"]):
        refused = run(*command, "--store", old_store)
        assert refused.exit_code == 1
        assert "install the newer locas-agent" in refused.stderr


def test_looking_at_a_file_that_is_missing_makes_none(store: str, tmp_path: Path) -> None:
    assert facts("db", "current", "--store", store) == {
        "current": None,
        "expected": migrations.newest(),
        "is_current": False,
    }
    checked = run("db", "check", "--store", store)
    assert checked.exit_code == 1
    assert "no tables of this package yet" in checked.stderr
    assert list(tmp_path.iterdir()) == []
    assert run("db", "upgrade", "--store", store).exit_code == 0
    assert run("db", "check", "--store", store).exit_code == 0


def test_database_commands_work_on_postgresql(postgres_server: PostgresServer) -> None:
    url = postgres_server.new_database()
    assert run("db", "check", "--store", url).exit_code == 1
    assert run("db", "upgrade", "--store", url).exit_code == 0
    assert run("db", "check", "--store", url).exit_code == 0
    assert facts("users", "--store", url) == []
    gone = run("users", "--store", postgres_server.url("nosuch"))
    assert gone.exit_code == 1
    assert len(gone.stderr.splitlines()) == 1


def test_database_commands_load_no_torch(store: str) -> None:
    program = (
        "import sys\nfrom typer.testing import CliRunner\nfrom locas_agent.cli import app\n"
        f"for command in (['db', 'upgrade'], ['db', 'check'], ['search', 'x', '--user', 'ada']):\n"
        f"    assert CliRunner().invoke(app, [*command, '--store', {store!r}]).exit_code == 0\n"
        "assert 'torch' not in sys.modules and 'fsspec' not in sys.modules and 'psycopg' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

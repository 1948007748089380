"""The commands `verify` and `keys`, and `--key-file` of those that read content."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from locas_agent.agent import AgentMemory
from locas_agent.backbone import Backbone
from locas_agent.cli import app
from locas_agent.errors import ConfigurationError
from locas_storage import FileKeyProvider, InMemoryStore, RevisionDraft, TurnDraft, UserKey, open_store

ADA = UserKey("default", "ada")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


@pytest.fixture
def key_file(tmp_path: Path) -> str:
    path = str(tmp_path / "keys")
    made = run("keys", "new", path)
    assert made.exit_code == 0
    assert Path(path).read_text().split()[1] not in made.output
    return path


@pytest.fixture
def store(tmp_path: Path, key_file: str) -> str:
    """An encrypted store in which Ada has said two things, of which one is learnt."""
    url = f"sqlite:///{tmp_path / 'locas.db'}"
    with closing(open_store(url, key_provider=FileKeyProvider(key_file))) as opened:
        opened.append(ADA, [TurnDraft("user", "My dog is called Rex."), TurnDraft("user", "I live in Oslo.")])
        opened.commit(ADA, RevisionDraft(0, "f", "c", "0", 0, 1, 1, b"what was learnt"))
    return url


def test_content_is_printed_with_the_key_file_or_the_environment(
    store: str, key_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ("turns", "--user", "ada", "--store", store)
    assert "Rex" in run(*asked, "--key-file", key_file).stdout
    assert "Rex" in run("search", "dog", *asked[1:], "--key-file", key_file).stdout
    refused = run(*asked)
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "key_provider=" in refused.stderr
    monkeypatch.setenv("LOCAS_KEYS", Path(key_file).read_text())
    assert "Rex" in run(*asked).stdout
    monkeypatch.setenv("LOCAS_KEY_FILE", key_file + ".none")  # a file goes before the environment
    assert run(*asked).exit_code == 1
    monkeypatch.setenv("LOCAS_KEY_FILE", key_file)
    assert "Rex" in run(*asked).stdout


def test_commands_that_read_no_content_need_no_key(store: str) -> None:
    for arguments in (
        ["users"],
        ["revisions", "--user", "ada"],
        ["jobs"],
        ["forget", "1", "--user", "ada"],
        ["erase", "--user", "ada"],
    ):
        assert run(*arguments, "--store", store).exit_code == 0


def test_verify_is_silent_on_a_sound_store(store: str, key_file: str) -> None:
    done = run("verify", "--store", store, "--key-file", key_file)
    assert done.exit_code == 0
    assert "checked: 1 users, 2 turns, 1 revisions; no faults" in done.stdout


def test_verify_names_what_is_wrong_and_fails(store: str, key_file: str, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "locas.db")) as connection, connection:
        connection.execute("UPDATE lm_turn SET content_sha256 = zeroblob(32) WHERE seq = 1")
    asked = ("verify", "--store", store, "--key-file", key_file)
    shown = run(*asked)
    assert shown.exit_code == 1
    assert "turn 1: CorruptPayload" in shown.stdout
    facts = run(*asked, "--json", "-")
    assert facts.exit_code == 1
    found = json.loads(facts.stdout)
    assert (found["users"], found["is_sound"]) == (1, False)
    assert {"tenant": "default", "user": "ada", "what": "digest", "detail": "turn 1: CorruptPayload"} in found["faults"]
    assert "Rex" not in shown.output + facts.output
    assert run(*asked, "--tenant", "other").exit_code == 0
    assert run(*asked, "--user", "ada").exit_code == 1  # no tenant


def test_verify_without_the_key_fails(store: str) -> None:
    done = run("verify", "--store", store)
    assert done.exit_code == 1
    assert "encryption" in done.stdout


def test_rotation_retires_the_old_key(store: str, key_file: str) -> None:
    old = Path(key_file).read_text()
    assert "1 data keys" in run("keys", "rotate", "--key-file", key_file, "--store", store).stdout
    assert len(Path(key_file).read_text().splitlines()) == 2
    done = run("keys", "rotate", "--key-file", key_file, "--store", store, "--retire")
    assert "2 older keys are removed" in done.stdout
    left = Path(key_file).read_text()
    assert len(left.splitlines()) == 1
    assert left not in old
    assert run("verify", "--store", store, "--key-file", key_file).exit_code == 0
    assert run("keys", "new", key_file).exit_code == 1


def test_agent_keeps_what_it_hears_encrypted(backbone: Backbone, tmp_path: Path, key_file: str) -> None:
    path = tmp_path / "agent.db"
    with AgentMemory.load(backbone, f"sqlite:///{path}", key_provider=FileKeyProvider(key_file)) as memory:
        ada = memory.for_user("ada")
        ada.add("user", "My dog is called Rex.")
        assert [turn.content for turn in ada.search("dog")] == ["My dog is called Rex."]
    assert b"Rex" not in path.read_bytes()
    with pytest.raises(ConfigurationError, match="ready store"):
        AgentMemory.load(backbone, InMemoryStore(), key_provider=FileKeyProvider(key_file))


def test_store_in_the_clear_is_encrypted_by_a_command(tmp_path: Path, key_file: str) -> None:
    path = tmp_path / "clear.db"
    url = f"sqlite:///{path}"
    with closing(open_store(url)) as opened:
        opened.append(ADA, [TurnDraft("user", "My dog is called Rex.")])
    asked = ("turns", "--user", "ada", "--store", url)
    refused = run(*asked, "--key-file", key_file)
    assert refused.exit_code == 1
    assert "locas-agent keys encrypt" in refused.stderr
    assert b"Rex" in path.read_bytes()
    done = run("keys", "encrypt", "--key-file", key_file, "--store", url)
    assert done.exit_code == 0
    assert "1 users are encrypted now" in done.stdout
    assert "may still lie" not in done.stdout
    assert b"Rex" not in path.read_bytes()
    assert "Rex" in run(*asked, "--key-file", key_file).stdout
    assert run(*asked).exit_code == 1
    assert run("verify", "--store", url, "--key-file", key_file).exit_code == 0
    assert "0 users" in run("keys", "encrypt", "--key-file", key_file, "--store", url).stdout

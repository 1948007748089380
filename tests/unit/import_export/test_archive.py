"""A person's archive: all that the store has, nothing of others, nothing forgotten, readable without this package."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from locas_agent import AgentMemory, Backbone
from locas_agent.cli import app
from locas_agent.errors import ExchangeError, RevisionConflict, UnknownUser
from locas_agent.import_export.archive import write_archive
from locas_storage import FileKeyProvider, InMemoryStore, MemoryStore, SqlMemoryStore, UserKey, new_key_file
from tests.unit.agent.fake_learner import quick_agent

ADA = UserKey("default", "ada")


@pytest.fixture(params=["dict", "sqlite", "encrypted"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MemoryStore]:
    keys = None
    if request.param == "encrypted":
        new_key_file(tmp_path / "keys")
        keys = FileKeyProvider(tmp_path / "keys")
    opened: MemoryStore = (
        InMemoryStore()
        if request.param == "dict"
        else SqlMemoryStore(f"sqlite:///{tmp_path / 'locas.db'}", key_provider=keys)
    )
    yield opened
    opened.close()


@pytest.fixture
def agent(backbone: Backbone, store: MemoryStore) -> AgentMemory:
    """Ada has said three things, learnt twice, forgotten one; Ben has said one."""
    agent = quick_agent(backbone, store)
    ada = agent.for_user("ada")
    ada.add("user", "I row.", session="s", idempotency_key="k", learn=False)
    ada.add("user", "Forget this one.")
    ada.consolidate(flush=True)
    ada.add("user", "Ich wohne in Göteborg.")
    ada.consolidate(flush=True)
    ada.forget(2)
    agent.work()
    agent.for_user("ben").add("user", "I am Ben.")
    for user in ("ada", "ben"):
        store.api_keys.new("default", user, label=f"phone of {user}")
    return agent


def lines(archive: zipfile.ZipFile, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in archive.read(name).decode().splitlines()]


def test_it_holds_all_that_is_kept_and_nothing_else(agent: AgentMemory, tmp_path: Path) -> None:
    ada = agent.for_user("ada")
    place = ada.archive(tmp_path / "ada.zip")
    assert place == (tmp_path / "ada.zip").absolute()
    assert place.stat().st_mode & 0o777 == 0o600
    with zipfile.ZipFile(place) as archive:
        assert archive.testzip() is None
        turns = lines(archive, "turns.jsonl")
        assert [(turn["seq"], turn["content"]) for turn in turns] == [(1, "I row."), (3, "Ich wohne in Göteborg.")]
        assert (turns[0]["session"], turns[0]["idempotency_key"], turns[0]["learn"]) == ("s", "k", False)
        items = lines(archive, "study_items.jsonl")
        assert len(items) == len(agent.store.study_items(ada.key, with_retired=True)) > 0
        revisions = lines(archive, "revisions.jsonl")
        assert [revision["number"] for revision in revisions] == [one.number for one in ada.revisions()]
        kept = {one.number for one in ada.revisions() if one.has_payload}
        memories = {name for name in archive.namelist() if name.startswith("memories/")}
        assert memories == {f"memories/{number}.safetensors" for number in kept} != set()
        head = max(kept)
        assert archive.read(f"memories/{head}.safetensors") == agent.store.payload(ada.key, head)
        assert [entry["action"] for entry in lines(archive, "audit.jsonl")] == ["forget", "export"]
        assert [key["label"] for key in json.loads(archive.read("api_keys.json"))] == ["phone of ada"]
        (about,) = lines(archive, "user.json")
        assert (about["tenant"], about["user"], about["turns"]) == ("default", "ada", 3)
        whole = b"".join(archive.read(name) for name in archive.namelist())
    assert b"Forget this" not in whole
    assert b"Ben" not in whole


def test_its_manifest_names_every_file_with_its_digest(agent: AgentMemory, tmp_path: Path) -> None:
    with zipfile.ZipFile(agent.for_user("ada").archive(tmp_path / "ada.zip")) as archive:
        manifest = json.loads(archive.read("manifest.json"))
        named = {name: hashlib.sha256(archive.read(name)).hexdigest() for name in archive.namelist()}
    assert manifest["personal_data"] is True
    assert {name: one["sha256"] for name, one in manifest["files"].items()} == {
        name: digest for name, digest in named.items() if name != "manifest.json"
    }


def test_who_is_unknown_or_erased_has_none(agent: AgentMemory, tmp_path: Path) -> None:
    for user in ("nobody", "ben"):
        if user == "ben":
            agent.for_user("ben").erase()
        with pytest.raises(UnknownUser):
            agent.for_user(user).archive(tmp_path / "none.zip")
    assert not (tmp_path / "none.zip").exists()


def test_it_overwrites_nothing_and_leaves_nothing_behind(agent: AgentMemory, tmp_path: Path) -> None:
    taken = tmp_path / "taken.zip"
    taken.write_bytes(b"mine")
    with pytest.raises(ExchangeError, match="there already"):
        agent.for_user("ada").archive(taken)
    assert taken.read_bytes() == b"mine"


class Moving(InMemoryStore):
    """A store in which something happens while its audit trail is read."""

    def __init__(self) -> None:
        super().__init__()
        self.meanwhile: Callable[[], None] = lambda: None

    def audit(self, key: UserKey) -> list[Any]:
        self.meanwhile()
        return super().audit(key)


def test_what_is_forgotten_meanwhile_is_in_no_archive(backbone: Backbone, tmp_path: Path) -> None:
    store = Moving()
    ada = quick_agent(backbone, store).for_user("ada")
    for text in ("one", "two", "three", "four"):
        ada.add("user", text)
    forgettable = [1]

    def forget_one() -> None:
        if forgettable:
            store.forget(ADA, [forgettable.pop()])

    store.meanwhile = forget_one
    with zipfile.ZipFile(write_archive(store, ADA, tmp_path / "ada.zip")) as archive:
        assert [turn["content"] for turn in lines(archive, "turns.jsonl")] == ["two", "three", "four"]
    forgettable[:] = [4, 3, 2]
    with pytest.raises(RevisionConflict, match="each of 3 times"):
        write_archive(store, ADA, tmp_path / "again.zip")
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix == ".zip") == ["ada.zip"]


def test_the_command_needs_no_model(tmp_path: Path, backbone: Backbone) -> None:
    url = f"sqlite:///{tmp_path / 'cli.db'}"
    with quick_agent(backbone, SqlMemoryStore(url)) as agent:
        agent.for_user("ada").add("user", "I row.")
    place = tmp_path / "ada.zip"
    made = CliRunner().invoke(app, ["archive", str(place), "--user", "ada", "--store", url, "--json", "-"])
    assert made.exit_code == 0, made.stderr
    assert json.loads(made.stdout) == {"path": str(place), "bytes": place.stat().st_size, "personal_data": True}
    refused = CliRunner().invoke(app, ["archive", str(tmp_path / "b.zip"), "--user", "ben", "--store", url])
    assert (refused.exit_code, "no turns" in refused.stderr) == (1, True)

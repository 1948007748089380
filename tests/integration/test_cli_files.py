"""Where payloads lie, how many are kept and as what: from the configuration and the command line to the store.

The backbone is a random one.
"""

from __future__ import annotations

import inspect
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from locas_agent import AgentMemory, Backbone, LocasConfig, StoreSettings
from locas_agent.cli import app
from locas_agent.errors import ConfigurationError
from locas_storage import InMemoryStore, RevisionDraft, SqlMemoryStore, TurnDraft, UserKey, open_store

ADA = UserKey("default", "ada")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'locas.db'}"


@pytest.fixture
def folder(tmp_path: Path, url: str) -> Path:
    """Ada's two payloads in a folder."""
    place = tmp_path / "payloads"
    with closing(open_store(url, files=str(place), inline_bytes=10)) as opened:
        opened.append(ADA, [TurnDraft("user", f"I said {number}.", token_count=9) for number in range(4)])
        for number in range(2):
            opened.commit(
                ADA, RevisionDraft(number, "f", "c", "0", 0, number + 1, number + 1, b"what was learnt %d" % number)
            )
    assert len(files_in(place)) == 2
    return place


def test_settings_are_those_of_the_store() -> None:
    defaults = {
        name: one.default
        for name, one in inspect.signature(open_store).parameters.items()
        if name in StoreSettings.model_fields
    }
    assert defaults == StoreSettings().model_dump() == {"keep_payloads": 3, "files": None, "inline_bytes": 32 << 20}


def test_configuration_reaches_the_store_and_stays_out_of_what_is_saved(
    backbone: Backbone, url: str, tmp_path: Path
) -> None:
    config = LocasConfig(store=StoreSettings(keep_payloads=1, files=str(tmp_path / "payloads"), inline_bytes=5))
    with AgentMemory.load(backbone, url, config) as memory:
        ada = memory.for_user("ada")
        for number in range(2):
            ada.add("user", f"I said {number}.")
            memory.store.commit(
                ada.key, RevisionDraft(number, "f", "c", "0", 0, number + 1, number + 1, b"what was learnt %d" % number)
            )
        assert [one.state for one in ada.revisions()] == ["pruned", "live"]
        assert len(files_in(tmp_path / "payloads")) == 1
    assert config.digest() == LocasConfig().digest()
    assert "payloads" not in config.model_dump_json()


def test_settings_beside_a_ready_store_are_refused(backbone: Backbone) -> None:
    with pytest.raises(ConfigurationError, match="ready store"):
        AgentMemory.load(backbone, InMemoryStore(), LocasConfig(store=StoreSettings(keep_payloads=1)))
    AgentMemory.load(backbone, InMemoryStore(), LocasConfig(store=StoreSettings())).close()


def test_commands_that_give_up_payloads_ask_for_their_files(
    url: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ("--user", "ada", "--store", url)
    for command in (["forget", "1"], ["erase"]):
        refused = run(*command, *asked)
        assert refused.exit_code == 1
        assert "--files" in refused.stderr
    assert run("verify", "--store", url).exit_code == 1
    assert run("verify", "--store", url, "--files", str(folder)).exit_code == 0
    monkeypatch.setenv("LOCAS_FILES", str(folder))
    assert run("forget", "2", *asked).exit_code == 0
    assert len(files_in(folder)) == 1
    assert run("erase", *asked).exit_code == 0
    assert files_in(folder) == []


def test_consolidation_prunes_as_it_is_told(
    url: str, folder: Path, backbone_folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, object]] = []
    made = SqlMemoryStore.__init__

    def watched(self: SqlMemoryStore, where: str, **settings: Any) -> None:
        seen.append(settings)
        made(self, where, **settings)

    monkeypatch.setattr(SqlMemoryStore, "__init__", watched)
    told = (
        "--files",
        str(folder),
        "--keep-payloads",
        "1",
        "--inline-bytes",
        "7",
        "--store",
        url,
        "--backbone",
        backbone_folder,
    )
    assert run("work", "--once", *told).exit_code == 0
    assert [{name: one[name] for name in StoreSettings.model_fields} for one in seen] == [
        {"keep_payloads": 1, "files": str(folder), "inline_bytes": 7}
    ]
    assert run("work", "--once", "--keep-payloads", "0", "--store", url).exit_code == 2

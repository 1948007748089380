"""`--ray` of `work` and `serve`: what is refused before anything begins; what it does on a cluster is a gate."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from locas_agent.cli import app
from locas_agent.cli.on_ray import shared_store
from locas_agent.errors import ConfigurationError


@pytest.mark.parametrize("command", ["work", "serve"])
def test_without_ray_the_extra_is_named(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] in ("ray", "locas_ray")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "ray", None)
    done = CliRunner().invoke(app, [command, "--ray", "--store", f"sqlite:///{tmp_path / 'locas.db'}"])
    assert (done.exit_code, f"locas-agent {command} --ray needs an optional dependency" in done.stderr) == (1, True)
    assert 'pip install "locas-agent[ray]"' in done.stderr


@pytest.mark.parametrize("command", ["work", "serve"])
def test_spans_of_many_processes_are_refused(command: str) -> None:
    done = CliRunner().invoke(app, [command, "--ray", "--traces"])
    assert (done.exit_code, "--traces sends the spans of one process" in done.stderr) == (1, True)


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:"])
def test_store_that_one_process_sees_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="no other process sees"):
        shared_store(url, traces=False)


def test_file_of_a_store_is_found_from_other_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert shared_store("sqlite:///locas.db", traces=False) == f"sqlite:///{tmp_path / 'locas.db'}"
    for same in (f"sqlite:///{tmp_path / 'locas.db'}", "postgresql+psycopg://user@host/database"):
        assert shared_store(same, traces=False) == same

"""`--config`: the settings of a program reach the commands that learn for it; a file without any is refused.

The backbone is a random one.
"""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from locas_agent import AgentMemory, LocasConfig
from locas_agent.cli import app
from locas_agent.config import TrainingSettings, WindowSettings
from locas_agent.errors import ConfigurationError
from locas_storage import TurnDraft, UserKey, open_store
from tests.conftest import MakeBackboneFolder

ADA = UserKey("default", "ada")


@pytest.fixture(scope="module")
def backbone_folder(make_backbone_folder: MakeBackboneFolder) -> str:
    return make_backbone_folder(reach=1024)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


@pytest.fixture
def url(tmp_path: Path) -> str:
    """Ada said less than the default window holds, and more than one of 16 tokens."""
    made = f"sqlite:///{tmp_path / 'locas.db'}"
    with closing(open_store(made)) as opened:
        opened.append(ADA, [TurnDraft("user", f"I said {number}.", token_count=20) for number in range(3)])
    return made


def saved(config: LocasConfig, folder: Path) -> str:
    """As a program writes its settings down for the commands beside it."""
    path = folder / "locas.json"
    path.write_text(config.model_dump_json(), encoding="utf-8")
    return str(path)


@pytest.mark.usefixtures("measured_before")
def test_overflow_is_that_of_the_window_in_the_file(url: str, backbone_folder: str, tmp_path: Path) -> None:
    told = ("consolidate", "--user", "ada", "--store", url, "--backbone", backbone_folder, "--json", "-")
    assert json.loads(run(*told).stdout)[0]["status"] == "nothing"
    narrow = saved(LocasConfig(window=WindowSettings(window_tokens=16)), tmp_path)
    assert json.loads(run(*told, "--config", narrow).stdout)[0]["status"] == "refused"  # a random backbone asks nothing


def test_evaluation_takes_the_objective_of_the_file_unless_it_is_told_another(
    backbone_folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[LocasConfig] = []

    def enough(_options: object, *, agent: AgentMemory, **_: object) -> None:
        seen.append(agent.config)
        raise ConfigurationError("what it was given is known")

    monkeypatch.setattr("locas_agent.evaluation.recall.run.run_recall", enough)
    told = (
        "eval",
        "recall",
        "--backbone",
        backbone_folder,
        "--config",
        saved(LocasConfig(training=TrainingSettings(objective="ntp")), tmp_path),
    )
    assert "is known" in run(*told).stderr
    assert "is known" in run(*told, "--objective", "sd").stderr
    assert [config.training for config in seen] == [TrainingSettings(objective="ntp"), TrainingSettings(objective="sd")]
    assert not any(config.policy.automatic for config in seen)  # the evaluation decides when


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "the file: Invalid JSON"),
        ('{"memory": {"widht": 8}}', "memory.widht: Extra inputs"),
        ('{"memory": {"width": 0}}', "memory.width: Input should be greater"),
        ('{"store": {"keep_payloads": 1}}', "--keep-payloads"),
    ],
)
@pytest.mark.parametrize(
    "command", [["chat", "--user", "ada"], ["consolidate"], ["work", "--once"], ["eval", "recall"]], ids=" ".join
)
def test_a_file_that_holds_no_settings_is_refused_before_anything_is_loaded(
    command: list[str], content: str, said: str, tmp_path: Path
) -> None:
    path = tmp_path / "locas.json"
    path.write_text(content, encoding="utf-8")
    store = f"sqlite:///{tmp_path / 'new.db'}"
    result = run(*command, "--config", str(path), "--store", store, "--backbone", "no/such/folder")
    assert result.exit_code == 1
    assert said in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "new.db").exists()


def test_a_file_that_is_not_there_is_wrong_usage(tmp_path: Path) -> None:
    assert run("work", "--once", "--config", str(tmp_path / "none.json")).exit_code == 2

"""The command `eval passages`: the whole of it on two passages, and what is refused before a backbone is loaded.

Nothing is said here of how much is remembered; that is measured, not tested.
"""

from __future__ import annotations

import json
from pathlib import Path

from typer.testing import CliRunner

from locas_agent.cli.commands import app
from locas_agent.config import LocasConfig
from tests.pictures import assert_shows

PASSAGES = Path(__file__).parents[1] / "unit" / "evaluation" / "three_passages.jsonl"
BRIEF = {
    "study": {"first_samples": 2, "samples_per_turn": 2, "max_rounds": 1, "negatives_per_piece": 2},
    "training": {"max_steps": 4, "falling_steps": 2, "anchor_tokens": 16},
    "admission": {"min_gain": 0.0, "max_old_loss": 1.0, "max_drift_nats": 9.0},
}


def test_passages_of_a_file_are_learnt_and_asked_about(tmp_path: Path) -> None:
    settings, report = tmp_path / "brief.json", tmp_path / "report.json"
    settings.write_text(LocasConfig.model_validate(BRIEF).model_dump_json(), encoding="utf-8")
    told = ("eval", "passages", str(PASSAGES), "--config", str(settings), "--limit", "2", "--without", "memory_all")
    result = CliRunner().invoke(
        app, [*told, "--sequence", "2", "--json", str(report), "--plot", str(tmp_path / "figures.svg")]
    )
    assert result.exit_code == 0, result.output
    assert "In sequence" in result.stdout
    assert "Corder" not in result.stderr
    found = json.loads(report.read_text(encoding="utf-8"))
    assert (found["kind"], found["backbone"], found["source"]) == ("passages", "tiny", "three_passages.jsonl")
    assert found["arms"].pop("memory_all") is None
    assert {name: arm["n"] for name, arm in found["arms"].items()} == dict.fromkeys(
        ("none", "raw_text", "memory", "context"), found["questions"]
    )
    assert found["passages"] == len(found["sequence"]) == 2
    assert found["seconds_per_passage"] > 0
    assert "share" in found
    assert_shows(tmp_path / "figures.svg", "raw_text", "context", "passages learnt one after another")


def test_a_file_that_is_none_of_the_schema_is_refused_before_a_backbone_is_loaded(tmp_path: Path) -> None:
    file = tmp_path / "passages.jsonl"
    file.write_text('{"mood": 1}', encoding="utf-8")
    result = CliRunner().invoke(app, ["eval", "passages", str(file), "--backbone", "no/such/folder"])
    assert result.exit_code == 1
    assert "passages.jsonl, line 1: " in result.stderr
    assert len(result.stderr.splitlines()) == 1

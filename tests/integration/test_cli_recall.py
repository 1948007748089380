"""The command `eval recall --people`: the whole of it on two people, and what is refused before a backbone is loaded.

Nothing is said here of how much is remembered; that is measured, not tested.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from locas_agent.cli.commands import app
from locas_agent.config import LocasConfig
from tests.pictures import assert_shows

PEOPLE = Path(__file__).parents[1] / "unit" / "evaluation" / "two_people.jsonl"
BRIEF = {
    "study": {"first_samples": 2, "samples_per_turn": 2, "max_rounds": 1, "negatives_per_piece": 2},
    "training": {"max_steps": 4, "falling_steps": 2, "anchor_tokens": 16},
    "admission": {"min_gain": 0.0, "max_old_loss": 1.0, "max_drift_nats": 9.0},
}
ARMS = {
    "none",
    "context",
    "context_turn",
    "full_context",
    "memory",
    "window_memory",
    "search",
    "search_memory",
    "wrong_user",
    "temp_lora",
}


def test_people_of_a_file_are_taught_and_asked(tmp_path: Path) -> None:
    settings, report = tmp_path / "brief.json", tmp_path / "report.json"
    settings.write_text(LocasConfig.model_validate(BRIEF).model_dump_json(), encoding="utf-8")
    told = ("eval", "recall", "--people", str(PEOPLE), "--config", str(settings), "--lora-users", "1")
    told = (*told, "--without", "full_context")
    result = CliRunner().invoke(
        app, [*told, "--consolidations", "2", "--json", str(report), "--plot", str(tmp_path / "figures.svg")]
    )
    assert result.exit_code == 0, result.output
    assert "retention by age" in result.stdout
    assert "Pepperpot" not in result.stderr
    found = json.loads(report.read_text(encoding="utf-8"))
    assert set(found["arms"]) == ARMS
    assert found["arms"].pop("full_context") is None
    assert {name: arm["n"] for name, arm in found["arms"].items()} == (
        {name: 21 for name in ARMS - {"full_context"}} | {"temp_lora": 15}
    )
    assert (found["source"], found["users"], found["sessions"]) == ("two_people.jsonl", 2, 2)
    assert (found["consolidations"], found["dtype"], found["width"], found["placement"]) == (2, "float32", 48, [3])
    assert set(found["reading_form"]) == {"near", "wide"}
    assert len(found["retention_by_age"]) == 8
    assert found["updated_facts"]["n"] == 3
    assert found["never_told"]["n"] == 3
    assert found["seconds_per_turn"] > 0
    assert found["cost"] > 1
    assert 0 <= found["coverage"] <= 1
    assert set(found["styles"]) == {"short", "long"}
    assert set(found["tellers"]) == {"user", "assistant"}
    assert_shows(tmp_path / "figures.svg", "context_turn", "search_memory", "oldest first")


def test_one_person_is_asked_with_nobody_elses_memory(tmp_path: Path) -> None:
    settings, report = tmp_path / "brief.json", tmp_path / "report.json"
    settings.write_text(LocasConfig.model_validate(BRIEF).model_dump_json(), encoding="utf-8")
    asked = ("eval", "recall", "--users", "1", "--sessions", "1", "--facts", "2", "--lora-users", "0")
    asked = (*asked, "--config", str(settings), "--json", str(report))
    refused = CliRunner().invoke(app, asked)
    assert (refused.exit_code, "leave the arm wrong_user out" in refused.stderr) == (1, True)
    answered = CliRunner().invoke(app, [*asked, "--without", "wrong_user", "--without", "full_context"])
    assert answered.exit_code == 0, answered.output
    found = json.loads(report.read_text(encoding="utf-8"))
    assert (found["users"], found["arms"]["wrong_user"], found["arms"]["memory"]["n"]) == (1, None, 2)


@pytest.mark.parametrize(
    ("content", "said"),
    [('{"person": "a1"', "people.jsonl, line 1: no JSON"), ('{"mood": 1}', "people.jsonl, line 1: ")],
)
def test_a_file_that_is_none_of_the_schema_is_refused_before_a_backbone_is_loaded(
    content: str, said: str, tmp_path: Path
) -> None:
    file = tmp_path / "people.jsonl"
    file.write_text(content, encoding="utf-8")
    result = CliRunner().invoke(app, ["eval", "recall", "--people", str(file), "--backbone", "no/such/folder"])
    assert result.exit_code == 1
    assert said in result.stderr
    assert len(result.stderr.splitlines()) == 1

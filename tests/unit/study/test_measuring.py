"""The measurement of a backbone: what it counts, and whom it refuses; a real one is measured elsewhere."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from locas_agent.cli import app
from locas_agent.conversation.messages import Message
from locas_agent.errors import UnsupportedBackbone
from locas_agent.inference import Engine
from locas_agent.study.forms.measuring import LEAST_READ, _facts, calibrate
from locas_agent.study.forms.reading import READING_FORMS
from locas_agent.study.matching import contains


def test_made_up_talk_tells_what_is_asked_and_where() -> None:
    facts = _facts()
    assert len(facts) >= 10
    for fact in facts:
        telling: Message = fact.session[fact.at]
        assert telling["role"] == "user"
        assert contains(telling["content"], fact.value)
        assert not contains(fact.question, fact.value)
        others = [turn["content"] for at, turn in enumerate(fact.session) if at != fact.at]
        assert not any(contains(text, fact.value) and turn_role(fact.session, text) == "user" for text in others)


def turn_role(session: tuple[Message, ...], text: str) -> str:
    return next(turn["role"] for turn in session if turn["content"] == text)


def test_backbone_that_reads_nothing_is_refused_with_the_table(engine: Engine) -> None:
    with pytest.raises(UnsupportedBackbone) as caught:
        calibrate(engine)
    for name in READING_FORMS:
        assert f"{name} 0.0" in str(caught.value)
    assert str(LEAST_READ) in str(caught.value)
    assert engine.backbone.name in str(caught.value)


def test_command_says_so_and_keeps_nothing(
    backbone_folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    result = CliRunner().invoke(app, ["calibrate", "--backbone", backbone_folder, "--device", "cpu"])
    assert result.exit_code == 1
    assert "examples 0.0" in result.stderr
    assert result.stdout == ""
    assert not (tmp_path / "cache").exists()


def test_command_prints_what_ships_for_the_bundled_backbone(tmp_path: Path) -> None:
    file = tmp_path / "calibration.json"
    result = CliRunner().invoke(app, ["calibrate", "--json", str(file)])
    assert result.exit_code == 0, result.stderr
    assert "Nothing was measured" in result.stdout
    data = json.loads(file.read_text())
    assert list(data) == ["kind", "backbone", "fingerprint", "dtype", "reading", "writing", "chosen", "seconds"]
    assert (data["kind"], data["backbone"], data["reading"], data["writing"]) == ("calibration", "tiny", [], [])
    assert data["chosen"]["writing"] == ["seed"]

"""The examples run as anybody would run them: in processes of their own, on a made-up conversation.

Knows their command lines and what they print, nothing of their insides but the reading of the data. Wrong arguments are
refused in this process: another would take seconds to import torch.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import sys
from datetime import UTC, datetime
from pathlib import Path
from subprocess import CompletedProcess
from types import ModuleType
from typing import Any

import pytest

from locas_storage import UserKey, open_store
from tests import forked
from tests.conftest import MakeBackboneFolder

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
TINY = ROOT / "locas_agent" / "backbone" / "tiny" / "model.safetensors"

# The schema of LoCoMo with made-up people: a session that is missing, a date without a session, captions, search
# queries.
KITE = {"img_url": ["x"], "blip_caption": "a photo of a red kite", "query": "secret search words", "re-download": True}


def conversation(sessions: int, turns: int) -> dict[str, Any]:
    made: dict[str, Any] = {"speaker_a": "Ilse", "speaker_b": "Marek"}
    for number in [*range(1, sessions), sessions + 1]:  # one number is left out
        made[f"session_{number}_date_time"] = f"{number}:05 pm on {number + 1} May, 2021"
        made[f"session_{number}"] = [
            {
                "speaker": ("Ilse", "Marek")[turn % 2],
                "dia_id": f"D{number}:{turn + 1}",
                "text": f"I have {number * turn} kites.",
            }
            | (KITE if turn == 1 else {})
            for turn in range(turns)
        ]
    made[f"session_{sessions + 9}_date_time"] = "12:00 am on 1 July, 2021"
    return made


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "made_up.json"
    entries = [
        {"sample_id": f"conv-{index}", "conversation": conversation(sessions, 6), "qa": []}
        for index, sessions in ((1, 2), (2, 4))
    ]
    path.write_text(json.dumps(entries), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def backbone_folder(make_backbone_folder: MakeBackboneFolder) -> str:
    return make_backbone_folder(reach=2048)


@pytest.fixture(scope="module")
def locomo() -> ModuleType:
    spec = importlib.util.spec_from_file_location("locomo_ingest", EXAMPLES / "locomo_ingest.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["locomo_ingest"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def run(name: str, *arguments: str) -> CompletedProcess[str]:
    paths = os.pathsep.join(
        [str(ROOT), str(ROOT / "storage")]
    )  # the suite also runs on a checkout that is not installed
    return forked.run(str(EXAMPLES / name), *arguments, environment=os.environ | {"PYTHONPATH": paths})


def test_turns_are_read_with_captions_and_without_queries(locomo: ModuleType, data: Path) -> None:
    name, turns = locomo.read(data, None)
    assert (name, len(turns)) == ("conv-2", 24)  # the longest, since none is long enough
    assert [turn.session for turn in turns[::6]] == ["session 1", "session 2", "session 3", "session 5"]
    assert turns[1].text == "I have 1 kites. [shares a picture: a photo of a red kite]"
    assert turns[0].at == datetime(2021, 5, 2, 13, 5, tzinfo=UTC)
    assert not any("secret" in turn.text for turn in turns)
    assert locomo.read(data, "conv-1")[0] == "conv-1"
    with pytest.raises(SystemExit, match="conv-3"):
        locomo.read(data, "conv-3")


@pytest.mark.slow
@pytest.mark.usefixtures("measured_before")
def test_locomo_ingest_loses_nothing_to_a_kill(data: Path, backbone_folder: str, tmp_path: Path) -> None:
    store = tmp_path / "locomo.db"
    done = run(
        "locomo_ingest.py",
        str(data),
        "--backbone",
        backbone_folder,
        "--objective",
        "self_study",
        "--store",
        str(store),
        "--json",
        "-",
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["conversation"], report["turns"], report["sessions"]) == ("conv-2", 24, 4)
    assert report["journal_exact"]
    assert (report["kill"]["at"], report["kill"]["lost"], report["unaccounted_turns"]) == (12, 0, 0)
    assert 12 <= report["kill"]["journalled"] < 24  # it was killed on the way
    assert report["admitted"] + report["refused"] >= 1
    assert sum(report["reasons"].values()) == report["admitted"] + report["refused"]
    assert report["turns_per_second"] > 0
    assert report["latency"]["ratio"] > 0
    keys = [turn.idempotency_key for turn in open_store(f"sqlite:///{store}").turns(UserKey("default", "conv-2"))]
    assert len(keys) == len(set(keys)) == 24  # the questions that were timed left no trace


@pytest.mark.slow
def test_locomo_ingest_admits_what_a_random_backbone_reads(data: Path, backbone_folder: str) -> None:
    done = run(
        "locomo_ingest.py",
        str(data),
        "--conversation",
        "conv-1",
        "--backbone",
        backbone_folder,
        "--objective",
        "ntp",
        "--kill-at",
        "3",
    )
    assert done.returncode == 0, done.stderr
    for line in (
        "turns per second",
        "admitted",
        "drift of admitted",
        "reply at turn",
        "ratio",
        "killed at turn 3",
        "every turn once, in order",
    ):
        assert line in done.stdout


def test_locomo_ingest_checks_its_arguments_first(
    locomo: ModuleType,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    there = tmp_path / "there.db"
    there.touch()
    for wrong, complaint in (
        (("--kill-at", "99"), "the conversation has 24 turns, got 99"),
        (("--store", str(there)), "is there already"),
    ):
        monkeypatch.setattr(sys, "argv", ["locomo_ingest.py", str(data), *wrong])
        with pytest.raises(SystemExit) as ended:
            locomo.main()
        assert ended.value.code == 2
        assert complaint in capsys.readouterr().err


@pytest.mark.slow
def test_quickstart_says_so_when_a_backbone_cannot_learn(backbone_folder: str) -> None:
    done = run("quickstart.py", "--backbone", backbone_folder)
    assert done.returncode == 1
    assert "This backbone cannot learn: " in done.stderr
    assert "Traceback" not in done.stderr
    assert "-- a new process --" not in done.stdout


@pytest.mark.slow
@pytest.mark.skipif(not TINY.exists(), reason="the bundled backbone has not been trained yet")
def test_quickstart_is_answered_from_the_weights_alone() -> None:
    done = run("quickstart.py")
    told, _, asked = done.stdout.partition("-- a new process --")
    assert told.count("memory: admitted") == 2, done.stdout + done.stderr
    values = {"What is my dog called?": ("ada", "Zorbin"), "With which code does my locker open?": ("ben", "4071")}
    found = re.findall(r"asked of (\w+)'s memory: (.+) -> (.*) \(from", asked)
    assert len(found) == 4
    right = {(user, question): values[question][1] in answer for user, question, answer in found}
    own = [(user, question) for question, (user, _) in values.items()]
    # One of two: rounding may cost a training its fact, and neither would be answered without the memories.
    assert any(right[each] for each in own)
    assert not any(is_right for each, is_right in right.items() if each not in own)
    assert done.returncode in (0, 1)

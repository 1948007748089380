"""Where a scribe comes from: it is taught once for each backbone, and what was kept is checked before it is used."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from locas_agent.consolidation import scribes
from locas_agent.inference import Engine
from locas_agent.memory import LocasMemory
from tests.conftest import MakeMemory
from tests.unit.evaluation.peer_tasks import neutral_text


class Course:
    """Counts how often a scribe was taught."""

    def __init__(self, scribe: LocasMemory) -> None:
        self.scribe, self.taught = scribe, 0

    def __call__(self, *_: object, **__: object) -> LocasMemory:
        self.taught += 1
        return self.scribe


@pytest.fixture
def course(make_memory: MakeMemory, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Course:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    given = Course(make_memory(1))
    monkeypatch.setattr(scribes, "teach_scribe", given)
    return given


def kept(folder: Path) -> Path:
    (found,) = (folder / "locas-agent" / "scribes").iterdir()
    return found


def test_a_scribe_is_taught_once(engine: Engine, course: Course, tmp_path: Path) -> None:
    first = scribes.scribe_of(engine, None, neutral_text(engine))
    second = scribes.scribe_of(engine, None, neutral_text(engine))
    assert course.taught == 1
    assert torch.equal(first.slab, second.slab)
    assert engine.backbone.fingerprint in kept(tmp_path).name


@pytest.mark.parametrize(
    "spoil", [lambda data: data[: len(data) // 2], lambda data: data[:-1] + b"\xff", lambda _: b""]
)
def test_a_damaged_file_is_taught_anew(engine: Engine, course: Course, tmp_path: Path, spoil: object) -> None:
    scribes.scribe_of(engine, None, neutral_text(engine))
    path = kept(tmp_path)
    assert callable(spoil)
    path.write_bytes(spoil(path.read_bytes()))
    scribes.scribe_of(engine, None, neutral_text(engine))
    assert course.taught == 2
    assert scribes.known(engine.backbone.fingerprint) is not None


def test_a_folder_that_takes_no_file_costs_only_the_next_course(engine: Engine, course: Course, tmp_path: Path) -> None:
    (tmp_path / "locas-agent").write_text("a file where a folder should be")
    scribes.scribe_of(engine, None, neutral_text(engine))
    scribes.scribe_of(engine, None, neutral_text(engine))
    assert course.taught == 2


def test_a_large_backbone_on_a_cpu_is_taught_only_when_asked(
    engine: Engine, course: Course, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert scribes.is_worth_waiting_for(engine.backbone)
    monkeypatch.setattr(scribes, "TAUGHT_ON_CPU", 10)
    assert not scribes.is_worth_waiting_for(engine.backbone)
    scribes.scribe_of(engine, None, neutral_text(engine))
    assert scribes.is_worth_waiting_for(engine.backbone)

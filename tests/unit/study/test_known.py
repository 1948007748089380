"""Where a calibration comes from: settings, the package, the user's cache folder, a measurement."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from locas_agent.backbone import Backbone
from locas_agent.config import FormSettings, LocasConfig, StudySettings
from locas_agent.consolidation.learner import Learner
from locas_agent.errors import ConfigurationError
from locas_agent.inference import Engine
from locas_agent.study.forms import known
from locas_agent.study.forms.calibration import VERSION, Calibration, Chosen, ReadingScore

CHOSEN = Chosen(near="text", wide="chat", writing=("later", "ask"), min_confidence=0.2)


class Measuring:
    """Stands in for the measurement, and counts."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self, engine: Engine) -> Calibration:
        self.times += 1
        return Calibration(fingerprint=engine.backbone.fingerprint, dtype="float32", chosen=CHOSEN, seconds=1.5)


@pytest.fixture
def measuring(monkeypatch: pytest.MonkeyPatch) -> Measuring:
    made = Measuring()
    monkeypatch.setattr(known, "calibrate", made)
    return made


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of this test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def kept(cache: Path) -> list[Path]:
    return sorted(path for path in cache.rglob("*") if path.is_file())


def test_suite_keeps_off_the_users_cache(user_cache: Path) -> None:
    assert known._path("0").is_relative_to(user_cache)


def test_measured_once_and_read_from_then_on(engine: Engine, measuring: Measuring, cache: Path) -> None:
    first = known.calibration_of(engine, StudySettings())
    again = known.calibration_of(engine, StudySettings())
    assert first == again
    assert measuring.times == 1
    assert (first.near.name, first.wide.name) == ("text", "chat")
    assert [form.name for form in first.writers] == ["later", "ask"]
    (file,) = kept(cache)
    assert file.stem == engine.backbone.fingerprint
    assert set(json.loads(file.read_text())) == set(Calibration.model_fields)


def test_learner_measures_at_its_first_use(engine: Engine, measuring: Measuring, cache: Path) -> None:
    learner = Learner(engine, LocasConfig())
    assert measuring.times == 0
    assert learner.calibration.chosen == learner.calibration.chosen == CHOSEN
    assert measuring.times == 1


@pytest.mark.parametrize(
    "change",
    [
        {"version": VERSION + 1},
        {"fingerprint": "of another"},
        {"unheard": "of"},
        {"chosen": CHOSEN.model_dump() | {"near": "gone"}},
        {"chosen": CHOSEN.model_dump() | {"writing": ["ask", "gone"]}},
        {"chosen": CHOSEN.model_dump() | {"writing": []}},
    ],
)
def test_file_that_does_not_fit_is_measured_anew(
    engine: Engine, measuring: Measuring, cache: Path, change: dict[str, object]
) -> None:
    good = known.calibration_of(engine, StudySettings())
    (file,) = kept(cache)
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    assert known.calibration_of(engine, StudySettings()) == good
    assert measuring.times == 2
    assert Calibration.model_validate_json(file.read_text()) == good  # replaced


@pytest.mark.parametrize("content", [b"", b'{"version": 1, "finge', b"\xff\xfe\x00", b"[]"])
def test_broken_file_is_measured_anew(engine: Engine, measuring: Measuring, cache: Path, content: bytes) -> None:
    good = known.calibration_of(engine, StudySettings())
    (file,) = kept(cache)
    file.write_bytes(content)
    assert known.calibration_of(engine, StudySettings()) == good
    assert measuring.times == 2


def test_folder_that_cannot_be_written_does_no_harm(
    engine: Engine,
    measuring: Measuring,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    assert known.calibration_of(engine, StudySettings()).chosen == CHOSEN
    assert [record.message for record in caplog.records] == ["calibration not kept"]
    assert blocked.read_text() == "no folder"


def test_the_bundled_backbone_is_known_without_a_file(measuring: Measuring, cache: Path) -> None:
    tiny = Backbone.load("tiny", device="cpu")
    found = known.calibration_of(Engine(tiny), StudySettings())
    assert found == known.shipped(tiny.fingerprint)
    assert (found.writers, found.near.name) == ((), "chat")
    assert (measuring.times, kept(cache)) == (0, [])


def test_what_this_machine_measured_goes_before_what_ships(engine: Engine, measuring: Measuring, cache: Path) -> None:
    known.calibration_of(engine, StudySettings())
    (file,) = kept(cache)
    tiny = Backbone.load("tiny", device="cpu").fingerprint
    own = json.loads(file.read_text()) | {"fingerprint": tiny}
    file.with_stem(tiny).write_text(json.dumps(own))
    assert known.known(tiny) == Calibration.model_validate(own) != known.shipped(tiny)
    file.with_stem(tiny).write_text("broken")
    assert known.known(tiny) == known.shipped(tiny)


def test_forms_by_hand_measure_nothing(engine: Engine, measuring: Measuring, cache: Path) -> None:
    by_hand = FormSettings(reading="plain", writing=("examples",))
    found = known.calibration_of(engine, StudySettings(forms=by_hand, min_confidence=0.1))
    assert (found.near.name, found.wide.name, found.chosen.min_confidence) == ("plain", "plain", 0.1)
    assert [form.name for form in found.writers] == ["examples"]
    wide = FormSettings(reading="plain", reading_wide="notes", writing=("ask",))
    assert known.calibration_of(engine, StudySettings(forms=wide)).wide.name == "notes"
    assert (measuring.times, kept(cache)) == (0, [])


@pytest.mark.parametrize(
    ("forms", "named"),
    [
        (FormSettings(reading="loud"), "'loud'"),
        (FormSettings(reading_wide="far"), "'far'"),
        (FormSettings(reading="loud", reading_wide="far", writing=("ask", "scrawl")), "'loud', 'far', 'scrawl'"),
        (FormSettings(writing=("seed", "ask")), "'seed'"),  # a protocol of its own, which stands alone
    ],
)
def test_forms_by_hand_that_there_are_not_are_refused_before_anything_is_learnt(
    engine: Engine, forms: FormSettings, named: str
) -> None:
    settings = StudySettings(forms=forms)
    for use in (
        lambda: known.calibration_of(engine, settings),
        lambda: Learner(engine, LocasConfig().model_copy(update={"study": settings})),
    ):
        with pytest.raises(ConfigurationError, match=f"got {named}, expected .*chat, text.*ask, later.*seed alone"):
            use()


@pytest.mark.parametrize(
    ("scores", "good"),
    [({"text": 0.93, "chat": 0.4}, "text"), ({"text": 0.71, "chat": 1.0}, None), ({}, None)],
    ids=["the chosen form reads well", "another does", "not measured"],
)
def test_a_good_reader_is_one_whose_chosen_form_was_measured_to_read_well(
    scores: dict[str, float], good: str | None
) -> None:
    reading = tuple(ReadingScore(form=form, near=near, wide=1.0) for form, near in scores.items())
    found = Calibration(fingerprint="f", dtype="float32", reading=reading, chosen=CHOSEN).good_reader
    assert (None if found is None else found.name) == good

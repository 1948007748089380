"""Where a calibration comes from: the settings, what ships with the package, what this machine measured before, or now.

A measurement takes seconds to minutes and depends on the backbone alone, so it is done once and kept by fingerprint, in
a JSON file of the user's cache folder. It holds names of forms and figures, nothing that anybody said.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from locas_agent.config import FormSettings, StudySettings
from locas_agent.errors import ConfigurationError
from locas_agent.inference import Engine
from locas_agent.machine_files import keep, place_of
from locas_agent.study.forms.calibration import VERSION, Calibration, Chosen
from locas_agent.study.forms.measuring import calibrate
from locas_agent.study.forms.reading import READING_FORMS
from locas_agent.study.forms.writing import SEED, WRITING_FORMS


def calibration_of(engine: Engine, settings: StudySettings) -> Calibration:
    """Return the calibration of a backbone, measuring it where nobody has.

    Args:
        engine: of the backbone.
        settings: forms that they name are taken as they are, and nothing is measured.

    Raises:
        ConfigurationError: the settings name a form that there is not.
        UnsupportedBackbone: the backbone reads nothing, see `calibrate`.
    """
    if settings.forms is not None:
        chosen = _by_hand(settings.forms, settings.min_confidence)
        dtype = str(engine.backbone.dtype).removeprefix("torch.")
        return Calibration(fingerprint=engine.backbone.fingerprint, dtype=dtype, chosen=chosen)
    return known(engine.backbone.fingerprint) or measured(engine)


def known(fingerprint: str) -> Calibration | None:
    """Return what was measured before, here or else by us; None where nothing of use was."""
    try:
        found = Calibration.model_validate_json(_path(fingerprint).read_bytes())
    except (OSError, ValidationError):
        return shipped(fingerprint)
    is_current = found.version == VERSION and found.fingerprint == fingerprint
    return found if is_current and not found.chosen.unknown else shipped(fingerprint)


def shipped(fingerprint: str) -> Calibration | None:
    """Return what ships with the package for a backbone; None for all but the bundled one and a few that we use."""
    return next((each for each in _shipped() if each.fingerprint == fingerprint), None)


def measured(engine: Engine) -> Calibration:
    """Measure a backbone now, and keep the result for the next time."""
    found = calibrate(engine)
    keep(_path(found.fingerprint), found.model_dump_json(indent=1).encode(), what="calibration", action="calibrate")
    return found


def check_forms(settings: StudySettings) -> None:
    """Raise `ConfigurationError` where the settings name a form that there is not; nothing is measured."""
    if settings.forms is not None:
        _by_hand(settings.forms, settings.min_confidence)


def _by_hand(forms: FormSettings, min_confidence: float) -> Chosen:
    chosen = Chosen(
        near=forms.reading,
        wide=forms.reading_wide or forms.reading,
        writing=forms.writing,
        min_confidence=min_confidence,
    )
    if chosen.unknown:
        raise ConfigurationError(
            f"study.forms: got {', '.join(map(repr, chosen.unknown))}, expected for reading one of "
            f"{', '.join(READING_FORMS)}, for writing some of {', '.join(WRITING_FORMS)}, or {SEED} alone"
        )
    return chosen


def _path(fingerprint: str) -> Path:
    return place_of("calibrations", f"{fingerprint}.json")


@cache
def _shipped() -> tuple[Calibration, ...]:
    text = files("locas_agent.study.forms").joinpath("shipped.json").read_text(encoding="utf-8")
    return tuple(TypeAdapter(list[Calibration]).validate_json(text))

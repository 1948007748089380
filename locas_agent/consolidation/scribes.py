"""Where a scribe comes from: what ships with the package, what this machine taught before, or a course now.

A course takes minutes and depends on the backbone alone, so it is done once and kept by fingerprint, in a file of the
user's cache folder. The file holds rows that were trained on our made-up turns, nothing that anybody said.
"""

from __future__ import annotations

import logging
from importlib.resources import files
from pathlib import Path

from locas_agent.backbone import Backbone
from locas_agent.config import StoredAs
from locas_agent.consolidation.course import teach_scribe
from locas_agent.errors import CorruptPayload, IncompatibleMemory
from locas_agent.inference import Engine
from locas_agent.machine_files import keep, place_of
from locas_agent.memory import LocasMemory
from locas_agent.memory.serialization import as_stored, from_bytes, to_bytes
from locas_agent.training.loss.last_layer import LastLayer
from locas_agent.training.neutral import NeutralText
from locas_agent.types import Progress

logger = logging.getLogger(__name__)

VERSION = 5
"""Of the course: of its lessons, its forms and its settings. What another taught is taught again."""
TAUGHT_ON_CPU = 1_500_000_000
"""Parameters up to which a course on a CPU is begun without being asked for: an hour or two at most. Larger backbones
write better by themselves, and `locas-agent calibrate --teach` teaches them all the same."""
KEPT_AS: StoredAs = "int8"
"""How the numbers of a scribe are kept."""


def is_worth_waiting_for(backbone: Backbone) -> bool:
    """Tell whether a scribe is known, or taught in minutes: on a GPU, or on a CPU where the backbone is small."""
    small = sum(parameter.numel() for parameter in backbone.model.parameters()) <= TAUGHT_ON_CPU
    return small or backbone.device.type != "cpu" or known(backbone.fingerprint) is not None


def scribe_of(
    engine: Engine, last_layer: LastLayer | None, neutral: NeutralText, *, progress: Progress | None = None
) -> LocasMemory:
    """Return the scribe of a backbone, teaching it where nobody has.

    Args:
        engine: of the backbone.
        last_layer: its end, None where it is built in a way not known.
        neutral: text on this backbone.
        progress: told of "course" while one is taught.
    """
    found = known(engine.backbone.fingerprint)
    if found is not None:
        return found
    logger.info("a scribe is taught, once for this backbone; it takes minutes", extra={"action": "course"})
    scribe = as_stored(teach_scribe(engine, last_layer, neutral, progress=progress), dtype=KEPT_AS)
    keep(_path(scribe.fingerprint), to_bytes(scribe, dtype=KEPT_AS), what="scribe", action="course")
    return scribe


def known(fingerprint: str) -> LocasMemory | None:
    """Return what was taught before, here or by us; None where nothing of use was."""
    shipped = files("locas_agent.study.scribe").joinpath(f"taught/{fingerprint}.safetensors")
    for place in (shipped, _path(fingerprint)):
        try:
            return from_bytes(place.read_bytes(), expect_fingerprint=fingerprint)
        except OSError:
            continue
        except (CorruptPayload, IncompatibleMemory) as error:
            logger.warning("scribe not read", extra={"action": "course", "reason": type(error).__name__})
    return None


def _path(fingerprint: str) -> Path:
    return place_of("scribes", f"{fingerprint}-{VERSION}.safetensors")

"""The command `calibrate`: which forms of reading and writing a backbone does best in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import RenderableType

from locas_agent.cli.model import BackboneOption, DeviceOption, DtypeOption
from locas_agent.cli.options import JsonOption
from locas_agent.cli.output import deliver, progress_bar, table

if TYPE_CHECKING:
    from locas_agent.study.forms.calibration import Calibration


def calibrate(
    backbone: BackboneOption = "tiny",
    device: DeviceOption = None,
    dtype: DtypeOption = "auto",
    teach: Annotated[bool, typer.Option("--teach", help="Teach its scribe as well, where nobody has.")] = False,
    json: JsonOption = None,
) -> None:
    """Measure which forms a backbone reads and writes, and keep what study will use.

    It is measured again, and what this machine kept of the backbone is replaced. A backbone that reads nothing fails,
    with the table. The bundled one was trained on a protocol of its own: what ships for it is printed, and nothing is
    measured.
    """
    from locas_agent.backbone import Backbone
    from locas_agent.config import LocasConfig
    from locas_agent.consolidation.learner import Learner
    from locas_agent.inference import Engine
    from locas_agent.study.forms.known import measured, shipped

    loaded = Backbone.load(backbone, device=device, dtype=dtype)
    found, engine = shipped(loaded.fingerprint), Engine(loaded)
    if found is None or found.writers:
        found = measured(engine)
    if teach and found.writers:
        with progress_bar() as progress:
            Learner(engine, LocasConfig()).teach_scribe(progress=progress)
    data = {"kind": "calibration", "backbone": loaded.name, **found.model_dump(mode="json", exclude={"version"})}
    deliver(json, data, *_shown(found))


def _shown(found: Calibration) -> list[RenderableType]:
    """Return the measurement as people read it."""
    chosen = found.chosen
    rows = [
        ("reads one turn", chosen.near),
        ("reads a session", chosen.wide),
        ("writes", ", ".join(chosen.writing)),
        ("believes from", f"{chosen.min_confidence:g}"),
    ]
    if not found.reading:
        measured: list[RenderableType] = [
            "Nothing was measured: this backbone was trained on the forms that ship for it."
        ]
    else:
        measured = [
            table(["reading", "near", "wide"], [[each.form, each.near, each.wide] for each in found.reading]),
            table(["writing", "kept", "covered"], [[each.form, each.kept, each.covered] for each in found.writing]),
        ]
    return [*measured, table(["chosen", "form"], rows)]

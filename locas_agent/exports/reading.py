"""Reading an export of any form back: what it is is told by what lies there."""

from __future__ import annotations

from pathlib import Path

from locas_agent.backbone import Backbone
from locas_agent.errors import CorruptPayload, ExchangeError, IncompatibleMemory
from locas_agent.exports.dense import read_dense
from locas_agent.exports.lora import read_lora
from locas_agent.exports.manifest import Manifest, read_beside
from locas_agent.exports.portable import read_portable
from locas_agent.memory import LocasMemory


def read_export(backbone: Backbone, path: str | Path) -> tuple[Manifest, LocasMemory]:
    """Read the memory of an export: a portable file, or the folder of a dense checkpoint or an adapter.

    Args:
        backbone: the one the export was made from; not the exported checkpoint.
        path: what the export wrote.

    Returns:
        Manifest and memory, on the CPU. A portable file gives the memory bit for bit, the others within the rounding of
        their dtype.

    Raises:
        ExchangeError: nothing is there.
        CorruptPayload: it is no export, or was altered.
        IncompatibleMemory: it belongs to another backbone.
    """
    place = Path(path).expanduser()
    if place.is_file():
        return read_portable(backbone, place)
    if not place.is_dir():
        raise ExchangeError(f"there is no file or folder {str(path)!r} to import from")
    manifest = read_beside(place)
    if manifest.fingerprint != backbone.fingerprint:
        raise IncompatibleMemory(
            f"the export belongs to the backbone with fingerprint {manifest.fingerprint[:12]} ({manifest.backbone}), "
            f"{backbone.name!r} has "
            f"{backbone.fingerprint[:12]}; load the backbone it was made from"
        )
    if manifest.form == "memory" or not manifest.digests or -manifest.placement[0] > backbone.n_layers:
        raise CorruptPayload(f"{place.name!r}: the manifest does not describe a folder of this backbone")
    reader = read_dense if manifest.form == "dense" else read_lora
    return manifest, reader(backbone, place, manifest)

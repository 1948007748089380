"""The portable form: one file with a memory's own bytes and a manifest, for another machine or another store.

The file is a ZIP archive without compression of two entries, so that any tool can look into it.
"""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

from locas_agent.backbone import Backbone
from locas_agent.errors import CorruptPayload
from locas_agent.exports.manifest import MANIFEST_NAME, MAX_MANIFEST_BYTES, Manifest
from locas_agent.exports.places import check_free, placed
from locas_agent.memory import LocasMemory
from locas_agent.memory.batch import check_fits
from locas_agent.memory.serialization import from_bytes, to_bytes

PAYLOAD = "memory.safetensors"
MAX_PAYLOAD_BYTES = 1 << 30
"""Largest memory read, that which a store takes; the floors allow no import of the store's number, a test holds them
equal. One of 128 slots beside all layers of an 8B backbone takes 216 MiB."""


def write_portable(backbone: Backbone, memory: LocasMemory, path: str | Path, *, revision: int | None = None) -> Path:
    """Write a memory and its manifest, marked as personal data.

    Args:
        backbone: the one the memory belongs to.
        memory: comes back bit for bit, its rows clipped.
        path: a file that is not there yet.
        revision: number of the user's revision, for the manifest.

    Returns:
        The file.

    Raises:
        ExchangeError: the place refuses it.
        IncompatibleMemory: the memory belongs to another backbone, or holds values that are not finite.
    """
    place = check_free(path)
    check_fits(memory, backbone)
    payload = to_bytes(memory)
    manifest = Manifest.of(
        backbone, memory, "memory", revision=revision, digests={PAYLOAD: hashlib.sha256(payload).hexdigest()}
    )
    with placed(place) as draft, zipfile.ZipFile(draft, "x", compression=zipfile.ZIP_STORED) as archive:
        archive.comment = b"personal data"
        archive.writestr(MANIFEST_NAME, manifest.model_dump_json(indent=2) + "\n")
        archive.writestr(PAYLOAD, payload)
    return place


def read_portable(backbone: Backbone, path: Path) -> tuple[Manifest, LocasMemory]:
    """Read a portable file; nothing is used before all of it has been checked.

    Args:
        backbone: the one the memory must belong to.
        path: the file.

    Raises:
        CorruptPayload: it is no such file, or was altered.
        IncompatibleMemory: it is for another backbone, or written by a later release.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            limits = {MANIFEST_NAME: MAX_MANIFEST_BYTES, PAYLOAD: MAX_PAYLOAD_BYTES}
            entries = archive.infolist()
            is_sound = sorted(entry.filename for entry in entries) == sorted(limits) and all(
                entry.compress_type == zipfile.ZIP_STORED and entry.file_size <= limits[entry.filename]
                for entry in entries
            )
            if not is_sound:
                raise CorruptPayload(
                    f"{path.name!r} is no portable memory: {MANIFEST_NAME} and {PAYLOAD} were looked for, uncompressed"
                )
            manifest, payload = Manifest.parse(archive.read(MANIFEST_NAME)), archive.read(PAYLOAD)
    except (
        OSError,
        EOFError,
        zipfile.BadZipFile,
        RuntimeError,
        NotImplementedError,
    ) as error:  # the last two: encrypted, or a method zipfile lacks
        raise CorruptPayload(f"{path.name!r} is no portable memory that can be read: {type(error).__name__}") from error
    if manifest.form != "memory" or manifest.digests != {PAYLOAD: hashlib.sha256(payload).hexdigest()}:
        raise CorruptPayload(f"{path.name!r}: the memory's bytes are not those its manifest speaks of")
    memory = from_bytes(payload, expect_fingerprint=backbone.fingerprint)
    check_fits(memory, backbone)
    return manifest, memory

"""What stands beside every export: which memory it holds, for which backbone, and that it is personal data.

Everything that reading a form back needs beyond its tensors is in here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from locas_agent.errors import CorruptPayload, IncompatibleMemory
from locas_agent.memory import LocasMemory
from locas_agent.memory.slab import topmost
from locas_agent.types import Initialization

if TYPE_CHECKING:
    from locas_agent.backbone import Backbone
    from locas_agent.backbone.ffn import GatedFfn

Form = Literal["dense", "lora", "memory"]

MANIFEST_NAME = "locas_export.json"
"""The manifest's name in a folder; its presence marks the folder as one person's data."""

CARD_NAME = "README.md"
"""The card beside it, for people."""

MAX_MANIFEST_BYTES = 16 << 20
"""Largest manifest read; neuron indices of 36 layers of 512 slots take about 100 KB."""

NOTICE = (
    "Personal data of one user. Parts of what this user told can be drawn out of these weights. Store, pass on and "
    "delete this export as you "
    "would the conversations themselves. Forgetting and erasing in locas-agent do not reach it."
)
"""What every export says about itself."""


class Manifest(BaseModel):
    """One export described."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    format: Literal["locas-export"] = "locas-export"
    """Tells our manifests from other JSON."""
    format_version: Literal[1, 2] = 1
    """Of this description, not of the tensors."""
    form: Form
    """`dense`, `lora` or `memory`."""
    personal_data: Literal[True] = True
    """For programs that look for such files."""
    notice: str = NOTICE
    """The same for people."""
    backbone: str
    """What the backbone was called where the export was made; a folder's own name, without the path to it."""
    fingerprint: str
    """Of that backbone; the memory fits no other."""
    created_at: datetime
    """When it was written, UTC."""
    revision: int | None = None
    """Number of the user's revision it holds, if it came from a store."""
    n_layers: int = Field(ge=1)
    """Layers that carry the memory."""
    layers: tuple[Annotated[int, Field(lt=0)], ...] | None = Field(None, exclude_if=lambda layers: layers is None)
    """Their numbers from the last, -1; not written where they are the topmost."""
    width: int = Field(ge=1)
    """Slots per layer."""
    hidden_size: int = Field(ge=1)
    """Numbers per row."""
    slots: int = Field(0, ge=0)
    """Neurons added to every FFN: the width and the zeros up to the multiple asked for; 0 in the form `memory`."""
    initialization: Initialization
    """How the memory's first rows were chosen."""
    scale: list[float]
    """Output scale of each layer; in the down rows of a dense or LoRA export it is multiplied in."""
    neuron_indices: list[list[Annotated[int, Field(ge=-1, lt=2**31)]]]
    """Backbone neuron each slot was cloned from, -1 where none was."""
    digests: dict[str, str]
    """SHA-256 of each file with tensors, by its name."""

    @classmethod
    def of(
        cls,
        backbone: Backbone,
        memory: LocasMemory,
        form: Form,
        *,
        revision: int | None,
        slots: int = 0,
        digests: Mapping[str, str],
    ) -> Manifest:
        """Describe an export that has just been written.

        Args:
            backbone: the one the memory belongs to.
            memory: what was written.
            form: how.
            revision: number of the user's revision, None for a memory of no store.
            slots: neurons added to every FFN.
            digests: of the files.
        """
        name = Path(backbone.name)
        is_topmost = memory.layers == topmost(memory.n_layers)
        return cls(
            format_version=1 if is_topmost else 2,
            form=form,
            backbone=name.name if name.is_absolute() else backbone.name,
            fingerprint=backbone.fingerprint,
            created_at=datetime.now(UTC).replace(microsecond=0),
            revision=revision,
            n_layers=memory.n_layers,
            layers=None if is_topmost else memory.layers,
            width=memory.width,
            hidden_size=memory.hidden_size,
            slots=slots,
            initialization=memory.initialization,
            scale=memory.scale.tolist(),
            neuron_indices=memory.neuron_indices.tolist(),
            digests=dict(digests),
        )

    @classmethod
    def parse(cls, data: bytes) -> Manifest:
        """Read a manifest.

        Raises:
            CorruptPayload: it is none, or its parts contradict each other.
            IncompatibleMemory: a later release wrote it.
        """
        if len(data) > MAX_MANIFEST_BYTES:
            raise CorruptPayload(f"a manifest of {len(data)} bytes, at most {MAX_MANIFEST_BYTES} are read")
        try:
            manifest = cls.model_validate_json(data)
        except ValidationError as error:
            wrong = sorted({".".join(str(part) for part in each["loc"]) or "all of it" for each in error.errors()})
            if "format_version" in wrong:
                raise IncompatibleMemory(
                    "the export's format version is not 1 or 2; use the release that wrote it"
                ) from None
            raise CorruptPayload(
                f"the manifest of the export is damaged or none of ours: {', '.join(wrong[:8])}"
            ) from None
        shape = (len(manifest.scale), len(manifest.neuron_indices), {len(row) for row in manifest.neuron_indices})
        if shape != (manifest.n_layers, manifest.n_layers, {manifest.width}):
            raise CorruptPayload(
                f"the manifest names {manifest.n_layers} layers of {manifest.width} slots; its scale or neuron indices "
                "differ"
            )
        if manifest.placement != tuple(sorted(set(manifest.placement))) or len(manifest.placement) != manifest.n_layers:
            raise CorruptPayload(f"the manifest names {manifest.n_layers} layers; their numbers differ")
        return manifest

    def memory(self, slab: torch.Tensor) -> LocasMemory:
        """Put rows that were read from an export together with what the manifest knows of them.

        Args:
            slab: shape (L, 3, W, D), any float dtype.

        Raises:
            CorruptPayload: another shape than the manifest names, or values that are not finite.
        """
        expected = (self.n_layers, 3, self.width, self.hidden_size)
        scale = torch.tensor(self.scale, dtype=torch.float32)
        if slab.shape != expected:
            raise CorruptPayload(f"the export's rows have shape {tuple(slab.shape)}, its manifest names {expected}")
        if not (torch.isfinite(slab).all() and torch.isfinite(scale).all()):
            raise CorruptPayload("the export holds values that are not finite; export the memory again")
        indices = torch.tensor(self.neuron_indices, dtype=torch.int64)
        return LocasMemory(
            slab.float().contiguous(), scale, indices, self.fingerprint, self.initialization, self.placement
        )

    @property
    def placement(self) -> tuple[int, ...]:
        """The layers that carry the memory, numbered from the last (-1)."""
        return topmost(self.n_layers) if self.layers is None else self.layers

    def sites(self, backbone: Backbone) -> list[GatedFfn]:
        """The FFNs of a backbone beside which the memory stands, the lowest first."""
        return [backbone.sites[layer] for layer in self.placement]


def digest_of(path: Path) -> str:
    """SHA-256 of a file, hexadecimal, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_beside(folder: Path, manifest: Manifest) -> None:
    """Write the manifest and a card into a folder that holds an export's tensors."""
    (folder / MANIFEST_NAME).write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
    card = (
        f"---\nbase_model: {manifest.backbone}\ntags:\n- locas-agent\n- personal-data\n---\n\n"
        f"# Personal data\n\n{manifest.notice}\n\n"
        f"A memory of {manifest.width} slots beside {manifest.n_layers} layers of `{manifest.backbone}`, as "
        f"`{manifest.form}`. "
        f"`{MANIFEST_NAME}` says the rest.\n"
    )
    (folder / CARD_NAME).write_text(card, encoding="utf-8")


def read_beside(folder: Path) -> Manifest:
    """Read the manifest of a folder and check every file it names against its digest.

    Raises:
        CorruptPayload: no manifest, a damaged one, or a file that is missing or altered.
    """
    path = folder / MANIFEST_NAME
    if not path.is_file() or path.stat().st_size > MAX_MANIFEST_BYTES:
        raise CorruptPayload(f"{folder.name!r} is no export: a file {MANIFEST_NAME} was looked for")
    manifest = Manifest.parse(path.read_bytes())
    for name, digest in manifest.digests.items():
        file = folder / name
        if Path(name).name != name or not file.is_file() or digest_of(file) != digest:
            raise CorruptPayload(
                f"{folder.name!r}: {Path(name).name!r} is missing, or its bytes are not those that were written; "
                "export it again"
            )
    return manifest

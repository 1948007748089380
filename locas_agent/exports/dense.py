"""The dense form: one person's memory written into the weights of a standard checkpoint, and read back out of it.

The checkpoint loads in plain transformers, without this package.

Shapes: L layers that carry the memory, N neurons of the backbone's FFN, W width, D hidden size.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import PreTrainedModel

from locas_agent.backbone import Backbone
from locas_agent.errors import CorruptPayload
from locas_agent.exports.manifest import Manifest, digest_of, write_beside
from locas_agent.exports.places import check_free, placed
from locas_agent.exports.widening import check_same, folded_rows, slots_for, widened
from locas_agent.memory import LocasMemory

_WEIGHTS = "model.safetensors"
_INDEX = "model.safetensors.index.json"


def merge(backbone: Backbone, memory: LocasMemory, *, multiple: int = 1) -> PreTrainedModel:
    """Write a memory into a copy of the backbone.

    Rows appended to the gate and up projections, columns to the down projection.

    One person's memory only: merging several into one checkpoint mixes people and lowers what each answers.

    Args:
        backbone: stays as it is.
        memory: of this backbone.
        multiple: the FFN's width is rounded up to a multiple of this with neurons of zeros. Quantisers with groups of
            128 need 128, servers with tensor parallelism that times their number of devices.

    Returns:
        A plain transformers model; in fp32 its logits are those of the attached memory within 1e-5.

    Raises:
        IncompatibleMemory: the memory belongs to another backbone.
        ExchangeError: this architecture cannot hold it.
        ConfigurationError: `multiple` is under 1.

    Source: arXiv 2602.05085; clip and output scale are multiplied in.
    """
    model = widened(backbone, folded_rows(backbone, memory, slots_for(backbone, memory.width, multiple=multiple)))
    check_same(backbone, memory, model)
    return model


def write_dense(
    backbone: Backbone, memory: LocasMemory, path: str | Path, *, multiple: int = 1, revision: int | None = None
) -> Path:
    """Write a standard checkpoint with the memory merged, the tokenizer, and a manifest that marks it as personal data.

    Args:
        backbone: the one the memory belongs to.
        memory: what is merged.
        path: a folder that is not there yet.
        multiple: as in `merge`.
        revision: number of the user's revision, for the manifest.

    Returns:
        The folder.

    Raises:
        ExchangeError: the architecture or the place refuses it; nothing is left behind.
        IncompatibleMemory: the memory belongs to another backbone.
    """
    place = check_free(path)
    slots = slots_for(backbone, memory.width, multiple=multiple)
    model: Any = merge(backbone, memory, multiple=multiple)
    model.config.locas_personal_data = (
        True  # a third mark, for those who pass on the weights without the files beside them
    )
    with placed(place) as folder:
        digests = write_checkpoint(backbone, model, folder)
        write_beside(folder, Manifest.of(backbone, memory, "dense", revision=revision, slots=slots, digests=digests))
    return place


def write_checkpoint(backbone: Backbone, model: Any, folder: Path) -> dict[str, str]:
    """Save a model and the backbone's tokenizer; return the SHA-256 of each file with weights."""
    model.save_pretrained(folder)
    backbone.tokenizer.save_pretrained(folder)
    return {file.name: digest_of(file) for file in sorted(folder.glob("*.safetensors"))}


def read_dense(backbone: Backbone, folder: Path, manifest: Manifest) -> LocasMemory:
    """Take the memory out of a dense checkpoint again.

    Args:
        backbone: the one it was merged into.
        folder: of the checkpoint.
        manifest: says where the appended neurons are; its digests were checked.

    Returns:
        The memory, its rows clipped; the down rows went through a product and a quotient with the scale, so they come
        back within the rounding of the checkpoint's dtype.

    Raises:
        CorruptPayload: tensors are missing or have other shapes.
    """
    names = {id(module): name for name, module in backbone.model.named_modules()}
    scale = torch.tensor(manifest.scale)
    layers = []
    for site, tau in zip(manifest.sites(backbone), scale, strict=True):
        added = site.n_neurons, site.n_neurons + manifest.width
        wide = [_tensor(folder, f"{names[id(part)]}.weight") for part in site.gate_up]
        gate_up = wide if len(wide) == 2 else list(wide[0].chunk(2))
        down = _tensor(folder, f"{names[id(site.down_proj)]}.weight").t() / torch.where(
            tau > 0, tau, torch.ones_like(tau)
        )
        layers.append([part[added[0] : added[1]] for part in (*gate_up, down)])
    try:
        slab = torch.stack([torch.stack(parts) for parts in layers])
    except RuntimeError as error:
        raise CorruptPayload(
            f"{folder.name!r}: the checkpoint's FFNs have other shapes than its manifest says"
        ) from error
    return manifest.memory(slab)


def _tensor(folder: Path, name: str) -> Tensor:
    """Read one tensor of a checkpoint of one file or several, as fp32."""
    index = folder / _INDEX
    try:
        file = json.loads(index.read_text(encoding="utf-8"))["weight_map"][name] if index.is_file() else _WEIGHTS
        with safe_open(folder / Path(str(file)).name, framework="pt") as opened:
            tensor: Tensor = opened.get_tensor(name)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise CorruptPayload(f"{folder.name!r}: the checkpoint has no tensor {name!r} that can be read") from error
    return tensor.float()

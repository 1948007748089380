"""The LoRA form: one person's memory as an adapter that PEFT and LoRA servers load.

It stands on the backbone with zero-padded FFNs, which is written once for everybody.

Padded by S zero neurons the backbone computes what it did. An adapter then gives W of them their weights. With gate
rows G, up rows U and down rows V, clip and output scale multiplied in, rank W and alpha W:

| module | A | B |
|---|---|---|
| `gate_proj`, `up_proj` | G, U, shape (W, D) | [0 ; I ; 0], shape (N + S, W) |
| `down_proj` | [0, I, 0], shape (W, N + S) | V transposed, shape (D, W) |
| `gate_up_proj`, one product for both: rank 2W | [G ; U] | the two columns of blocks |

The padded layer applies the activation itself, so the function is that of the side FFN, exactly.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from locas_agent.backbone import Backbone
from locas_agent.backbone.ffn import GatedFfn
from locas_agent.errors import CorruptPayload
from locas_agent.exports.manifest import CARD_NAME, MANIFEST_NAME, NOTICE, Manifest, digest_of, write_beside
from locas_agent.exports.padded import check_padded, write_padded_base
from locas_agent.exports.places import check_free, placed
from locas_agent.exports.widening import folded_rows, slots_for
from locas_agent.memory import LocasMemory
from locas_agent.memory.slab import DOWN, GATE, UP

ADAPTER = "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"
BASE_FOLDER = "base"
"""Where the padded backbone lies below an adapter that was given none."""


def write_lora(
    backbone: Backbone,
    memory: LocasMemory,
    path: str | Path,
    *,
    base: str | Path | None = None,
    multiple: int = 1,
    revision: int | None = None,
) -> Path:
    """Write one person's adapter in PEFT's files, marked as personal data.

    The padded backbone is written too where there is none yet.

    Args:
        backbone: the one the memory belongs to.
        memory: what the adapter computes.
        path: a folder that is not there yet.
        base: the padded backbone: one written before, which may be wider than this memory, or the place for a new one;
            None puts it into the adapter's folder. Servers want one for all users.
        multiple: the width of a new padded backbone is rounded up to a multiple of this.
        revision: number of the user's revision, for the manifest.

    Returns:
        The folder of the adapter.

    Raises:
        ExchangeError: the architecture or the place refuses it, or `base` is another backbone or too narrow.
        IncompatibleMemory: the memory belongs to another backbone.
    """
    place = check_free(path)
    padded = place / BASE_FOLDER if base is None else Path(base).expanduser().absolute()
    is_there = padded.exists()
    slots = (
        check_padded(padded, backbone, memory.width)
        if is_there
        else slots_for(backbone, memory.width, multiple=multiple)
    )
    rows = folded_rows(backbone, memory, slots)
    if base is not None and not is_there:
        write_padded_base(backbone, padded, slots=slots)
    with placed(place) as folder:
        folder.mkdir()
        save_file(
            adapter_tensors(backbone, rows, memory),
            folder / ADAPTER,
            metadata={"format": "pt", "personal_data": "true", "notice": NOTICE},
        )
        (folder / ADAPTER_CONFIG).write_text(
            json.dumps(_config(backbone, memory, padded), indent=2) + "\n", encoding="utf-8"
        )
        if base is None:
            write_padded_base(backbone, folder / BASE_FOLDER, slots=slots)
        digests = {ADAPTER: digest_of(folder / ADAPTER)}
        write_beside(folder, Manifest.of(backbone, memory, "lora", revision=revision, slots=slots, digests=digests))
    return place


def adapter_tensors(backbone: Backbone, rows: Tensor, memory: LocasMemory) -> dict[str, Tensor]:
    """The adapter's A and B of each module, by PEFT's names, in the backbone's dtype.

    Args:
        backbone: gives names and sizes.
        rows: from `folded_rows`, shape (L, 3, S, D).
        memory: gives width and layers; only those that carry it get an adapter.
    """
    names = {id(module): name for name, module in backbone.model.named_modules()}
    width, slots = memory.width, rows.shape[2]
    tensors: dict[str, Tensor] = {}
    for site, own in ((backbone.sites[layer], rows[layer, :, :width]) for layer in memory.layers):
        total = site.n_neurons + slots
        chosen = torch.zeros(total, width)  # picks the memory's neurons among all
        chosen[site.n_neurons : site.n_neurons + width] = torch.eye(width)
        modules = {id(site.down_proj): (chosen.t(), own[DOWN].t())}
        if len(site.gate_up) == 2:
            modules |= {id(part): (row, chosen) for part, row in zip(site.gate_up, (own[GATE], own[UP]), strict=True)}
        else:
            none = torch.zeros_like(chosen)
            both = torch.cat([torch.cat([chosen, none], dim=1), torch.cat([none, chosen], dim=1)])
            modules[id(site.gate_up[0])] = (torch.cat([own[GATE], own[UP]]), both)
        rank = adapter_rank(site, width)
        for module, (a, b) in modules.items():
            a, b = _filled(a, (rank, a.shape[1])), _filled(b, (b.shape[0], rank))
            for letter, tensor in (("A", a), ("B", b)):
                tensors[f"base_model.model.{names[module]}.lora_{letter}.weight"] = tensor.to(
                    backbone.dtype
                ).contiguous()
    return tensors


def adapter_rank(site: GatedFfn, width: int) -> int:
    """Rank of every module's adapter: the width, or twice that where one product serves gate and up.

    Servers want one rank for all modules.
    """
    return width if len(site.gate_up) == 2 else 2 * width


def read_lora(backbone: Backbone, folder: Path, manifest: Manifest) -> LocasMemory:
    """Take the memory out of an adapter again.

    Args:
        backbone: the one it was made for.
        folder: of the adapter.
        manifest: its digests were checked.

    Returns:
        The memory, its rows clipped; the down rows come back within the rounding of a product and a quotient with the
        scale.

    Raises:
        CorruptPayload: tensors are missing or have other shapes.
    """
    names = {id(module): f"base_model.model.{name}" for name, module in backbone.model.named_modules()}
    width = manifest.width
    try:
        tensors = load_file(folder / ADAPTER)
        layers = []
        for site, tau in zip(manifest.sites(backbone), manifest.scale, strict=True):
            gate_up = torch.cat([tensors[f"{names[id(part)]}.lora_A.weight"] for part in site.gate_up])
            down = tensors[f"{names[id(site.down_proj)]}.lora_B.weight"][:, :width].t().float() / (
                tau if tau > 0 else 1.0
            )
            layers.append(torch.stack([gate_up[:width].float(), gate_up[width : 2 * width].float(), down]))
        slab = torch.stack(layers)
    except (OSError, KeyError, RuntimeError, SafetensorError) as error:
        raise CorruptPayload(
            f"{folder.name!r}: the adapter's tensors are missing or have other shapes than its manifest says"
        ) from error
    return manifest.memory(slab)


def blank_adapter(folder: Path) -> None:
    """Put an adapter that changes nothing in the place of a person's, for a server that may read the folder again.

    It has the same modules, of one rank and zeros; the manifest goes, since nobody's memory is left.
    """
    with safe_open(folder / ADAPTER, framework="pt") as opened:
        shapes = {name: opened.get_slice(name).get_shape() for name in opened.keys()}
        dtype = next(opened.get_tensor(name).dtype for name in shapes)
    ranked = {name: [1, shape[1]] if ".lora_A." in name else [shape[0], 1] for name, shape in shapes.items()}
    draft = folder / f".{ADAPTER}"
    save_file({name: torch.zeros(shape, dtype=dtype) for name, shape in ranked.items()}, draft)
    draft.replace(folder / ADAPTER)
    for name in (MANIFEST_NAME, CARD_NAME):
        (folder / name).unlink(missing_ok=True)


def _filled(tensor: Tensor, shape: tuple[int, int]) -> Tensor:
    """The tensor with zeros after it, up to a shape."""
    made = torch.zeros(shape)
    made[: tensor.shape[0], : tensor.shape[1]] = tensor
    return made


def _config(backbone: Backbone, memory: LocasMemory, padded: Path) -> dict[str, Any]:
    """PEFT's `adapter_config.json`."""
    site = backbone.sites[memory.layers[0]]
    rank = adapter_rank(site, memory.width)
    targets = {
        name.rsplit(".", 1)[-1]
        for name, module in backbone.model.named_modules()
        if module in (*site.gate_up, site.down_proj)
    }
    config: dict[str, Any] = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": str(padded),
        "inference_mode": True,
        "r": rank,
        "lora_alpha": rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "target_modules": sorted(targets),
    }
    if memory.n_layers < backbone.n_layers:
        config |= {
            "layers_to_transform": [backbone.n_layers + layer for layer in memory.layers],
            "layers_pattern": "layers",
        }
    return config

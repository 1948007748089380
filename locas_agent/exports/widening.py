"""A copy of the backbone whose FFNs have more neurons: those of a memory, or zeros.

Appended rows compute what a side FFN computes (arXiv 2602.05085; the output scale is multiplied into the down columns),
and a neuron whose output column is zero computes nothing, so padding is exact.

Shapes: L layers of the backbone, S slots added to each FFN, W width, N neurons of the backbone's FFN, D hidden size.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from locas_agent.backbone import Backbone
from locas_agent.backbone.ffn import GatedFfn, find_ffns
from locas_agent.backbone.hooks import uninstall
from locas_agent.errors import ConfigurationError, ExchangeError
from locas_agent.inference import Engine
from locas_agent.memory import LocasMemory, MemoryBatch
from locas_agent.memory.batch import check_fits
from locas_agent.memory.slab import effective_rows

PROBE_TOKENS = 24
"""Tokens on which a widened copy is compared with what it stands for."""

_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.15, torch.float16: 0.03}
"""Largest difference of logits, relative to the largest logit. Sums over N + S neurons run in another order than over N
and W apart: rounding of that size is expected, an FFN that does something else with its neurons is off by more."""


def slots_for(backbone: Backbone, width: int, *, multiple: int) -> int:
    """How many neurons to add so that every FFN's width is divisible by `multiple`, at least `width`.

    Raises:
        ConfigurationError: `multiple` is under 1.
        ExchangeError: the backbone's layers differ in width, which no common config of transformers can say of the
            result.
    """
    if multiple < 1:
        raise ConfigurationError(f"multiple is at least 1, got {multiple}")
    widths = [site.n_neurons for site in backbone.sites]
    _check_widths(backbone, widths)
    return -(-(widths[0] + width) // multiple) * multiple - widths[0]


def folded_rows(backbone: Backbone, memory: LocasMemory, slots: int) -> Tensor:
    """The memory's rows for every layer of the backbone.

    Clipped, scale multiplied in, zeros where it stands beside no layer.

    Returns:
        Shape (L, 3, S, D), fp32, on the CPU.

    Raises:
        IncompatibleMemory: the memory belongs to another backbone.
        ExchangeError: it holds values that are not finite.
    """
    check_fits(memory, backbone)
    rows = torch.zeros(backbone.n_layers, 3, slots, backbone.hidden_size)
    rows[list(memory.layers), :, : memory.width] = effective_rows(memory.slab.detach(), memory.scale).cpu()
    if not torch.isfinite(rows).all():
        raise ExchangeError(
            "the memory holds values that are not finite and cannot be exported; roll back to the former revision"
        )
    return rows


def widened(backbone: Backbone, rows: Tensor) -> PreTrainedModel:
    """A plain transformers model with more neurons in every FFN; the backbone stays as it is.

    All layers are widened alike, those without a memory by zeros: a config of transformers holds one width for all.

    Args:
        backbone: copied on its device, in its dtype.
        rows: the new neurons of each layer, shape (L, 3, S, D), fp32; axis 1 is gate, up, down.

    Returns:
        The copy, frozen, in evaluation mode, without hooks of ours.

    Raises:
        ExchangeError: this architecture cannot hold FFNs of that width.
    """
    model: Any = copy.deepcopy(backbone.model)
    uninstall(model)
    for site, (gate, up, down) in zip(find_ffns(model.get_decoder(), name=backbone.name), rows, strict=True):
        _append(site, gate, up, down)
    _check_widths(backbone, [site.n_neurons for site in backbone.sites])
    set_width(model.config, rows.shape[2])
    _check_rebuilds(backbone, model)
    model.requires_grad_(False)
    return model  # type: ignore[no-any-return]


@torch.no_grad()
def check_same(backbone: Backbone, memory: LocasMemory | None, model: Any) -> float:
    """Compare a widened copy with the backbone and its attached memory on a few tokens.

    It is tried out, not guessed from names: an FFN that treats its neurons together, by a norm or a threshold over all
    of them, passes every check of shapes.

    Returns:
        The largest difference of logits.

    Raises:
        ExchangeError: they are different functions.
    """
    words = min(backbone.vocab_size, model.get_input_embeddings().weight.shape[0])
    count = min(PROBE_TOKENS, backbone.context_tokens)
    ids = torch.randint(0, words, (1, count), generator=torch.Generator().manual_seed(0)).to(backbone.device)
    batch = None if memory is None else MemoryBatch.of([memory], backbone)
    expected = Engine(backbone).logits(ids, memory=batch).float()
    difference = float((model(input_ids=ids, use_cache=False).logits.float() - expected).abs().max())
    limit = _TOLERANCE.get(backbone.dtype, 1e-4) * max(1.0, float(expected.abs().max()))
    if not difference <= limit:
        raise ExchangeError(
            f"appended neurons do not compute in {type(model).__name__} what the memory computes beside it: logits "
            f"differ by {difference:.2g}, "
            f"at most {limit:.2g} is rounding; use form='memory'"
        )
    return difference


def _append(site: GatedFfn, gate: Tensor, up: Tensor, down: Tensor) -> None:
    """Append neurons to one FFN, each of shape (S, D)."""
    if not all(isinstance(part, nn.Linear) for part in (*site.gate_up, site.down_proj)):
        kinds = ", ".join(type(part).__name__ for part in (*site.gate_up, site.down_proj))
        raise ExchangeError(
            f"neurons are appended to plain linear layers, this FFN has {kinds}; load the backbone without adapters or "
            "quantisation"
        )
    if len(site.gate_up) == 1:  # one product for both: all gate rows, then all up rows
        _extend_rows(site.gate_up[0], [gate, up])
    else:
        _extend_rows(site.gate_up[0], [gate])
        _extend_rows(site.gate_up[1], [up])
    module: Any = site.module
    down_proj: Any = site.down_proj
    weight = torch.cat([down_proj.weight.data, down.t().to(down_proj.weight)], dim=1)
    down_proj.weight = nn.Parameter(weight)
    down_proj.in_features = weight.shape[1]
    if hasattr(module, "intermediate_size"):
        module.intermediate_size = weight.shape[1]


def _extend_rows(linear: Any, extras: list[Tensor]) -> None:
    """Append output rows to each equal part of a linear layer; their bias is zero."""
    parts = zip(linear.weight.data.chunk(len(extras)), extras, strict=True)
    weight = torch.cat([piece for part, extra in parts for piece in (part, extra.to(part))])
    if linear.bias is not None:
        halves = linear.bias.data.chunk(len(extras))
        linear.bias = nn.Parameter(
            torch.cat([piece for half in halves for piece in (half, half.new_zeros(extras[0].shape[0]))])
        )
    linear.weight = nn.Parameter(weight)
    linear.out_features = weight.shape[0]


def _check_widths(backbone: Backbone, widths: list[int]) -> None:
    """Raise unless the config says what the layers are, in one number or in one for each layer, all alike."""
    named = getattr(backbone.config, "intermediate_size", None)
    told = list(named) if isinstance(named, list | tuple) else [named] * len(widths)
    if told != widths or len(set(widths)) > 1:
        found = ", ".join(str(width) for width in sorted(set(widths)))
        raise ExchangeError(
            f"the layers of {backbone.name!r} have FFNs of {found} neurons and its config says "
            f"intermediate_size={named!r}: a standard "
            "checkpoint holds one width for all layers; use form='memory'"
        )


def set_width(config: Any, slots: int) -> None:
    """Let a config of transformers say that every FFN has so many neurons more, or fewer."""
    config = config.get_text_config(decoder=True)
    named = config.intermediate_size
    config.intermediate_size = [width + slots for width in named] if isinstance(named, list | tuple) else named + slots


def _check_rebuilds(backbone: Backbone, model: Any) -> None:
    """Raise unless the architecture, built from the new config, asks for the very tensors the copy has."""
    with torch.device("meta"):
        fresh = type(model)(copy.deepcopy(model.config))
    wanted = {name: tuple(tensor.shape) for name, tensor in fresh.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    wrong = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
    if wrong:
        raise ExchangeError(
            f"{type(model).__name__} cannot hold a wider FFN: built again it differs in {len(wrong)} tensors, such as "
            f"{wrong[0]}; use form='memory'"
        )

"""A decoder of which only some layers run, the others keeping their places.

The decoder's own forward serves: it makes masks, rotary positions and scalings as it always does, whatever family it is
of. Nothing of the shared decoder is changed: a part is a shallow copy with the same weights and hooks, made for one
forward, so forwards of several threads do not meet.

Shapes: B input rows, T tokens, D hidden size.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn


class _Skipped(nn.Module):
    """Stands in a layer's place: gives what it is given, or a state of its own; what else it is asked, the layer has.

    Decoders read attributes of their layers, such as the kind of their attention.
    """

    def __init__(self, layer: nn.Module, state: Tensor | None) -> None:
        super().__init__()
        self.__dict__ |= {"layer": layer, "state": state}  # not registered: a submodule of one decoder is enough

    def forward(self, hidden_states: Tensor, *_args: object, **_options: object) -> Tensor:
        state: Tensor | None = self.__dict__["state"]
        return hidden_states if state is None else state

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["layer"], name)


def lower_part(decoder: Any, first: int) -> Any:
    """Return a decoder whose layers from `first` on are passed by: its final norm gets what enters that layer."""
    layers = decoder.layers
    return _with_layers(decoder, [*layers[:first], *(_Skipped(layer, None) for layer in layers[first:])])


def upper_part(decoder: Any, first: int, states: Tensor) -> Any:
    """Return a decoder whose layers below `first` all give the same states, whatever is put in.

    Args:
        decoder: with a list `layers`.
        first: the lowest layer that runs, from 0 on.
        states: what enters it, shape (B, T, D); above 0 only, the embedding is a matter of the decoder.
    """
    layers = decoder.layers
    return _with_layers(decoder, [*(_Skipped(layer, states) for layer in layers[:first]), *layers[first:]])


def _with_layers(decoder: Any, layers: Sequence[nn.Module]) -> Any:
    part = copy.copy(decoder)
    part._modules = {**decoder._modules, "layers": nn.ModuleList(layers)}
    return part

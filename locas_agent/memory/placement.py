"""Beside which layers a new memory stands: from what the settings say to numbers of layers.

It reads no weights: the number of layers is all it is told of a backbone.
"""

from __future__ import annotations

from locas_agent.config import Layers
from locas_agent.errors import ConfigurationError
from locas_agent.memory.slab import topmost

LAST_LAYER = (-1,)
DEEP_FROM = 12
"""Layers from which a backbone counts as deep: beside the last of them alone a memory learns too little
(`docs/decisions.md`, placement)."""


def placement(layers: Layers, n_layers: int) -> tuple[int, ...]:
    """Return the layers that `memory.layers` means on a backbone.

    Args:
        layers: the setting.
        n_layers: of the backbone.

    Returns:
        Numbers from the last, which is -1; ascending.

    Raises:
        ConfigurationError: the backbone has no such layers.
    """
    if layers == "auto":
        return topmost(1 if n_layers < DEEP_FROM else round(n_layers / 3))
    if layers is None or layers == "all":
        return topmost(n_layers)
    if isinstance(layers, str):
        start, end = (float(part) for part in layers.split("-"))
        first = min(round(start * n_layers), n_layers - 1)
        return tuple(range(first - n_layers, max(first + 1, round(end * n_layers)) - n_layers))
    wanted = topmost(layers) if isinstance(layers, int) else tuple(number - n_layers for number in sorted(layers))
    if -wanted[0] > n_layers or wanted[-1] >= 0:
        raise ConfigurationError(
            f"memory.layers is {layers}, the backbone has {n_layers} layers, numbered from 0: choose among those"
        )
    return wanted

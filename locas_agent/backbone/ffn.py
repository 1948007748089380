"""Gated FFNs of a frozen decoder, found by structure: where a memory can stand.

A kind of FFN is an object that recognises it (`FfnKind`); `KINDS` lists those that are tried. A FFN whose projections
have other names is one more line there.

Shapes: L layers, N neurons of the FFN, D hidden size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn

from locas_agent.errors import UnsupportedBackbone


@dataclass(frozen=True, eq=False)
class GatedFfn:
    """One frozen gated FFN beside which a memory can stand.

    Attributes:
        module: the FFN; its input is A, its output FFN(A).
        activation: its own gate activation, SiLU or a GELU.
        gate_up: (gate, up) projections, or the single fused projection whose first half is gate.
        down_proj: its output projection.
    """

    module: nn.Module
    activation: Callable[[Tensor], Tensor]
    gate_up: tuple[nn.Module, ...]
    down_proj: nn.Module

    def gate_rows(self) -> Tensor:
        """Gate vector of every neuron, shape (N, D); a view of the frozen weight."""
        return _weight(self.gate_up[0])[: self.n_neurons]

    def up_rows(self) -> Tensor:
        """Up vector of every neuron, shape (N, D); a view of the frozen weight."""
        return _weight(self.gate_up[-1])[-self.n_neurons :]

    def down_rows(self) -> Tensor:
        """Output vector of every neuron, shape (N, D): `down_proj.weight` transposed, a view."""
        return _weight(self.down_proj).t()

    @property
    def n_neurons(self) -> int:
        """N, the FFN's width."""
        return _weight(self.down_proj).shape[1]


class FfnKind(Protocol):
    """One kind of gated FFN."""

    def site(self, module: nn.Module) -> GatedFfn | None:
        """Return a module as a site, or None where it is no FFN of this kind."""


@dataclass(frozen=True, slots=True)
class NamedProjections:
    """A gated FFN whose projections have these names, with its activation beside them.

    A quantised weight, for example, has no shape that fits, and is not recognised.

    Attributes:
        gate_up: names of the gate and the up projection, or of the fused one whose first half is gate.
        down: name of the output projection.
        activations: names the activation may have.
    """

    gate_up: tuple[str, ...]
    down: str = "down_proj"
    activations: tuple[str, ...] = ("act_fn", "activation_fn")

    def site(self, module: nn.Module) -> GatedFfn | None:
        """See `FfnKind.site`."""
        found = (getattr(module, name, None) for name in self.activations)
        activation = next((one for one in found if callable(one)), None)
        parts = [getattr(module, name, None) for name in (*self.gate_up, self.down)]
        modules = [
            part for part in parts if isinstance(part, nn.Module) and isinstance(getattr(part, "weight", None), Tensor)
        ]
        if activation is None or len(modules) != len(parts):
            return None
        shapes = [tuple(_weight(part).shape) for part in modules]
        if any(len(shape) != 2 for shape in shapes):
            return None
        size, neurons = shapes[-1]
        halves = 2 // len(self.gate_up)
        if shapes[:-1] != [(halves * neurons, size)] * len(self.gate_up):
            return None
        return GatedFfn(module=module, activation=activation, gate_up=tuple(modules[:-1]), down_proj=modules[-1])


KINDS: tuple[FfnKind, ...] = (NamedProjections(("gate_up_proj",)), NamedProjections(("gate_proj", "up_proj")))
"""The kinds that are looked for: one fused projection as in Phi-3, two as in Qwen3, Llama, Mistral and Gemma."""


def find_ffns(decoder: nn.Module, *, name: str, kinds: Sequence[FfnKind] = KINDS) -> tuple[GatedFfn, ...]:
    """Find the gated FFN of every decoder layer by its parts, whatever the classes are called.

    Args:
        decoder: the module that holds the embedding and the list `layers`.
        name: what messages call the backbone.
        kinds: which kinds of FFN are looked for.

    Returns:
        One site per layer, in order.

    Raises:
        UnsupportedBackbone: says what was looked for and what was found.
    """
    layers = getattr(decoder, "layers", None)
    if not isinstance(layers, nn.ModuleList) or len(layers) == 0:
        parts = ", ".join(child for child, _ in decoder.named_children())
        raise UnsupportedBackbone(f"{name!r}: looked for a list of decoder layers called 'layers', found only {parts}")
    return tuple(_find_site(layer, f"layer {index} of {name!r}", kinds) for index, layer in enumerate(layers))


def _find_site(layer: nn.Module, where: str, kinds: Sequence[FfnKind]) -> GatedFfn:
    modules = dict(layer.named_modules())
    experts = [path for path in modules if "expert" in path.rsplit(".", 1)[-1]]
    if experts:
        raise UnsupportedBackbone(
            f"{where}: looked for one dense gated FFN, found a mixture of experts ({experts[0]}); choose a dense "
            "backbone"
        )
    found = [site for module in modules.values() for kind in kinds if (site := kind.site(module)) is not None]
    if len(found) == 1:
        return found[0]
    linears = [
        f"{path} {tuple(module.weight.shape)}" for path, module in modules.items() if isinstance(module, nn.Linear)
    ]
    raise UnsupportedBackbone(
        f"{where}: looked for one gated FFN (gate_proj, up_proj, down_proj or gate_up_proj, down_proj, with act_fn or "
        f"activation_fn), found {len(found)} among {', '.join(linears) or 'no linear layers'}; "
        "choose a backbone such as Qwen3, Llama, Mistral, Gemma or Phi-3; for experiments on plain ReLU FFNs (OPT) "
        "there is "
        "locas_agent.paper.mlp.ReluBackbone"
    )


def _weight(module: nn.Module) -> Tensor:
    weight = module.weight
    assert isinstance(weight, Tensor)
    return weight.detach()

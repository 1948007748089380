"""The one way into a forward of a frozen model.

A forward may carry an `Intercept`, which sees each FFN and may change what it puts out.

What a forward carries is an argument, never state of a module. Hooks are installed once per model and never change;
what they read is a ContextVar that is set for exactly one forward, so forwards of several threads or tasks on one model
do not see each other's intercepts. Swapping hooks per call instead would race with a forward under way in another
thread.

Shapes: B input rows, T tokens, D hidden size, N neurons of the FFN.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import Tensor, nn

Observer = Callable[[int, Tensor], None]
"""Receives a layer index and the intermediate activations of its FFN, shape (B, T, N), or its input, (B, T, D)."""
Recorder = Callable[[str, Tensor], None]
"""Receives "ffn_input" and "ffn_output" of the last layer and "residual", what enters the final norm; shape (B, T, D)
each."""


class Intercept:
    """What a forward carries.

    Each method is called as the forward comes by, and does nothing unless a subclass overrides it.
    """

    def inputs(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Return the arguments with which the decoder is to be called; asked only of intercepts that `reside` chose."""
        return arguments

    def intermediate(self, layer: int, values: Tensor) -> None:
        """Look at the intermediate activations of a layer's FFN, shape (B, T, N)."""

    def ffn(self, layer: int, hidden: Tensor, output: Tensor) -> Tensor | None:
        """Return what a layer's FFN is to put out for its input, shape (B, T, D).

        None leaves it as it is, bit for bit.
        """
        return None

    def residual(self, hidden: Tensor) -> None:
        """Look at what enters the final norm, shape (B, T, D)."""


class Observing(Intercept):
    """Shows the intermediate activations of every FFN to an observer."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer

    def intermediate(self, layer: int, values: Tensor) -> None:
        """Show them."""
        self._observer(layer, values)


class Entering(Intercept):
    """Shows the input of every FFN to an observer."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer

    def ffn(self, layer: int, hidden: Tensor, output: Tensor) -> None:
        """Show it, shape (B, T, D)."""
        self._observer(layer, hidden)


class Recording(Intercept):
    """Shows the last FFN's input and output, and what enters the final norm, to a recorder."""

    def __init__(self, recorder: Recorder, *, last_layer: int) -> None:
        self._recorder = recorder
        self._last_layer = last_layer

    def ffn(self, layer: int, hidden: Tensor, output: Tensor) -> None:
        """Record the last layer's."""
        if layer == self._last_layer:
            self._recorder("ffn_input", hidden)
            self._recorder("ffn_output", output)

    def residual(self, hidden: Tensor) -> None:
        """Record it."""
        self._recorder("residual", hidden)


class FfnEnds(NamedTuple):
    """Where one FFN begins and ends.

    The module that takes its input, the one that takes its intermediates, the one that gives its output.
    """

    first: nn.Module
    down: nn.Module
    last: nn.Module


@dataclass(frozen=True)
class _Forward:
    """What the hooks of one model read during one forward.

    It also holds the inputs of FFNs whose beginning and end are different modules.
    """

    key: object
    intercept: Intercept
    entered: dict[int, Tensor] = field(default_factory=dict)


_FORWARD: ContextVar[_Forward | None] = ContextVar("locas_forward", default=None)


def install(ffns: Sequence[FfnEnds], final_norm: object = None) -> object:
    """Register the hooks of one model, once in its life.

    Args:
        ffns: of each layer, from the first on.
        final_norm: whose input is shown as the residual; anything but a module is passed over.

    Returns:
        The key by which this model's hooks know that a forward is theirs.
    """
    key = object()
    for layer, ends in enumerate(ffns):
        if ends.first is not ends.last:
            ends.first.register_forward_pre_hook(_keep_input(key, layer))
        ends.down.register_forward_pre_hook(_show_intermediate(key, layer))
        ends.last.register_forward_hook(_intercept_ffn(key, layer, is_whole=ends.first is ends.last))
    if isinstance(final_norm, nn.Module):
        final_norm.register_forward_pre_hook(_show_residual(key))
    return key


def uninstall(model: nn.Module) -> None:
    """Remove our hooks from a copied model, since a copy carries them along; hooks of others stay."""
    for module in model.modules():
        for hooks in (module._forward_hooks, module._forward_pre_hooks):
            for number in [number for number, hook in hooks.items() if getattr(hook, "__module__", None) == __name__]:
                del hooks[number]


@contextmanager
def carrying(key: object, intercept: Intercept | None) -> Iterator[None]:
    """Let the forwards inside the block, in this thread or task, carry an intercept.

    Used around exactly one forward; never keep it open across a `yield` to a caller.

    Args:
        key: of the model that is meant, from `install`.
        intercept: None leaves the model bare, bit for bit, even inside another such block.
    """
    token = _FORWARD.set(None if intercept is None else _Forward(key, intercept))
    try:
        yield
    finally:
        _FORWARD.reset(token)


def reside(decoder: Any, key: object, choose: Callable[[tuple[Any, ...], dict[str, Any]], Intercept | None]) -> None:
    """Let every forward of a decoder carry an intercept, no matter who calls it.

    For private copies that trainers of others call.

    Args:
        decoder: of a model that nobody else uses; its `forward` is wrapped.
        key: of this model, from `install`.
        choose: from the arguments of a forward to what it carries; None leaves that forward as its caller made it.
    """
    bare = decoder.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        intercept = choose(args, kwargs)
        if intercept is None:
            return bare(*args, **kwargs)
        with carrying(key, intercept):
            return bare(*args, **intercept.inputs(kwargs))

    decoder.forward = forward


def _carried(key: object) -> _Forward | None:
    forward = _FORWARD.get()
    return forward if forward is not None and forward.key is key else None


def _keep_input(key: object, layer: int) -> Callable[[nn.Module, Any], None]:
    def hook(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
        if (forward := _carried(key)) is not None:
            forward.entered[layer] = args[0]

    return hook


def _intercept_ffn(key: object, layer: int, *, is_whole: bool) -> Callable[[nn.Module, Any, Any], Tensor | None]:
    def hook(_module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
        if (forward := _carried(key)) is None:
            return None
        return forward.intercept.ffn(layer, args[0] if is_whole else forward.entered.pop(layer), output)

    return hook


def _show_intermediate(key: object, layer: int) -> Callable[[nn.Module, Any], None]:
    def hook(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
        if (forward := _carried(key)) is not None:
            forward.intercept.intermediate(layer, args[0])

    return hook


def _show_residual(key: object) -> Callable[[nn.Module, Any], None]:
    def hook(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
        if (forward := _carried(key)) is not None:
            forward.intercept.residual(args[0])

    return hook

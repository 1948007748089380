"""A frozen decoder with plain ReLU FFNs, and one forward of it with a memory.

Shapes: B input rows, T tokens, D hidden size, V vocabulary, L layers, N neurons of the FFN.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from locas_agent.backbone.hooks import FfnEnds, Intercept, carrying, install
from locas_agent.errors import ConfigurationError, IncompatibleMemory, UnsupportedBackbone
from locas_agent.paper.mlp.memory import MlpMemory
from locas_agent.training.loss.losses import next_token_loss


class _Slots(Intercept):
    """Adds a memory's slots to the FFNs of one forward.

    It keeps the FFNs' inputs, and takes the steps by which gradients are read.
    """

    def __init__(self, memory: MlpMemory | None, *, with_steps: bool = False) -> None:
        self._memory = memory
        self._with_steps = with_steps
        self.hidden: dict[int, Tensor] = {}
        self.steps: dict[int, Tensor] = {}

    def ffn(self, layer: int, hidden: Tensor, output: Tensor) -> Tensor:
        """Return the output of a layer's FFN with what the memory adds."""
        self.hidden[layer] = hidden
        if self._memory is not None:
            output = output + self._memory.output(hidden, layer)
        if self._with_steps:
            self.steps[layer] = torch.zeros_like(output).requires_grad_()
            output = output + self.steps[layer]
        return output


@dataclass(frozen=True, eq=False)
class Traced:
    """One text with the places where a memory can act on it.

    Attributes:
        nll: negative log-likelihood of every token after the first, shape (T - 1,), fp32, nats; part of the graph.
        ffn_inputs: A of every layer and token, shape (L, T, D).
        steps: of each layer zeros added to its FFN's output, shape (T, D): the gradient at them is the gradient at that
            output.
    """

    nll: Tensor
    ffn_inputs: Tensor
    steps: tuple[Tensor, ...]


class ReluBackbone:
    """A frozen causal language model whose FFNs are fc2(ReLU(fc1 A)), such as OPT. Memory is an argument of every call.

    The parameters are frozen in place and the model is put into evaluation mode.
    """

    def __init__(self, model: PreTrainedModel, *, name: str) -> None:
        """Take a model.

        Args:
            model: a causal language model of transformers.
            name: what messages call it.

        Raises:
            UnsupportedBackbone: a layer has no plain ReLU FFN.
        """
        self.name = name
        self.model = cast(Any, model)
        self.model.requires_grad_(False)
        self.model.eval()
        self.sites = _find_sites(self.model.get_decoder(), name)
        self._key = install([FfnEnds(first, second, second) for first, second in self.sites])

    @property
    def n_layers(self) -> int:
        """L, the number of layers."""
        return len(self.sites)

    @property
    def hidden_size(self) -> int:
        """D, the hidden size."""
        return self.sites[0][0].in_features

    @property
    def context_tokens(self) -> int:
        """Most tokens it can attend to."""
        return int(self.model.config.max_position_embeddings)

    def logits(self, input_ids: Tensor, memory: MlpMemory | None = None) -> Tensor:
        """Logits of a batch whose rows all use one memory; gradients flow into it.

        Args:
            input_ids: shape (B, T), int64, without padding.
            memory: None is the bare backbone, bit for bit.

        Returns:
            Shape (B, T, V), the model's dtype.

        Raises:
            ConfigurationError: no batch of token ids, or more of them than the context holds.
            IncompatibleMemory: the memory has other layers or another hidden size.
        """
        self._check(input_ids, memory)
        with carrying(self._key, _Slots(memory)):
            return self._run(input_ids)

    def compute_nll(self, input_ids: Tensor, memory: MlpMemory | None = None) -> Tensor:
        """Negative log-likelihood of every token after the first.

        For a perplexity add these up over the whole text, divide once by the number of tokens, and take the exponential
        last.

        Args:
            input_ids: shape (B, T), int64, T at least 2.
            memory: as in `logits`.

        Returns:
            Shape (B, T - 1), fp32, nats.
        """
        return _nll(self.logits(input_ids, memory), input_ids)

    def traced(self, input_ids: Tensor, memory: MlpMemory | None = None) -> Traced:
        """Run one text so that gradients at the outputs of the FFNs can be taken.

        Args:
            input_ids: shape (T,), int64, T at least 2.
            memory: as in `logits`.
        """
        row = input_ids[None]
        self._check(row, memory)
        slots = _Slots(memory, with_steps=True)
        with torch.enable_grad(), carrying(self._key, slots):
            nll = _nll(self._run(row), row)[0]
        layers = range(self.n_layers)
        inputs = torch.stack([slots.hidden[layer].detach().reshape(len(input_ids), -1) for layer in layers])
        return Traced(nll, inputs, tuple(slots.steps[layer] for layer in layers))

    def _run(self, input_ids: Tensor) -> Tensor:
        logits: Tensor = self.model(input_ids=input_ids.to(self.model.device), use_cache=False).logits
        return logits

    def _check(self, input_ids: Tensor, memory: MlpMemory | None) -> None:
        if input_ids.dim() != 2 or input_ids.numel() == 0 or input_ids.shape[1] > self.context_tokens:
            raise ConfigurationError(
                f"input_ids are token ids of shape (B, T) with T up to {self.context_tokens} on {self.name!r}, got "
                f"{tuple(input_ids.shape)}"
            )
        if memory is not None and memory.keys.shape[::2] != (self.n_layers, self.hidden_size):
            raise IncompatibleMemory(
                f"{self.name!r} has {self.n_layers} layers of hidden size {self.hidden_size}, the memory has shape "
                f"{tuple(memory.keys.shape)}"
            )


def _nll(logits: Tensor, input_ids: Tensor) -> Tensor:
    rows, tokens = input_ids.shape
    if tokens < 2:
        raise ConfigurationError(f"a text has at least 2 tokens, the first predicts the second; got {tokens}")
    targets = input_ids[:, 1:].to(logits.device)
    return next_token_loss(logits[:, :-1].flatten(0, 1), targets.flatten()).view(rows, tokens - 1)


def _find_sites(decoder: nn.Module, name: str) -> tuple[tuple[nn.Linear, nn.Linear], ...]:
    """Find fc1 and fc2 of every layer by structure, and make sure that what stands between them is a ReLU."""
    layers = getattr(decoder, "layers", None)
    if not isinstance(layers, nn.ModuleList) or len(layers) == 0:
        raise UnsupportedBackbone(
            f"{name!r}: looked for a list of decoder layers called 'layers', found {type(layers).__name__}"
        )
    return tuple(_find_site(layer, f"layer {index} of {name!r}") for index, layer in enumerate(layers))


def _find_site(layer: nn.Module, where: str) -> tuple[nn.Linear, nn.Linear]:
    first, second, activation = (getattr(layer, part, None) for part in ("fc1", "fc2", "activation_fn"))
    if isinstance(first, nn.Linear) and isinstance(second, nn.Linear) and _is_relu(activation):
        return first, second
    parts = ", ".join(part for part, _ in layer.named_children()) or "nothing"
    raise UnsupportedBackbone(
        f"{where}: looked for fc1, fc2 and a ReLU as activation_fn, found {parts}; choose a backbone such as OPT"
    )


def _is_relu(activation: object) -> bool:
    return callable(activation) and activation(torch.tensor([-1.0, 2.0])).tolist() == [0.0, 2.0]

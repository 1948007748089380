"""How a token becomes a slot: the key is the activation with which it was predicted, the value its likelihood gradient.

Shapes: L layers, T tokens, n written tokens, W width, D hidden size.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize, relu

from locas_agent.errors import ConfigurationError
from locas_agent.paper.mlp.backbone import ReluBackbone, Traced
from locas_agent.paper.mlp.memory import MlpMemory


def write(
    backbone: ReluBackbone, input_ids: Tensor, memory: MlpMemory | None = None, *, epsilon: float, first: int = 1
) -> MlpMemory:
    """Make one slot for each token of a text.

    With them, predicting that token there gets likelier as by a gradient step on the FFN outputs.

    Token t is predicted at position s = t - 1. With A and G the input and the gradient of log p(x_t | x_<t) at the
    output of each FFN at s: key = A / ||A||, value = epsilon * G / ||G||, the norm of G over all layers and the hidden
    size together. Attached, the slot of a layer adds
    ||A|| * value at s: to first order log p rises by epsilon * sum over layers of ||A|| ||G of the layer||^2 / ||G||.

    Args:
        backbone: frozen.
        input_ids: shape (T,), int64.
        memory: in use while the gradients are taken; its slots are not in the result.
        epsilon: norm of a token's value over all layers.
        first: the first token that gets a slot, 1..T-1; those before it are context.

    Returns:
        The new slots, shape (L, T - first, D), scale 1: epsilon alone is the size of the step. Join them to what there
        was.

    Raises:
        ConfigurationError: epsilon or first out of bounds.

    Source: arXiv 2602.05085, Locas-MLP. The paper does not say at which position A and G are taken; where x_t is
        predicted is our reading.
    """
    return slots_of(backbone.traced(input_ids, memory), epsilon=epsilon, first=first)


def slots_of(traced: Traced, *, epsilon: float, first: int) -> MlpMemory:
    """Make the slots of a text that has been run; see `write`.

    One backward for each token, which is what makes writing dear.
    """
    count = len(traced.nll)
    if not epsilon > 0 or not 1 <= first <= count:
        raise ConfigurationError(
            f"epsilon is positive and the first written token is 1..{count}, got {epsilon} and {first}"
        )
    places = range(first - 1, count)
    gradients = torch.stack([_likelihood_gradient(traced, place) for place in places], dim=1).float()  # (L, n, D)
    lengths = torch.linalg.vector_norm(
        gradients, dim=(0, 2), keepdim=True
    )  # (1, n, 1): over layers and hidden size together
    keys = normalize(traced.ffn_inputs[:, places.start : count].float(), dim=-1)  # (L, n, D)
    return MlpMemory(keys, epsilon * gradients / lengths.clamp_min(1e-12), torch.ones(len(keys), device=keys.device))


def clone(backbone: ReluBackbone, input_ids: Tensor, *, width: int) -> MlpMemory:
    """Make a memory for plain backprop.

    Keys of the neurons a text activates most, values zero, so it changes no logit until it is trained.

    Args:
        backbone: frozen.
        input_ids: the text that ranks neurons, shape (T,).
        width: slots per layer, 1..N.

    Returns:
        Shape (L, W, D); the scale is the mean norm of the backbone's output vectors divided by the width.

    Raises:
        ConfigurationError: a width beyond the backbone's FFN.

    Source: arXiv 2602.05085; that the gated variant's cloning and scale serve here too is our reading.
    """
    most = min(first.out_features for first, _ in backbone.sites)
    if not 1 <= width <= most:
        raise ConfigurationError(f"width is 1..{most} on {backbone.name!r}, got {width}")
    inputs = backbone.traced(input_ids).ffn_inputs
    keys, scale = [], []
    for (first, second), hidden in zip(backbone.sites, inputs, strict=True):
        importance = relu(first(hidden)).float().mean(dim=0)  # (N,): a ReLU is its own absolute value
        chosen = torch.argsort(importance, descending=True, stable=True)[:width]
        keys.append(normalize(first.weight[chosen].float(), dim=-1))
        scale.append(torch.linalg.vector_norm(second.weight.float(), dim=0).mean() / width)
    stacked = torch.stack(keys).detach()
    return MlpMemory(stacked, torch.zeros_like(stacked), torch.stack(scale).detach())


def _likelihood_gradient(traced: Traced, place: int) -> Tensor:
    """Gradient of log p of the token predicted at a place, at the FFN outputs of that place, shape (L, D)."""
    with torch.enable_grad():
        found = torch.autograd.grad(-traced.nll[place], traced.steps, retain_graph=True)
    return torch.stack([gradient.reshape(len(traced.nll) + 1, -1)[place] for gradient in found])

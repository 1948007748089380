"""The first rows of a memory: backbone neurons ranked by activation and cloned, or random ones; and the output scale.

Token ids in, memories out.

Shapes: L layers (of the backbone, or those that carry the memory),
B input rows, T tokens, D hidden size, W width, N neurons of the backbone's FFN.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from locas_agent.backbone import Backbone
from locas_agent.conversation.messages import question
from locas_agent.errors import ConfigurationError
from locas_agent.inference import Engine
from locas_agent.inference.batching import micro_batches, pad
from locas_agent.inference.engine import MAX_BATCH_TOKENS
from locas_agent.memory import LocasMemory
from locas_agent.memory.slab import DOWN, GATE, INITIALIZATIONS, UP, topmost
from locas_agent.study.scribe.lessons import lesson_turns
from locas_agent.training.examples import Example, ExampleBatch

INPUT_RIDGE = 0.1
"""Share of the mean variance of neutral inputs that counts as noise in each direction; a smaller one selects more."""
COMMON_INPUTS = 2048
"""Positions of neutral text against which inputs are compared."""

OWN_ACTIVATION = 7.5
"""How strongly slots that start from inputs answer to these in a new memory of a user: as those of SmolLM2 do, on which
rates and steps were chosen. Under the scale rule alone those of Qwen2.5-Coder-0.5B would answer 160 times as much.
Origin: `docs/decisions.md`, what a slot gives."""
MEASURED_FACTS, MEASURED_TURNS = 8, 12
"""Made-up questions whose inputs are looked at for it, and made-up turns against which they are compared."""

Method = Literal["highest", "lowest", "random", "random_index"]
ScaleRule = Literal["width", "sqrt", "none"]
SCALE_RULES = ("width", "sqrt", "none")

_SMALLEST_NORM = 1e-12
"""A neuron whose weights are all zero stays zero instead of becoming not-a-number."""


def initialize(
    engine_or_backbone: Engine | Backbone,
    input_ids: Sequence[Sequence[int]],
    *,
    width: int,
    layers: int | tuple[int, ...] | None = None,
    method: Method = "highest",
    scale_rule: ScaleRule = "width",
    seed: int = 0,
) -> LocasMemory:
    """Make the first memory of one user. It changes no logit, since its down rows are zero.

    Args:
        engine_or_backbone: whose neurons are ranked and cloned; runs bare.
        input_ids: token sequences of the user's text; only "highest" and "lowest" read them. They decide which
            neurons are cloned, so erasing the text means erasing gate rows, up rows and indices too.
        width: slots per layer, 1..N.
        layers: how many of the topmost layers carry the memory, or their numbers from the last (-1), ascending; None
            means all.
        method: clone the neurons of highest or lowest mean |activation|, neurons drawn at random, or take Gaussian
            rows.
        scale_rule: tau is the mean norm of the backbone's output vectors divided by width ("width", the paper's), by
            its root ("sqrt"), or undivided ("none").
        seed: of the two random methods.

    Returns:
        A memory on the backbone's device; gate and up rows have norm 1.

    Raises:
        ConfigurationError: a width beyond the backbone's FFN, an unknown name, or no token to rank by.

    Source: arXiv 2602.05085, activation-guided cloning; scale rules "sqrt" and "none" are ours, see docs/decisions.md.
    """
    return initialize_many(
        engine_or_backbone, [input_ids], width=width, layers=layers, method=method, scale_rule=scale_rule, seed=seed
    )[0]


def initialize_many(
    engine_or_backbone: Engine | Backbone,
    inputs: Sequence[Sequence[Sequence[int]]],
    *,
    width: int,
    layers: int | tuple[int, ...] | None = None,
    method: Method = "highest",
    scale_rule: ScaleRule = "width",
    seed: int = 0,
    max_batch_tokens: int = MAX_BATCH_TOKENS,
) -> list[LocasMemory]:
    """Make the first memories of many users; each equals what `initialize` makes for that user alone.

    Args:
        engine_or_backbone: whose neurons are ranked and cloned.
        inputs: per user the token sequences of the user's text.
        width: slots per layer, 1..N.
        layers: as in `initialize`.
        method: as in `initialize`.
        scale_rule: as in `initialize`.
        seed: of the two random methods, the same for every user.
        max_batch_tokens: budget of one micro-batch of the ranking forward.

    Returns:
        One memory per user.

    Raises:
        ConfigurationError: as in `initialize`.
    """
    backbone = engine_or_backbone.backbone if isinstance(engine_or_backbone, Engine) else engine_or_backbone
    _check(backbone, width, method, scale_rule)
    numbers = layers if isinstance(layers, tuple) else topmost(backbone.n_layers if layers is None else layers)
    if not numbers or -numbers[0] > backbone.n_layers or numbers[-1] >= 0:
        raise ConfigurationError(
            f"a memory stands beside 1..{backbone.n_layers} layers of {backbone.name!r}, got {layers}"
        )
    chosen: list[list[Tensor]] | list[list[Tensor] | None]
    if method in ("highest", "lowest"):
        activations = mean_activations(backbone, inputs, max_batch_tokens=max_batch_tokens)
        chosen = [[_ranked(alpha, width, method) for alpha in user] for user in activations]
    else:
        chosen = [_drawn(backbone, width, seed) if method == "random_index" else None for _ in inputs]
    scale = output_scale(backbone, width=width, rule=scale_rule)
    return [_build(backbone, indices, scale, width, numbers, method, seed) for indices in chosen]


def output_scale(backbone: Backbone, *, width: int, rule: ScaleRule = "width") -> Tensor:
    """The constant tau of each layer.

    Args:
        backbone: its output vectors set the size.
        width: slots per layer.
        rule: "width", "sqrt" or "none".

    Returns:
        Shape (L,), fp32, on the backbone's device.
    """
    divisor = {"width": float(width), "sqrt": math.sqrt(width), "none": 1.0}[rule]
    return (backbone.output_norms / divisor).to(backbone.device)


@torch.inference_mode()
def mean_activations(
    backbone: Backbone, inputs: Sequence[Sequence[Sequence[int]]], *, max_batch_tokens: int = MAX_BATCH_TOKENS
) -> list[list[Tensor]]:
    """Importance of every neuron: alpha_j, the mean over a user's tokens of |act(gate A) * (up A)|.

    Args:
        backbone: runs bare.
        inputs: per user token sequences; empty ones are skipped.
        max_batch_tokens: budget of one micro-batch.

    Returns:
        Per user and layer a vector of shape (N,), float64, on the CPU.

    Raises:
        ConfigurationError: a user has no token at all.
    """
    sequences = [(user, sequence) for user, texts in enumerate(inputs) for sequence in texts if len(sequence) > 0]
    counts = [sum(len(sequence) for sequence in texts) for texts in inputs]
    if 0 in counts:
        raise ConfigurationError(
            f"user {counts.index(0)} of {len(counts)} has no token to rank neurons by; use method='random'"
        )
    sums = [[torch.zeros(site.n_neurons, dtype=torch.float64) for site in backbone.sites] for _ in inputs]
    engine = Engine(backbone)
    for rows in micro_batches([len(sequence) for _, sequence in sequences], max_batch_tokens):
        ids, mask = pad([sequences[row][1] for row in rows], backbone.pad_id, left=False)
        users = [sequences[row][0] for row in rows]
        tokens = mask.to(backbone.device, torch.float32)[:, None]  # (B, 1, T)

        def add(layer: int, intermediate: Tensor, users: list[int] = users, tokens: Tensor = tokens) -> None:
            totals = torch.bmm(tokens, intermediate.float().abs())[:, 0].double().cpu()  # (B, N)
            for user, total in zip(users, totals, strict=True):
                sums[user][layer] += total

        engine.observe(ids, mask, add)
    return [[total / count for total in user] for user, count in zip(sums, counts, strict=True)]


def _check(backbone: Backbone, width: int, method: str, scale_rule: str) -> None:
    if method not in INITIALIZATIONS:
        raise ConfigurationError(f"initialization is one of {', '.join(INITIALIZATIONS)}, got {method!r}")
    if scale_rule not in SCALE_RULES:
        raise ConfigurationError(f"the scale rule is one of {', '.join(SCALE_RULES)}, got {scale_rule!r}")
    if not 1 <= width <= backbone.ffn_width:
        raise ConfigurationError(f"width is 1..{backbone.ffn_width} on {backbone.name!r}, got {width}")


def _ranked(alpha: Tensor, width: int, method: Method) -> Tensor:
    """Indices of the W neurons of highest or lowest importance, shape (W,); ties go to the lower index."""
    return torch.argsort(alpha, descending=method == "highest", stable=True)[:width]


def _drawn(backbone: Backbone, width: int, seed: int) -> list[Tensor]:
    """Indices of W different neurons per layer, drawn without looking at any text."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randperm(site.n_neurons, generator=generator)[:width] for site in backbone.sites]


def _build(
    backbone: Backbone,
    indices: list[Tensor] | None,
    scale: Tensor,
    width: int,
    layers: tuple[int, ...],
    method: Method,
    seed: int,
) -> LocasMemory:
    """Assemble one memory from neuron indices, or from Gaussian rows where there are none."""
    slab = torch.zeros(len(layers), 3, width, backbone.hidden_size)  # down rows stay zero
    if indices is None:
        generator = torch.Generator().manual_seed(seed)
        slab[:, :DOWN] = torch.randn(slab[:, :DOWN].shape, generator=generator)
        neurons = torch.full((len(layers), width), -1, dtype=torch.int64)
    else:
        neurons = torch.stack([indices[layer] for layer in layers])  # (L, W)
        for number, layer in enumerate(layers):
            site, at = backbone.sites[layer], indices[layer].to(backbone.device)
            slab[number, GATE] = site.gate_rows()[at].float().cpu()
            slab[number, UP] = site.up_rows()[at].float().cpu()
    slab /= torch.linalg.vector_norm(slab, dim=-1, keepdim=True).clamp_min(_SMALLEST_NORM)
    return LocasMemory(
        slab=slab.to(backbone.device),
        scale=scale[list(layers)].clone(),
        neuron_indices=neurons.to(backbone.device),
        fingerprint=backbone.fingerprint,
        initialization=method,
        layers=layers,
    )


def ffn_inputs(engine: Engine, examples: Sequence[Example], layers: Sequence[int]) -> dict[int, Tensor]:
    """What enters the FFN of some layers where the bare backbone predicts what examples score.

    Args:
        engine: runs the backbone.
        examples: at least one.
        layers: numbers from the last, -1.

    Returns:
        By layer, shape (scored tokens of all examples, in their order, D), fp32, on the CPU.
    """
    backbone = engine.backbone
    found: dict[int, list[Tensor]] = {layer: [torch.empty(0)] * len(examples) for layer in layers}
    for rows in micro_batches([example.n_tokens for example in examples], MAX_BATCH_TOKENS):
        batch = ExampleBatch.of([[examples[row]] for row in rows], pad_id=backbone.pad_id, device=backbone.device)

        def keep(layer: int, hidden: Tensor, rows: list[int] = rows, batch: ExampleBatch = batch) -> None:
            if (own := found.get(layer - backbone.n_layers)) is not None:
                for row, states, at in zip(rows, hidden, batch.positions, strict=True):
                    own[row] = states[at].float().cpu()

        engine.enter(batch.input_ids, keep)
    return {layer: torch.cat(parts) for layer, parts in found.items()}


def special_directions(inputs: Tensor, common: Tensor) -> Tensor:
    """The directions that tell inputs from common ones: whitened by them, of norm 1.

    A slot with such a gate and up row answers to its own input some hundred times as much as to neutral text; a
    Gaussian row hardly answers to either, since a row is at most 1 long.

    Args:
        inputs: of an FFN, shape (S, D), fp32.
        common: of the same FFN on neutral text, shape (n, D), fp32.

    Returns:
        Shape (S, D), fp32.
    """
    mean = common.mean(dim=0)
    common, inputs = common - mean, inputs - mean
    noise = INPUT_RIDGE * common.square().mean() * len(common)
    if common.shape[1] <= len(common):
        covariance = common.T @ common + noise * torch.eye(common.shape[1])  # (D, D)
        directions = torch.linalg.solve(covariance, inputs.T).T
    else:
        gram = common @ common.T + noise * torch.eye(len(common))  # (n, n): Woodbury
        directions = inputs - torch.linalg.solve(gram, common @ inputs.T).T @ common  # (S, D)
    lengths: Tensor = torch.linalg.vector_norm(directions, dim=-1, keepdim=True)
    unit: Tensor = directions / lengths.clamp_min(_SMALLEST_NORM)
    return unit


def empty_memory(
    engine: Engine, layers: tuple[int, ...], *, width: int, scale_rule: ScaleRule, activation: float = OWN_ACTIVATION
) -> LocasMemory:
    """A memory whose slots all wait for rows that start from inputs; see `LocasMemory.with_slots`.

    Args:
        engine: of the backbone whose memory it is.
        layers: beside which it stands, numbered from the last (-1).
        width: slots per layer.
        scale_rule: as in `initialize`; the scale is divided by how much more than asked such slots answer.
        activation: how strongly slots are to answer to the inputs that their rows start from.
    """
    backbone = engine.backbone
    _check(backbone, width, "inputs", scale_rule)
    scale = output_scale(backbone, width=width, rule=scale_rule)[list(layers)]
    # Two digits: what differs by rounding between two machines is not to change what a memory becomes.
    more = float(f"{own_activation(engine, layers) / activation:.2g}")
    return LocasMemory(
        slab=torch.zeros(len(layers), 3, width, backbone.hidden_size, device=backbone.device),
        scale=scale / more,
        neuron_indices=torch.full((len(layers), width), -1, dtype=torch.int64, device=backbone.device),
        fingerprint=backbone.fingerprint,
        initialization="inputs",
        layers=layers,
    )


def own_activation(engine: Engine, layers: tuple[int, ...]) -> float:
    """Return how strongly slots answer to the inputs that their rows start from, the mean over slots and layers.

    It differs a hundredfold between backbones, with the weights of the norm before the FFN. Measured on questions and
    turns that nobody said, once for each backbone.

    Args:
        engine: of the backbone.
        layers: beside which the slots would stand, numbered from the last (-1).
    """
    return engine.backbone.once(("own activation", layers), lambda: _own_activation(engine, layers))


def _own_activation(engine: Engine, layers: tuple[int, ...]) -> float:
    backbone, turns = engine.backbone, [turn for turn in lesson_turns() if turn.facts]
    asked = [
        Example(
            tuple(backbone.encode_chat(question(turn.facts[0].questions[0]))),
            (*backbone.encode(turn.facts[0].answer), backbone.end_id),
            None,
        )
        for turn in turns[:MEASURED_FACTS]
    ]
    others = turns[MEASURED_FACTS : MEASURED_FACTS + MEASURED_TURNS]
    said = [backbone.encode_chat(question(turn.turn))[: backbone.context_tokens] for turn in others]
    inputs = ffn_inputs(engine, asked, layers)
    common = ffn_inputs(engine, [Example(tuple(row[:1]), tuple(row[1:]), None) for row in said], layers)
    found = []
    for layer in layers:
        rows = special_directions(inputs[layer], common[layer])
        own = (rows * inputs[layer]).sum(dim=-1)  # (S,)
        found.append(float((backbone.sites[layer].activation(own) * own).mean()))
    return max(sum(found) / len(found), 1e-3)

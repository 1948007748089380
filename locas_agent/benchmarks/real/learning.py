"""Steps of training on real shapes, memories at the default placement: states below them are computed once per text."""

from __future__ import annotations

from collections.abc import Callable

import torch

from locas_agent.backbone import Backbone
from locas_agent.benchmarks.bench import Bench, largest_difference
from locas_agent.benchmarks.learn import Lora, Memories
from locas_agent.benchmarks.measuring import Goal, Row, interleaved
from locas_agent.benchmarks.real.backbones import backbone_of, ids_of, memories_of, tolerance_of
from locas_agent.config import TrainingSettings
from locas_agent.inference import Engine
from locas_agent.training.examples import Example
from locas_agent.training.loss.backend import FullForward, LossBackend, loss_backend_for
from locas_agent.training.loss.last_layer import LastLayer

USERS = 8
SHORT, LONG = 64, 256
ANSWER_TOKENS = 16
"""Tokens of a text that are learnt: the answer behind its question."""
ROUNDS = {SHORT: 5, LONG: 3}
RANK = 64

_STEP = (
    f"a step of {USERS} users, {{}} tokens each of which {ANSWER_TOKENS} are learnt, memories of 32 slots beside the "
)
_STEP += "topmost third of the layers"
DEEP = Goal("learn-deep", f"{_STEP.format(SHORT)}; peer: the whole forward", "ms per step", "peer/ours", 1.6, 2.5)
TEMP_LORA = Goal(
    "learn-templora-real",
    f"{_STEP.format(SHORT)}; peer: PEFT adapters of rank 64 beside all linear layers, one by one",
    "ms per step",
    "peer/ours",
    2.5,
    4.0,
)
ONE_BY_ONE = Goal(
    "learn-long-real", f"{_STEP.format(LONG)}; peer: the same users one by one", "ms per step", "peer/ours", 1.0, 1.1
)


def deep(bench: Bench) -> list[Row]:
    """Measure the two rows of short texts.

    Raises:
        MissingExtra: PEFT is not installed.
        RuntimeError: cached states give other gradients than whole forwards, or this backbone cannot be cut.
    """
    backbone, examples = _texts(bench, SHORT)
    memories = memories_of(bench, backbone, len(examples))
    flat = [example for own in examples for example in own]
    engine, most = Engine(backbone), TrainingSettings().max_batch_tokens
    last_layer = LastLayer.of(engine)
    loss_backend = loss_backend_for(engine, last_layer, memories, flat, max_batch_tokens=most)
    if isinstance(loss_backend, FullForward):
        raise RuntimeError("this backbone cannot be cut, so there is nothing to compare")
    ours = Memories(loss_backend, backbone, memories, examples)
    whole = Memories(FullForward(engine, max_batch_tokens=most), backbone, memories, examples)
    _check_gradients(ours, whole, backbone)
    lora = Lora(backbone, rank=4 if bench.is_quick else RANK)

    def adapters() -> None:
        for own in examples:
            lora.step(own)

    sides: dict[str, Callable[[], object]] = {"ours": ours.step, "whole": whole.step, "lora": adapters}
    taken = interleaved(sides, rounds=bench.real_rounds(ROUNDS[SHORT]), device=bench.device)
    return [DEEP.row(taken["ours"], taken["whole"]), TEMP_LORA.row(taken["ours"], taken["lora"])]


def long(bench: Bench) -> list[Row]:
    """Measure the row of long texts; raises as `deep` does."""
    backbone, examples = _texts(bench, LONG)
    memories = memories_of(bench, backbone, len(examples))
    engine, most = Engine(backbone), TrainingSettings().max_batch_tokens
    last_layer = LastLayer.of(engine)

    def loss_backend(own: list[list[Example]]) -> LossBackend:
        return loss_backend_for(
            engine, last_layer, memories, [each for one in own for each in one], max_batch_tokens=most
        )

    together = Memories(loss_backend(examples), backbone, memories, examples)
    alone = [
        Memories(loss_backend([own]), backbone, [memory], [own]) for memory, own in zip(memories, examples, strict=True)
    ]
    apart = torch.cat([one.gradient() for one in alone], dim=1)
    if largest_difference(apart, together.gradient()) > 10 * tolerance_of(backbone):
        raise RuntimeError("side by side gradients differ from those alone: nothing was measured")

    def one_by_one() -> None:
        for one in alone:
            one.step()

    sides: dict[str, Callable[[], object]] = {"ours": together.step, "alone": one_by_one}
    taken = interleaved(sides, rounds=bench.real_rounds(ROUNDS[LONG]), device=bench.device)
    return [ONE_BY_ONE.row(taken["ours"], taken["alone"])]


def _texts(bench: Bench, tokens: int) -> tuple[Backbone, list[list[Example]]]:
    """Return the backbone and one text of each user."""
    backbone = backbone_of(bench)
    length, learnt = (tokens // 4, 4) if bench.is_quick else (tokens, ANSWER_TOKENS)
    texts = ids_of(bench, backbone, [length + 1] * (3 if bench.is_quick else USERS))
    return backbone, [[Example(tuple(text[:-learnt]), tuple(text[-learnt:]), None)] for text in texts]


def _check_gradients(ours: Memories, whole: Memories, backbone: Backbone) -> None:
    mine, theirs = ours.gradient(), whole.gradient()
    if (difference := largest_difference(theirs, mine)) > 10 * tolerance_of(backbone):
        raise RuntimeError(f"cached states give gradients {difference:.2g} of the largest apart: nothing was measured")

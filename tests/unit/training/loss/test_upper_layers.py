"""The upper layers alone give what a whole forward gives, on every backbone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from locas_agent.inference import Engine
from locas_agent.memory import LocasMemory
from locas_agent.training.examples import Example, with_teacher
from locas_agent.training.loss import upper_layers
from locas_agent.training.loss.backend import FullForward, loss_backend_for
from locas_agent.training.loss.last_layer import LastLayer
from locas_agent.training.loss.upper_layers import UpperLayers, UpperLayersForward
from tests.unit.core.architectures import SUPPORTED
from tests.unit.core.deep import PLACES, deep, memory_at


@pytest.fixture(params=sorted(SUPPORTED))
def any_engine(request: pytest.FixtureRequest) -> Engine:
    return deep(request.param)


def some_examples(engine: Engine) -> list[list[Example]]:
    """Rows with a common beginning and without, of different lengths and weights, one scored in two stretches."""
    generator = torch.Generator().manual_seed(2)

    def draw(length: int) -> tuple[int, ...]:
        return tuple(torch.randint(0, 256, (length,), generator=generator).tolist())

    start = draw(3)
    users = []
    for user in range(3):
        plain = Example((*start, *draw(1 + user)), draw(1 + user), None, weight=2.0)
        taught = with_teacher(engine, [draw(9)], [draw(2)], top_k=5, student_prompts=[(*start, *draw(2))])[0]
        users.append([plain, taught, Example((*start, *draw(1)), draw(3), None, 1.0, (0, 2))])
    users[2][0] = Example(draw(4), draw(17), None)  # longer than a sliding window, and nothing in common
    return users


def learnt(backend: Any, memories: list[LocasMemory], examples: list[list[Example]]) -> tuple[Tensor, Tensor]:
    slab = torch.stack([memory.slab for memory in memories], dim=1)
    slab.grad = torch.zeros_like(slab)
    scale = torch.stack([memory.scale for memory in memories], dim=1)
    return backend.accumulate_gradients(slab, scale, examples, 0.5, layers=memories[0].layers), slab.grad


def upper_forward(engine: Engine, layers: tuple[int, ...], max_batch_tokens: int = 4096) -> UpperLayersForward:
    upper = UpperLayers.of(engine)
    assert upper is not None
    return UpperLayersForward(
        engine, upper, first=engine.backbone.n_layers + layers[0], max_batch_tokens=max_batch_tokens
    )


@pytest.mark.parametrize("place", PLACES)
def test_the_upper_layers_of_every_backbone_give_what_a_whole_forward_gives(any_engine: Engine, place: str) -> None:
    memories = [memory_at(any_engine.backbone, PLACES[place], seed) for seed in range(3)]
    examples = some_examples(any_engine)
    whole = FullForward(any_engine, max_batch_tokens=4096)
    upper = upper_forward(any_engine, PLACES[place], max_batch_tokens=40)
    losses, gradient = learnt(whole, memories, examples)
    assert float(gradient.abs().max()) > 1e-3
    for _ in range(2):  # states computed, and states kept
        losses_above, gradient_above = learnt(upper, memories, examples)
        torch.testing.assert_close(losses_above, losses, atol=1e-4, rtol=1e-4)
        largest = float(gradient.abs().max())
        torch.testing.assert_close(gradient_above, gradient, atol=1e-5 * largest + 1e-6, rtol=1e-3)
    scored = zip(
        whole.evaluate([*memories[:2], None], examples), upper.evaluate([*memories[:2], None], examples), strict=True
    )
    for one, other in scored:
        for (loss, hit), (loss_above, hit_above) in zip(one, other, strict=True):
            torch.testing.assert_close(loss_above, loss, atol=1e-4, rtol=1e-4)
            assert hit == hit_above


def test_states_below_are_computed_once_and_again_beyond_the_budget(
    llama: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs, below = list[int](), llama.below

    def counted(ids: Tensor, first: int, **how: Any) -> Tensor:
        runs.append(first)
        return below(ids, first, **how)

    memories, examples = [memory_at(llama.backbone, (-2,), seed) for seed in range(3)], some_examples(llama)
    loss_backend = upper_forward(llama, (-2,))
    monkeypatch.setattr(llama, "below", counted)
    first, _ = learnt(loss_backend, memories, examples)
    assert runs
    assert set(runs) == {2}
    found = len(runs)
    assert torch.equal(learnt(loss_backend, memories, examples)[0], first)
    assert len(runs) == found
    monkeypatch.setattr(upper_layers, "STATE_BYTES", 0)
    loss_backend = upper_forward(llama, (-2,))
    runs.clear()
    for _ in range(2):
        torch.testing.assert_close(learnt(loss_backend, memories, examples)[0], first)
    assert len(runs) == 2 * found


def test_scores_before_training_leave_states_that_gradients_can_use(llama: Engine) -> None:
    memories, examples = [memory_at(llama.backbone, (-2,), seed) for seed in range(3)], some_examples(llama)
    loss_backend = upper_forward(llama, (-2,))
    loss_backend.evaluate(memories, examples)
    assert float(learnt(loss_backend, memories, examples)[1].abs().max()) > 0


def test_a_decoder_that_cannot_be_cut_is_left_to_whole_forwards(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = deep("qwen3")
    memory = memory_at(engine.backbone, (-2,), 0)
    last_layer = LastLayer.of(engine)
    assert isinstance(loss_backend_for(engine, last_layer, [memory], [], max_batch_tokens=64), UpperLayersForward)
    layer = type(engine.backbone.decoder.layers[0])
    forward = layer.forward

    def other_order(self: Any, *args: Any, **options: Any) -> Tensor:
        # the layer depends on what the decoder was given, not only on what enters it
        return forward(self, *args, **options) * (2.0 if engine.backbone.decoder.layers[0] is self else 1.0)

    monkeypatch.setattr(layer, "forward", other_order)
    assert UpperLayers.of(engine) is not None  # still the same function of its layers
    monkeypatch.setattr(engine, "above", lambda states, *_, **__: states)
    assert UpperLayers.of(engine) is None
    refused = LastLayer.of(engine)
    assert isinstance(loss_backend_for(engine, refused, [memory], [], max_batch_tokens=64), FullForward)

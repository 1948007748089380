"""Two ways to the same losses.

A whole forward, and the end of the backbone alone for memories beside the last layer.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from locas_agent.backbone import Backbone
from locas_agent.inference import Engine
from locas_agent.memory import LocasMemory, MemoryBatch
from locas_agent.memory.slab import DOWN
from locas_agent.training.examples import Example, with_teacher
from locas_agent.training.initialization import initialize
from locas_agent.training.loss import losses
from locas_agent.training.loss.backend import FullForward, LastLayerForward, LossBackend
from locas_agent.training.loss.last_layer import LastLayer
from tests.conftest import byte_tokenizer
from tests.unit.core.architectures import SUPPORTED, build

USERS, ROWS = 3, 2


@pytest.fixture(params=sorted(SUPPORTED))
def any_engine(request: pytest.FixtureRequest) -> Engine:
    return Engine(Backbone(build(request.param), byte_tokenizer(), name=request.param))


def last_layer_memory(backbone: Backbone, seed: int) -> LocasMemory:
    memory = initialize(backbone, [], width=4, layers=1, method="random", scale_rule="none", seed=seed)
    slab = memory.slab.clone()
    slab[:, DOWN] = torch.randn(slab[:, DOWN].shape, generator=torch.Generator().manual_seed(seed))
    return replace(memory, slab=slab)


def some_examples(engine: Engine) -> list[list[Example]]:
    """Rows of different lengths and weights, half of them with a teacher, one scored in two stretches."""
    generator = torch.Generator().manual_seed(2)

    def draw(length: int) -> tuple[int, ...]:
        return tuple(torch.randint(0, 256, (length,), generator=generator).tolist())

    users = []
    for user in range(USERS):
        plain = Example(draw(3 + user), draw(2 + user), None, weight=2.0)
        taught = with_teacher(engine, [draw(9)], [draw(4)], top_k=5, student_prompts=[draw(5)])[0]
        users.append([plain, taught])
    users[1][0] = Example(draw(4), draw(6), None, 1.0, (0, 1, 4))
    return users


def backends(engine: Engine, examples: list[list[Example]]) -> tuple[LossBackend, LossBackend]:
    last_layer = LastLayer.of(engine)
    assert last_layer is not None
    seen = [example for user in examples for example in user]
    # small budgets, so that both work in several parts
    return FullForward(engine, max_batch_tokens=40), LastLayerForward(
        last_layer, engine.backbone, seen, max_batch_tokens=12
    )


def learnt(backend: LossBackend, memories: list[LocasMemory], examples: list[list[Example]]) -> tuple[Tensor, Tensor]:
    slab = torch.stack([memory.slab for memory in memories], dim=1)
    slab.grad = torch.zeros_like(slab)
    losses = backend.accumulate_gradients(
        slab, torch.stack([memory.scale for memory in memories], dim=1), examples, 0.5
    )
    return losses, slab.grad


def test_the_end_of_every_backbone_gives_what_a_whole_forward_gives(any_engine: Engine) -> None:
    memories = [last_layer_memory(any_engine.backbone, seed) for seed in range(USERS)]
    examples = some_examples(any_engine)
    whole, end = backends(any_engine, examples)
    (losses, gradient), (losses_at_end, gradient_at_end) = (
        learnt(whole, memories, examples),
        learnt(end, memories, examples),
    )
    assert float(gradient.abs().max()) > 1e-3
    torch.testing.assert_close(losses_at_end, losses, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(gradient_at_end, gradient, atol=1e-5 * float(gradient.abs().max()) + 1e-6, rtol=1e-3)
    for one, other in zip(
        whole.evaluate([*memories[:2], None], examples), end.evaluate([*memories[:2], None], examples), strict=True
    ):
        for (loss, hit), (loss_at_end, hit_at_end) in zip(one, other, strict=True):
            torch.testing.assert_close(loss_at_end, loss, atol=1e-4, rtol=1e-4)
            assert hit == hit_at_end


def test_a_user_learns_what_it_would_learn_alone(engine: Engine) -> None:
    memories = [last_layer_memory(engine.backbone, seed) for seed in range(USERS)]
    examples = some_examples(engine)
    for each in backends(engine, examples):
        losses, gradient = learnt(each, memories, examples)
        for user in range(USERS):
            loss, alone = learnt(each, memories[user : user + 1], examples[user : user + 1])
            torch.testing.assert_close(losses[user], loss[0])
            torch.testing.assert_close(gradient[:, user], alone[:, 0], atol=1e-6, rtol=1e-4)


def test_a_backbone_with_another_end_is_left_to_whole_forwards(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    assert LastLayer.of(engine) is not None
    layer = engine.backbone.decoder.layers[-1]
    # a norm after the FFN that the layer does not use: the last layer would then not be the backbone's own end
    monkeypatch.setattr(
        layer, "post_feedforward_layernorm", torch.nn.LayerNorm(engine.backbone.hidden_size), raising=False
    )
    assert LastLayer.of(engine) is None


def test_states_of_a_held_example_are_computed_once(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    last_layer = LastLayer.of(engine)
    assert last_layer is not None
    held = Example((1, 2), (3, 4), None)
    first, _ = last_layer.states([held])
    monkeypatch.setattr(engine, "record", lambda *_: pytest.fail("the example was run again"))
    again, spans = last_layer.states([held, held])
    assert torch.equal(again.residual, torch.cat([first.residual, first.residual]))
    assert spans == [slice(0, 2), slice(2, 4)]


def test_memories_of_different_depth_share_a_batch(engine: Engine) -> None:
    backbone = engine.backbone
    deep = initialize(backbone, [], width=3, method="random", scale_rule="none")
    deep = replace(deep, slab=torch.randn(deep.slab.shape, generator=torch.Generator().manual_seed(4)))
    shallow = last_layer_memory(backbone, 1)
    ids = torch.randint(0, 256, (2, 7), generator=torch.Generator().manual_seed(5))
    together = engine.logits(ids, memory=MemoryBatch.of([deep, shallow], backbone))
    for row, memory in enumerate((deep, shallow)):
        alone = engine.logits(ids[row : row + 1], memory=MemoryBatch.of([memory], backbone))
        torch.testing.assert_close(together[row : row + 1], alone, atol=1e-5, rtol=1e-5)


def test_losses_do_not_depend_on_how_many_logits_are_held_at_once(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    memories = [last_layer_memory(engine.backbone, seed) for seed in range(USERS)]
    examples, head, held = some_examples(engine), engine.lm_head, list[int]()

    def counting(hidden: Tensor) -> Tensor:
        held.append(len(hidden))
        return head(hidden)

    monkeypatch.setattr(engine, "lm_head", counting)
    whole, gradient = learnt(FullForward(engine, max_batch_tokens=4096), memories, examples)
    assert len(held) == 1
    monkeypatch.setattr(losses, "HEAD_ROWS", 4)
    in_parts, gradient_in_parts = learnt(FullForward(engine, max_batch_tokens=4096), memories, examples)
    assert len(held) > 4
    assert max(held[1:]) == 4
    torch.testing.assert_close(in_parts, whole, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        gradient_in_parts, gradient, atol=1e-6, rtol=1e-4
    )  # products of other shapes sum in another order
    assert float(gradient.abs().max()) > 1e-3

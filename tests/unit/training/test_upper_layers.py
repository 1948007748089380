"""Memories at any depth.

The upper layers alone give what a whole forward gives; settings mean the layers they say; a training that runs away is
begun again.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from locas_agent.backbone import Backbone
from locas_agent.config import LocasConfig, MemorySettings
from locas_agent.errors import CorruptPayload, IncompatibleMemory
from locas_agent.inference import Engine
from locas_agent.inference.composition import compose
from locas_agent.memory import LocasMemory, MemoryBatch
from locas_agent.memory.serialization import from_bytes, to_bytes
from locas_agent.memory.slab import DOWN, topmost
from locas_agent.training import upper_layers
from locas_agent.training.examples import Example, with_teacher
from locas_agent.training.initialization import initialize, own_activation, special_directions
from locas_agent.training.last_layer import LastLayer
from locas_agent.training.loss_backend import FullForward, loss_backend_for
from locas_agent.training.trainer import Trainer
from locas_agent.training.upper_layers import UpperLayers, UpperLayersForward
from tests.conftest import byte_tokenizer
from tests.unit.core.architectures import SUPPORTED, build
from tests.unit.evaluation.peer_tasks import neutral_text, training_task

PLACES = {"a lower one": (-3, -2), "the topmost": (-2, -1), "with a gap": (-4, -2), "the lowest": (-4,)}


def deep(name: str) -> Engine:
    """A random backbone of four layers; where there are kinds of layers, of both kinds in turn."""
    options: dict[str, Any] = {"num_hidden_layers": 4}
    if "layer_types" in SUPPORTED[name][1]:
        options["layer_types"] = ["sliding_attention", "full_attention"] * 2
    return Engine(Backbone(build(name, **options), byte_tokenizer(), name=name))


@pytest.fixture(params=sorted(SUPPORTED))
def any_engine(request: pytest.FixtureRequest) -> Engine:
    return deep(request.param)


@pytest.fixture(scope="module")
def llama() -> Engine:
    return deep("llama")


def memory_at(backbone: Backbone, layers: tuple[int, ...], seed: int) -> LocasMemory:
    memory = initialize(backbone, [], width=4, layers=layers, method="random", scale_rule="none", seed=seed)
    slab = memory.slab.clone()
    slab[:, DOWN] = 0.3 * torch.randn(slab[:, DOWN].shape, generator=torch.Generator().manual_seed(seed))
    return replace(memory, slab=slab)


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


def test_memories_at_different_places_share_a_batch(llama: Engine) -> None:
    backbone = llama.backbone
    memories = [memory_at(backbone, layers, seed) for seed, layers in enumerate(PLACES.values())]
    ids = torch.randint(0, 256, (5, 7), generator=torch.Generator().manual_seed(5))
    together = llama.logits(ids, memory=MemoryBatch.of([*memories, None], backbone))
    for row, memory in enumerate([*memories, None]):
        one = None if memory is None else MemoryBatch.of([memory], backbone)
        torch.testing.assert_close(
            together[row : row + 1], llama.logits(ids[row : row + 1], memory=one), atol=1e-5, rtol=1e-5
        )
    bare = llama.logits(ids)
    assert all(float((together[row] - bare[row]).abs().max()) > 1e-3 for row in range(4))


def test_composed_memories_stand_where_both_stood(llama: Engine) -> None:
    low, high = memory_at(llama.backbone, (-4, -3), 1), memory_at(llama.backbone, (-3, -1), 2)
    both = compose(low, high)
    assert both.layers == (-4, -3, -1)
    torch.testing.assert_close(both.slab[0, :, :4], low.clipped().slab[0])
    torch.testing.assert_close(both.slab[2, :, 4:], high.clipped().slab[1])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_a_memory_comes_back_to_its_layers(llama: Engine, dtype: Any) -> None:
    for layers in PLACES.values():
        memory = memory_at(llama.backbone, layers, 3)
        data = to_bytes(memory, dtype=dtype)
        assert from_bytes(data).layers == layers
        assert (b'"layers"' in data) == (layers != topmost(len(layers)))
    elsewhere, top = memory_at(llama.backbone, (-3, -2), 3), memory_at(llama.backbone, (-2, -1), 3)
    assert to_bytes(elsewhere) != to_bytes(replace(top, slab=elsewhere.slab))
    assert from_bytes(to_bytes(elsewhere)).slab.equal(elsewhere.clipped().slab)


def test_altered_layers_in_a_payload_are_refused(llama: Engine) -> None:
    data = to_bytes(memory_at(llama.backbone, (-3, -2), 3))
    assert b'"layers":"-3,-2"' in data
    for other in (b'"layers":"-4,-2"', b'"layers":"-2,-3"', b'"layers":"-2,-1"', b'"layers":"-3,+2"'):
        with pytest.raises(CorruptPayload):
            from_bytes(data.replace(b'"layers":"-3,-2"', other))
    many = to_bytes(memory_at(llama.backbone, (-2, -1), 3)).replace(b'"n_layers":"2"', b'"n_layers":"999999999"')
    length = int.from_bytes(many[:8], "little") + 8
    with pytest.raises(CorruptPayload, match="shapes"):  # before anything so long is made
        from_bytes(length.to_bytes(8, "little") + many[8:])


def test_numbers_that_name_no_layers_are_refused(llama: Engine) -> None:
    memory = memory_at(llama.backbone, (-2, -1), 0)
    for wrong in ((-1, -2), (-2, -2), (-1, 0), (-1,)):
        with pytest.raises(IncompatibleMemory, match="counted from the last"):
            replace(memory, layers=wrong)
    with pytest.raises(IncompatibleMemory):
        MemoryBatch.of([replace(memory, layers=(-5, -1))], llama.backbone)


def trained_at(engine: Engine, **training: Any) -> Any:
    memory = {"layers": [1, 2]}
    fast = {"max_steps": 24, "items_per_step": 4} | training
    config = LocasConfig.model_validate({"memory": memory, "training": fast})
    told = [training_task(engine, {"Dog?": "Rex", "City?": "Oslo"}), training_task(engine, {"Dog?": "Ada"})]
    return Trainer(engine, config, neutral_text(engine), LastLayer.of(engine)).train(told)


def test_training_in_the_middle_of_a_backbone_learns(llama: Engine) -> None:
    for one in trained_at(llama, learning_rate=2e-2):
        assert one.memory.layers == (-3, -2)
        assert one.last_loss < 0.7 * one.first_loss
        assert (one.restarts, one.learning_rate) == (0, 2e-2)


def test_slots_of_former_consolidations_move_a_fifth_as_fast_as_new_ones(llama: Engine) -> None:
    config = LocasConfig.model_validate({"memory": {"layers": [1, 2]}, "training": {"max_steps": 1}})
    trainer = Trainer(llama, config, neutral_text(llama), LastLayer.of(llama))
    first, second = training_task(llama, {"Dog?": "Rex"}), training_task(llama, {"City?": "Oslo"})
    (learnt,) = trainer.train([first])
    task = replace(second, earlier=first.new, memory=learnt.memory)
    (before,), (after,) = trainer.starting_memories([task]), trainer.train([task])
    moved = (after.memory.slab - before.slab).abs().amax(dim=(0, 1, 3))  # (W,): one step of AdamW moves by the rate
    holds = before.slab[:, DOWN].any(dim=-1).any(dim=0)
    assert 0 < int(holds.sum()) < before.width
    assert 0.15 < float(moved[holds].max() / moved[~holds].max()) < 0.25
    (shared,) = trainer.train([replace(task, memory=replace(learnt.memory, initialization="random"))])
    moved = (shared.memory.slab - learnt.memory.slab).abs()
    assert float(moved.max()) > 0.9 * float((after.memory.slab - before.slab).abs().max())  # all slots are of all facts


def test_a_training_that_runs_away_is_begun_again_at_half_the_rate(llama: Engine) -> None:
    for one in trained_at(llama, learning_rate=1e38):  # beyond what a row can hold after a few steps
        assert (one.restarts, one.learning_rate, one.steps) == (1, 5e37, 24)


def test_rows_from_inputs_answer_to_their_own_and_hardly_to_neutral_text() -> None:
    generator = torch.Generator().manual_seed(0)
    spread = torch.linspace(0.1, 3.0, 32)  # common text moves some directions much and others little
    common, inputs = (torch.randn(count, 32, generator=generator) * spread for count in (400, 5))
    rows = special_directions(inputs, common)
    few = special_directions(inputs, common[:20])  # fewer than directions: solved among texts
    twice = special_directions(inputs, common[:20].repeat(2, 1))  # the same spread, and more texts than directions
    torch.testing.assert_close(few, twice, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(torch.linalg.vector_norm(rows, dim=-1), torch.ones(5))
    own, others = (inputs * rows).sum(-1), (common @ rows.T).abs().mean()
    assert float(own.min()) > 3 * float(others)
    plain = inputs / torch.linalg.vector_norm(inputs, dim=-1, keepdim=True)
    assert float(own.mean() / others) > float((inputs * plain).sum(-1).mean() / (common @ plain.T).abs().mean())


def test_new_slots_change_no_logit_and_stand_in_empty_ones_first(llama: Engine) -> None:
    memory = memory_at(llama.backbone, (-3, -2), 1)
    slab = memory.slab.clone()
    slab[:, :, 1] = 0  # a slot that holds nothing
    memory = replace(memory, slab=slab)
    rows = torch.nn.functional.normalize(torch.randn(2, 3, 32, generator=torch.Generator().manual_seed(2)), dim=-1)
    ids = torch.randint(0, 256, (1, 9), generator=torch.Generator().manual_seed(5))
    for grows, width in ((True, 6), (False, 4)):
        wider = memory.with_slots(rows, grows=grows)
        assert (wider.width, wider.layers) == (width, (-3, -2))
        assert torch.equal(wider.gate_rows[:, 1], rows[:, 0])
        assert torch.equal(
            wider.up_rows, torch.where(wider.down_rows.any(-1)[..., None], wider.up_rows, wider.gate_rows)
        )
        one, other = (llama.logits(ids, memory=MemoryBatch.of([each], llama.backbone)) for each in (memory, wider))
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
        assert from_bytes(to_bytes(wider)).slab.equal(wider.clipped().slab)


def test_a_deep_memory_grows_with_what_is_learnt_and_keeps_its_slots(llama: Engine) -> None:
    config = LocasConfig.model_validate({"memory": {"layers": [1, 2]}, "training": {"max_steps": 2}})
    trainer = Trainer(llama, config, neutral_text(llama), LastLayer.of(llama))
    told = training_task(llama, {"Dog?": "Rex", "City?": "Oslo"})
    first = trainer.starting_memories([told])[0]
    assert first.initialization == "inputs"
    assert not first.down_rows.any()
    assert first.gate_rows.any(-1).all()
    again = replace(training_task(llama, {"Car?": "Fiat"}), memory=first)
    second = trainer.starting_memories([again])[0]
    assert second.width > first.width
    assert torch.equal(second.slab[:, :, : first.width], first.slab)
    none = trainer.starting_memories([replace(told, new=())])[0]
    assert not none.slab.any()
    given = config.model_copy(update={"memory": config.memory.model_copy(update={"width": 5})})
    fixed = Trainer(llama, given, neutral_text(llama), LastLayer.of(llama))
    assert fixed.starting_memories([told])[0].width == 5
    last = given.model_copy(update={"memory": MemorySettings(layers=1)})
    assert Trainer(llama, last, neutral_text(llama), None).starting_memories([told])[0].initialization == "random"


def stretched(factor: float) -> Engine:
    """A backbone that computes the same whatever the factor, with inputs of its FFNs as many times as large."""
    engine = deep("llama")
    with torch.no_grad():
        for layer in engine.backbone.decoder.layers:
            layer.post_attention_layernorm.weight *= factor
            layer.mlp.gate_proj.weight /= factor
            layer.mlp.up_proj.weight /= factor
    return engine


def test_training_goes_as_well_however_large_the_inputs_of_ffns_are() -> None:
    """Slots that start from inputs answer with the square of these; scale and rate were chosen on one backbone."""
    usual, large = (stretched(factor) for factor in (1.0, 100.0))
    ids = torch.tensor([[7, 3, 9, 4]])
    torch.testing.assert_close(usual.logits(ids), large.logits(ids), rtol=1e-3, atol=1e-3)
    assert own_activation(large, (-3, -2)) > 1000 * own_activation(usual, (-3, -2))
    for one, other in zip(trained_at(usual), trained_at(large), strict=True):
        assert other.first_loss == pytest.approx(one.first_loss, rel=0.01)
        assert other.last_loss == pytest.approx(one.last_loss, rel=0.1)
        assert one.last_loss < 0.7 * one.first_loss

"""The LoRA peer on the tiny random backbone: it learns, leaves the backbone alone and keeps users apart."""

from __future__ import annotations

import sys

import pytest
import torch

from locas_agent.backbone import Backbone
from locas_agent.config import LocasConfig
from locas_agent.conversation.messages import question
from locas_agent.errors import ConfigurationError, IncompatibleMemory, MissingExtra
from locas_agent.evaluation.baselines.peer import AdapterState
from locas_agent.evaluation.baselines.temp_lora import TempLora
from locas_agent.inference import Engine
from locas_agent.training.loss.last_layer import LastLayer
from locas_agent.training.sampling.builder import TrainingTask
from locas_agent.training.trainer import Trainer
from tests.conftest import MakeBackbone
from tests.unit.evaluation.peer_tasks import CONFIG, chats, neutral_text, same, training_task, two_users


def make(on: Backbone, config: LocasConfig = CONFIG) -> TempLora:
    return TempLora(on, config, neutral_text(Engine(on)), rank=4, learning_rate=2e-2)


@pytest.fixture(scope="module")
def peer(backbone: Backbone) -> TempLora:
    return make(backbone)


@pytest.fixture(scope="module")
def states(peer: TempLora, engine: Engine) -> tuple[AdapterState, AdapterState]:
    return two_users(peer, engine)


def test_a_lesson_is_learnt(peer: TempLora, engine: Engine) -> None:
    seen: list[tuple[str, int, int]] = []
    trained = peer.train(
        training_task(engine, {"Dog?": "Rex", "City?": "Oslo"}), progress=lambda *step: seen.append(step)
    )
    assert trained.last_loss < 0.5 * trained.first_loss
    assert trained.steps == 24
    assert seen[-1] == ("train", 24, 24)
    assert trained.parameters == peer.parameter_count == sum(tensor.numel() for tensor in trained.state.values())
    assert trained.seconds > 0


def test_adapters_stand_beside_every_linear_layer_but_the_output(peer: TempLora) -> None:
    # 2 layers; hidden 32, heads 4 x 8 (2 for keys and values), FFN 48: rank 4 costs 4 * (in + out)
    pairs = [(32, 32), (32, 16), (32, 16), (32, 32), (32, 48), (32, 48), (48, 32)]
    assert peer.parameter_count == 2 * sum(4 * (size + out) for size, out in pairs)
    assert all(tensor.dtype == torch.float32 for tensor in peer.empty_state().values())


def test_the_backbone_is_untouched(make_backbone: MakeBackbone) -> None:
    backbone = make_backbone(seed=3)
    before = {name: tensor.clone() for name, tensor in backbone.model.state_dict().items()}
    peer = make(backbone)
    state = peer.train(training_task(Engine(backbone), {"Dog?": "Rex"}), steps=3).state
    peer.generate(chats(backbone), state, max_new_tokens=2)
    after = backbone.model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in backbone.model.parameters())
    assert (
        backbone.fingerprint == make_backbone(seed=3).fingerprint
    )  # first asked for here, so it hashes the weights as they are now


def test_an_empty_adapter_answers_as_the_bare_backbone(
    peer: TempLora, backbone: Backbone, engine: Engine, states: tuple[AdapterState, AdapterState]
) -> None:
    bare = [backbone.decode(generation.ids) for generation in engine.generate(chats(backbone), max_new_tokens=8)]
    assert peer.generate(chats(backbone), peer.empty_state(), max_new_tokens=8) == bare
    assert peer.generate(chats(backbone), states[0], max_new_tokens=8) != bare
    assert peer.generate(chats(backbone), None, max_new_tokens=8) == bare


def test_users_do_not_mix(
    peer: TempLora, backbone: Backbone, engine: Engine, states: tuple[AdapterState, AdapterState]
) -> None:
    prompts = [backbone.encode_chat(question("Dog?"))]
    scores = [
        [float(peer.engine_with(state).score(prompts, [backbone.encode(name)])[0].sum()) for name in ("Rex", "Ada")]
        for state in states
    ]
    assert scores[0][0] > scores[0][1]
    assert scores[1][1] > scores[1][0]
    kept = {name: tensor.clone() for name, tensor in states[0].items()}
    again = peer.train(training_task(engine, {"Dog?": "Ada", "City?": "Rome"})).state
    assert same(again, states[1])  # whoever was trained before
    assert same(states[0], kept)


def test_training_goes_on_from_the_former_adapter(
    peer: TempLora, engine: Engine, states: tuple[AdapterState, AdapterState]
) -> None:
    kept = {name: tensor.clone() for name, tensor in states[0].items()}
    same_task = training_task(engine, {"Dog?": "Rex", "City?": "Oslo"})
    fresh, further = (peer.train(same_task, previous, steps=2) for previous in (None, states[0]))
    assert further.first_loss < 0.5 * fresh.first_loss
    assert further.steps == 2
    assert same(states[0], kept)


def test_it_draws_what_a_memory_draws(backbone: Backbone, engine: Engine) -> None:
    """Both start as the bare backbone, so the loss of the first step is the same."""
    both = [
        training_task(engine, {"Dog?": "Rex", "City?": "Oslo"}),
        training_task(engine, {"Dog?": "Ada", "Car?": "Red"}),
    ]
    # the text to rank neurons by is missing in these tasks: choose them at random
    config = CONFIG.model_copy(
        update={"memory": CONFIG.memory.model_copy(update={"initialization": "random_index", "width": 2})}
    )
    config = config.model_copy(update={"training": config.training.model_copy(update={"max_steps": 1})})
    trained = Trainer(engine, config, neutral_text(engine), LastLayer.of(engine)).train(both)
    peer = make(backbone, config)
    for each, other in zip(both, trained, strict=True):
        assert peer.train(each).first_loss == pytest.approx(other.first_loss, rel=1e-4)


def test_building_a_peer_leaves_the_random_stream_alone(backbone: Backbone) -> None:
    torch.manual_seed(7)
    wanted = torch.rand(3)
    torch.manual_seed(7)
    peer = make(backbone)
    assert torch.equal(torch.rand(3), wanted)
    assert same(peer.empty_state(), make(backbone).empty_state())


def test_an_adapter_of_another_rank_is_refused(peer: TempLora, backbone: Backbone, engine: Engine) -> None:
    other = TempLora(backbone, CONFIG, neutral_text(engine), rank=2)
    with pytest.raises(IncompatibleMemory, match="rank"):
        peer.generate(chats(backbone), other.empty_state())


def test_arguments_out_of_bounds_are_refused(peer: TempLora, backbone: Backbone, engine: Engine) -> None:
    with pytest.raises(ConfigurationError, match="rank"):
        TempLora(backbone, CONFIG, neutral_text(engine), rank=0)
    with pytest.raises(ConfigurationError, match="steps"):
        peer.train(training_task(engine, {"Dog?": "Rex"}), steps=0)
    with pytest.raises(ConfigurationError, match="something to learn from"):
        peer.train(TrainingTask((), (), (), None))


def test_a_missing_peft_names_the_extra(backbone: Backbone, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(MissingExtra, match=r"locas-agent\[eval\]"):
        TempLora(backbone, CONFIG, neutral_text(engine))

"""The prefix peer on the tiny random backbone.

It learns, stands before every kind of forward, and keeps users apart.
"""

from __future__ import annotations

import sys

import pytest
import torch

from locas_agent.backbone import Backbone
from locas_agent.errors import ConfigurationError, IncompatibleMemory, MissingExtra
from locas_agent.evaluation.baselines.peer import AdapterState
from locas_agent.evaluation.baselines.prefix_tuning import PrefixTuning
from locas_agent.inference import Engine
from tests.conftest import MakeBackbone
from tests.unit.evaluation.peer_tasks import CONFIG, chats, neutral_text, same, training_task, two_users

TOKENS = 12


def make(on: Backbone) -> PrefixTuning:
    return PrefixTuning(on, CONFIG, neutral_text(Engine(on)), tokens=TOKENS, learning_rate=5e-2)


@pytest.fixture(scope="module")
def peer(backbone: Backbone) -> PrefixTuning:
    return make(backbone)


@pytest.fixture(scope="module")
def states(peer: PrefixTuning, engine: Engine) -> tuple[AdapterState, AdapterState]:
    return two_users(peer, engine)


def test_a_lesson_is_learnt_by_keys_and_values_alone(make_backbone: MakeBackbone) -> None:
    backbone = make_backbone(seed=3)
    before = {name: tensor.clone() for name, tensor in backbone.model.state_dict().items()}
    peer = make(backbone)
    trained = peer.train(training_task(Engine(backbone), {"Dog?": "Rex", "City?": "Oslo"}))
    assert trained.last_loss < 0.85 * trained.first_loss
    assert trained.parameters == TOKENS * 2 * 2 * 2 * 8  # 2 layers, keys and values, 2 heads of 8
    assert all(torch.equal(tensor, before[name]) for name, tensor in backbone.model.state_dict().items())


def test_users_do_not_mix(
    peer: PrefixTuning, backbone: Backbone, engine: Engine, states: tuple[AdapterState, AdapterState]
) -> None:
    prompts = [backbone.encode_chat([{"role": "user", "content": "Dog?"}])]
    scores = [
        [float(peer.engine_with(state).score(prompts, [backbone.encode(name)])[0].sum()) for name in ("Rex", "Ada")]
        for state in states
    ]
    assert scores[0][0] > scores[0][1]
    assert scores[1][1] > scores[1][0]
    kept = {name: tensor.clone() for name, tensor in states[0].items()}
    assert same(
        peer.train(training_task(engine, {"Dog?": "Ada", "City?": "Rome"})).state, states[1]
    )  # whoever was trained before
    assert same(states[0], kept)


def test_without_a_prefix_the_copy_is_the_bare_backbone(
    peer: PrefixTuning, backbone: Backbone, engine: Engine, states: tuple[AdapterState, AdapterState]
) -> None:
    bare = [backbone.decode(each.ids) for each in engine.generate(chats(backbone), max_new_tokens=8)]
    assert peer.generate(chats(backbone), states[0], max_new_tokens=8) != bare
    assert peer.generate(chats(backbone), None, max_new_tokens=8) == bare


def test_untrained_prefix_is_neutral_text_that_stands_before(
    peer: PrefixTuning, backbone: Backbone, engine: Engine
) -> None:
    """What PEFT shapes and the wrapped decoder hands over are the keys and values of those tokens, at their places.

    Also with padding.
    """
    text = neutral_text(engine).anchors[0]
    beginning = [*text.prompt, *text.target][:TOKENS]
    prompts, answers = chats(backbone), [backbone.encode(word) for word in ("Rex", "Oslo", "A", "Long answer")]
    behind = peer.engine_with(peer.empty_state()).score(prompts, answers)
    before = engine.score([[*beginning, *prompt] for prompt in prompts], answers)
    for got, expected in zip(behind, before, strict=True):
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)
    generated = peer.engine_with(peer.empty_state()).generate(prompts, max_new_tokens=8, groups=[0, 0, 1, 1])
    assert [each.ids for each in generated] == [
        each.ids for each in engine.generate([[*beginning, *prompt] for prompt in prompts], max_new_tokens=8)
    ]


def test_what_cannot_be_is_refused(
    peer: PrefixTuning, backbone: Backbone, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = PrefixTuning(backbone, CONFIG, neutral_text(engine), tokens=5)
    with pytest.raises(IncompatibleMemory, match="length"):
        peer.generate(chats(backbone), other.empty_state())
    for tokens in (0, backbone.context_tokens):
        with pytest.raises(ConfigurationError, match="tokens is from 1"):
            PrefixTuning(backbone, CONFIG, neutral_text(engine), tokens=tokens)
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(MissingExtra, match=r"locas-agent\[eval\]"):
        make(backbone)

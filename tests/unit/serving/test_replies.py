"""What a reply leaves in the journal when something goes wrong: nothing before the answer, and nothing lost after it.

The backbone is a random one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from locas_agent import AgentMemory, Backbone, LocasConfig
from locas_agent.config import MemorySettings
from locas_agent.conversation.token_count import max_turn_tokens
from locas_agent.errors import ConfigurationError, RevisionConflict, TurnTooLong
from locas_storage import InMemoryStore
from tests.unit.agent.fake_learner import CONFIG, QuickLearner, Texts, quick_agent


@pytest.fixture
def agent(backbone: Backbone) -> Iterator[AgentMemory]:
    with quick_agent(backbone, InMemoryStore(), "inline") as made:
        yield made


def say_much(agent: AgentMemory, user: str) -> None:
    """Say what is more than the window holds, so that the next reply sets off a consolidation."""
    for number in range(8):
        agent.for_user(user).add("user", f"{user} says {number}")


@pytest.mark.parametrize(
    "wrong",
    [{"max_new_tokens": 0}, {"max_new_tokens": -1}, {"max_new_tokens": 100_000}, {"temperature": -1.0}],
    ids=str,
)
def test_what_cannot_be_answered_is_not_journalled(agent: AgentMemory, wrong: dict[str, Any]) -> None:
    ada = agent.for_user("ada")
    with pytest.raises(ConfigurationError):
        ada.reply("Hello.", **wrong)
    with pytest.raises(ConfigurationError):
        list(ada.stream("Hello.", **wrong))
    assert ada.turns() == []


def test_a_turn_that_leaves_no_room_for_the_answer_asked_for_is_not_journalled(agent: AgentMemory) -> None:
    ada, long = agent.for_user("ada"), max_turn_tokens(agent.backbone, CONFIG.window.max_new_tokens) - 20
    ada.add("user", "x" * long)  # fits beside a short answer
    with pytest.raises(TurnTooLong, match="beside an answer of 40"):
        ada.reply("x" * long, max_new_tokens=40)
    assert len(ada.turns()) == 1


def test_one_turn_too_long_leaves_no_other_unanswered(agent: AgentMemory) -> None:
    with pytest.raises(TurnTooLong):
        agent.reply_many([("ada", "Hello."), ("ben", "x" * 5000)])
    assert agent.for_user("ada").turns() == []


def test_noise_whose_spelling_is_longer_than_a_turn_can_be_is_cut(agent: AgentMemory) -> None:
    most = max_turn_tokens(agent.backbone, CONFIG.window.max_new_tokens)
    ada = agent.for_user("ada")
    # Bytes that are no letters are spelt with three each; with this seed the noise does not end before it is long.
    reply = ada.reply("Hi.", max_new_tokens=most - 50, temperature=50.0, seed=6)
    assert [turn.content for turn in ada.turns()] == ["Hi.", reply.text]
    assert most - 50 < reply.turn.token_count <= most


def test_an_answer_outlives_the_consolidation_it_set_off(agent: AgentMemory) -> None:
    learner = agent.runner.learner
    assert isinstance(learner, QuickLearner)
    say_much(agent, "ada")

    def overtaken(_: list[Texts]) -> None:
        raise RevisionConflict("somebody else was faster")

    learner.meanwhile = overtaken
    hers, his = agent.reply_many([("ada", "Hello."), ("ben", "Hello.")])
    assert hers.consolidation is not None
    assert (hers.consolidation.status, hers.consolidation.reason, hers.consolidation.revision) == (
        "failed",
        "RevisionConflict",
        None,
    )
    assert his.consolidation is None
    for user, reply in (("ada", hers), ("ben", his)):
        assert agent.for_user(user).turns()[-1].content == reply.text
    learner.meanwhile = lambda _: None
    after = agent.for_user("ada").reply("And now?").consolidation
    assert after is not None  # it was still due
    assert after.admitted


def test_nobody_is_consolidated_twice_in_one_call(agent: AgentMemory) -> None:
    say_much(agent, "ada")
    with pytest.raises(ConfigurationError, match="each once"):
        agent.consolidate_many(["ada", "ada"])
    assert agent.for_user("ada").revisions() == []


@pytest.mark.parametrize("wrong", [MemorySettings(layers=100), MemorySettings(width=100_000)], ids=["layers", "width"])
def test_a_shape_the_backbone_does_not_have_is_refused_at_once(backbone: Backbone, wrong: MemorySettings) -> None:
    with pytest.raises(ConfigurationError, match=r"choose (less|among those)"):
        AgentMemory(backbone=backbone, store=InMemoryStore(), config=LocasConfig(memory=wrong))

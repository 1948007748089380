"""A fleet: each user is answered on the backbone of the memory, also while users are moved."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from locas_agent import AgentMemory, Backbone, Fleet
from locas_agent.errors import ConfigurationError, IncompatibleMemory
from locas_storage import InMemoryStore, SqlMemoryStore, Turn, TurnDraft, UserKey
from tests.conftest import MakeBackbone
from tests.unit.agent.fake_learner import quick_agent

ADA = UserKey("default", "ada")


@pytest.fixture
def fleet_of_two(
    backbone: Backbone, make_backbone: MakeBackbone, tmp_path: Path
) -> Iterator[tuple[Fleet, AgentMemory, AgentMemory]]:
    """A fleet, and its agents on the old backbone and the new one."""
    store = SqlMemoryStore(f"sqlite:///{tmp_path / 'locas.db'}")
    old, new = quick_agent(backbone, store), quick_agent(make_backbone(seed=1), store)
    with Fleet([old, new]) as fleet:
        yield fleet, old, new


def test_handle_is_held_across_a_move(fleet_of_two: tuple[Fleet, AgentMemory, AgentMemory], backbone: Backbone) -> None:
    fleet, old, new = fleet_of_two
    ada, ben = fleet.for_user("ada"), fleet.for_user("ben")
    for user in (ada, ben):
        user.add("user", "My dog is Rex.")
        assert user.consolidate(flush=True).admitted
    assert fleet.users() == [ada.key, ben.key]
    assert fleet.runtime_of(ada.key) is old
    assert ada.reply("hello").revision == 1
    new.upgrade(["ada"], former=[backbone])
    assert fleet.runtime_of(ada.key) is new
    assert fleet.runtime_of(ben.key) is old
    assert ada.reply("hello").revision == 3
    assert "".join(ada.stream("and again")) == ada.turns()[-1].content
    assert asyncio.run(ada.areply("once more")).revision == 3
    assert ben.reply("hello").revision == 1
    asyncio.run(ada.aforget(1))  # what saw the turn goes, and is learnt again where the user is
    assert fleet.runtime_of(ada.key) is new
    assert {one.fingerprint for one in ada.revisions()[3:]} == {new.backbone.fingerprint}
    new.undo_upgrade(["ben"])
    assert fleet.runtime_of(ben.key) is old


def test_reply_follows_a_user_who_is_moved_after_the_question_was_journalled(
    fleet_of_two: tuple[Fleet, AgentMemory, AgentMemory], backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet, old, new = fleet_of_two
    ada = fleet.for_user("ada")
    ada.add("user", "My dog is Rex.")
    ada.consolidate(flush=True)
    say = old.replies._say

    def say_and_move(user: UserKey, draft: TurnDraft) -> Turn:
        turn = say(user, draft)
        new.upgrade(["ada"], former=[backbone])
        return turn

    monkeypatch.setattr(old.replies, "_say", say_and_move)
    reply = ada.reply("hello")
    assert reply.revision == 3
    assert [turn.role for turn in ada.turns()] == ["user", "user", "assistant"]


def test_user_of_a_backbone_that_the_fleet_lacks_is_refused(
    fleet_of_two: tuple[Fleet, AgentMemory, AgentMemory], backbone: Backbone, make_backbone: MakeBackbone
) -> None:
    fleet, old, _ = fleet_of_two
    third = quick_agent(make_backbone(seed=2), old.store)
    third.for_user("ada").add("user", "My dog is Rex.")
    third.for_user("ada").consolidate(flush=True)
    with pytest.raises(IncompatibleMemory, match=third.backbone.fingerprint[:12]):
        fleet.for_user("ada").reply("hello")
    with pytest.raises(ConfigurationError, match="each backbone"):
        Fleet([])
    with pytest.raises(ConfigurationError, match="each backbone"):
        Fleet([old, quick_agent(backbone, old.store)])
    with pytest.raises(ConfigurationError, match="one store"):
        Fleet([old, quick_agent(make_backbone(seed=2), InMemoryStore())])

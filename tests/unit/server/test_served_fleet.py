"""A server of two backbones: each user is answered where the memory is, also while users are moved and taken back."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from httpx import ASGITransport, AsyncClient, Response

from locas_agent import AgentMemory, Backbone, Fleet, MemoryHost
from locas_agent.cli.model import open_host
from locas_agent.errors import ConfigurationError, IncompatibleMemory
from locas_agent.fleet import Learning
from locas_agent.server.app import create_app
from locas_agent.server.endpoints import model_names
from locas_agent.server.reply_queue import ReplyQueue
from locas_agent.server.settings import ServerSettings
from locas_storage import SqlMemoryStore, UserKey
from tests.conftest import MakeBackbone, MakeBackboneFolder
from tests.unit.agent.fake_learner import quick_agent
from tests.unit.server.conftest import wait_for

OLD, NEW = "random-0", "random-1"


@pytest.fixture
def fleet(backbone: Backbone, make_backbone: MakeBackbone, tmp_path: Path) -> Iterator[Fleet]:
    """Two backbones; ada's and ben's memories are on the first, cleo's on the second."""
    store = SqlMemoryStore(f"sqlite:///{tmp_path / 'locas.db'}")
    with Fleet([quick_agent(backbone, store), quick_agent(make_backbone(seed=1), store)]) as made:
        old, new = made.agents
        for agent, user in ((old, "ada"), (old, "ben"), (new, "cleo")):
            agent.for_user(user).add("user", f"I am {user}.")
            assert agent.for_user(user).consolidate(flush=True).admitted
        yield made


async def asked(host: MemoryHost, *users: str, model: str = OLD, **body: Any) -> list[Response]:
    """Send a request of each user at once, each with a key of the user."""
    app = create_app(host, ServerSettings(learns=False))
    keys = [host.store.api_keys.new("default", user).secret for user in users]
    sent = {"model": model, "messages": [{"role": "user", "content": "Who?"}], "max_tokens": 4} | body
    async with app.router.lifespan_context(app), AsyncClient(transport=ASGITransport(app), base_url="http://s") as http:
        return await asyncio.gather(
            *(http.post("/v1/chat/completions", json=sent, headers={"Authorization": f"Bearer {key}"}) for key in keys)
        )


def text_of(response: Response) -> str:
    assert response.status_code == 200, response.text
    return str(response.json()["choices"][0]["message"]["content"])


def revision_of(response: Response) -> int:
    assert response.status_code == 200, response.text
    return int(response.json()["locas"]["revision"])


def alone(agent: AgentMemory, user: str) -> str:
    """Return what an agent answers by itself."""
    return agent.for_user(user).generate([{"role": "user", "content": "Who?"}], max_new_tokens=4).text


@pytest.mark.rounding
async def test_users_of_two_backbones_are_answered_side_by_side_each_on_the_right_one(fleet: Fleet) -> None:
    old, new = fleet.agents
    found = await asked(fleet, "ada", "ben", "cleo", "nobody yet")
    expected = [alone(old, "ada"), alone(old, "ben"), alone(new, "cleo"), alone(old, "nobody yet")]
    assert [text_of(one) for one in found] == expected
    assert [one.json()["locas"]["used_memory"] for one in found] == [True, True, True, False]
    with pytest.raises(IncompatibleMemory):
        alone(old, "cleo")  # it could not have answered her
    said = {user: [turn.content for turn in fleet.for_user(user).turns()] for user in ("ada", "cleo")}
    assert all(user in turns[0] and len(turns) == 3 for user, turns in said.items())


@pytest.mark.rounding
async def test_user_is_followed_to_another_backbone_and_back(fleet: Fleet) -> None:
    old, new = fleet.agents
    before = text_of((await asked(fleet, "ada", "ben"))[0])
    new.upgrade(["ada"], former=[old.backbone])
    moved, stayed = await asked(fleet, "ada", "ben")
    assert (revision_of(moved), revision_of(stayed)) == (3, 1)
    assert text_of(moved) == alone(new, "ada")
    new.undo_upgrade(["ada"])
    assert text_of((await asked(fleet, "ada"))[0]) == before == alone(old, "ada")


@pytest.mark.rounding
async def test_user_who_is_moved_while_the_answer_begins_is_answered(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = fleet.agents
    tell_all, moved = ReplyQueue._tell_all, []

    def move_first(queue: ReplyQueue, home: AgentMemory, *rest: Any) -> None:
        if not moved:
            moved.append(home)
            new.upgrade(["ada"], former=[old.backbone])
        tell_all(queue, home, *rest)

    monkeypatch.setattr(ReplyQueue, "_tell_all", move_first)
    (found,) = await asked(fleet, "ada")
    assert moved == [old]
    assert (text_of(found), revision_of(found)) == (alone(new, "ada"), 3)


async def test_models_lists_every_backbone_and_any_may_be_named(fleet: Fleet) -> None:
    app = create_app(fleet, ServerSettings(learns=False))
    key = fleet.store.api_keys.new("default").secret
    async with AsyncClient(
        transport=ASGITransport(app), base_url="http://s", headers={"Authorization": f"Bearer {key}"}
    ) as http:
        listed = (await http.get("/v1/models")).json()["data"]
        assert [one["id"] for one in listed] == [OLD, NEW]
        assert (await http.get(f"/v1/models/{NEW}")).json()["id"] == NEW
        missing = await http.get("/v1/models/another")
    assert missing.status_code == 404
    assert OLD in missing.json()["error"]["message"]
    assert NEW in missing.json()["error"]["message"]


def test_backbones_of_one_name_are_told_apart_or_refused(fleet: Fleet) -> None:
    assert model_names(fleet, ServerSettings(model="shop")) == ["shop", NEW]
    with pytest.raises(ConfigurationError, match="--model"):
        model_names(fleet, ServerSettings(model=NEW))


def test_each_agent_learns_what_belongs_on_its_backbone(fleet: Fleet) -> None:
    for user in ("ada", "cleo"):
        fleet.for_user(user).add("user", "I sing.")
        assert fleet.for_user(user).consolidate(flush=True, wait=False).status == "queued"
    with Learning(fleet.agents):
        wait_for(lambda: all(len(fleet.for_user(user).revisions()) == 2 for user in ("ada", "cleo")))
    heads = [fleet.store.revision(UserKey("default", user)) for user in ("ada", "cleo")]
    assert [head.fingerprint for head in heads if head] == [agent.backbone.fingerprint for agent in fleet.agents]


def test_command_opens_one_store_for_all_backbones_it_is_given(
    backbone_folder: str, make_backbone_folder: MakeBackboneFolder
) -> None:
    both = open_host(
        [backbone_folder, make_backbone_folder(600)], "sqlite://", None, "auto", consolidation="background"
    )
    with both:
        assert [agent.consolidation for agent in both.agents] == ["background"] * 2
        assert len({agent.backbone.fingerprint for agent in both.agents}) == 2
        both.for_user("ada").add("user", "My dog is Rex.")
        assert all(agent.users() == both.users() for agent in both.agents)
    with open_host([backbone_folder], "sqlite://", None, "auto") as one:
        assert one.agents == (one,)  # whose user's home need not be looked up

"""What an actor does in its process, and what each takes of a cluster; how Ray begins it anew is a gate."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from locas_agent import AgentMemory, Backbone
from locas_storage import TurnDraft, UserKey, open_store
from tests.unit.agent.fake_learner import quick_agent

pytest.importorskip("ray", reason="Ray is not installed: the extra `ray`")
from locas_ray.cluster import RayResources
from locas_ray.workers import ConsolidationActor

pytestmark = pytest.mark.rounding
USERS = [UserKey("default", name) for name in ("ada", "ben")]


@pytest.fixture
def opened(make_backbone: Callable[..., Backbone], tmp_path: Path) -> Callable[[], AgentMemory]:
    """Two users have said something that waits to be learnt."""
    url = f"sqlite:///{tmp_path / 'locas.db'}"
    with closing(open_store(url)) as store:
        for key in USERS:
            store.append(key, [TurnDraft("user", f"{key.user} speaks", token_count=20)], enqueue=1)
    return lambda: quick_agent(make_backbone(), open_store(url))


async def work(actor: ConsolidationActor, *, once: bool) -> object:
    return await actor.work(once=once, jobs_at_once=8, lease_seconds=300.0, poll_seconds=0.05)


async def test_actor_learns_what_is_due(opened: Callable[[], AgentMemory]) -> None:
    done = await work(ConsolidationActor(opened), once=True)
    assert getattr(done, "admitted") == len(USERS)  # noqa: B009
    with opened() as agent:
        assert [len(agent.store.revisions(key)) for key in USERS] == [1, 1]


async def test_actor_that_waits_for_more_ends_when_it_is_told(opened: Callable[[], AgentMemory]) -> None:
    actor = ConsolidationActor(opened)
    working = asyncio.ensure_future(work(actor, once=False))
    with opened() as agent:
        while not all(agent.store.revisions(key) for key in USERS):
            assert not working.done()
            await asyncio.sleep(0.02)
    await actor.stop()
    assert getattr(await working, "admitted") == len(USERS)  # noqa: B009


@pytest.mark.parametrize(
    ("asked", "has", "actors", "gpus"),
    [
        ({}, {"CPU": 8.0}, 8, 0.0),
        ({"cpus": 3.0}, {"CPU": 8.0}, 2, 0.0),
        ({"cpus": 16.0}, {"CPU": 8.0}, 1, 0.0),  # it waits for a machine that large
        ({}, {"CPU": 32.0, "GPU": 4.0}, 4, 1.0),
        ({"gpus": 0.5}, {"CPU": 32.0, "GPU": 4.0}, 8, 0.5),
        ({"gpus": 0.0}, {"CPU": 32.0, "GPU": 4.0}, 32, 0.0),
        ({"actors": 3}, {"CPU": 32.0, "GPU": 4.0}, 3, 1.0),
    ],
)
def test_there_are_as_many_as_there_is_room_for(
    asked: dict[str, float], has: dict[str, float], actors: int, gpus: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ray.cluster_resources", lambda: has)
    settled = RayResources.model_validate(asked).settled()
    assert (settled.actors, settled.gpus) == (actors, gpus)

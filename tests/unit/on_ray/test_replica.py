"""A replica by itself, without a cluster: each answer with its own user's memory, whatever is under way beside it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest

from locas_agent import AgentMemory
from locas_agent.server.settings import ServerSettings
from locas_ray.relayed import RelayedRequest
from locas_storage import UserKey

pytest.importorskip("ray", reason="Ray is not installed: the extra `ray`")
from locas_ray.replica import AnsweringReplica
from tests.unit.langchain.conftest import Teach, teach  # noqa: F401  a fixture
from tests.unit.server.conftest import MODEL, agent, with_tools  # noqa: F401  fixtures

pytestmark = pytest.mark.rounding


@pytest.fixture
async def replica(agent: AgentMemory) -> AsyncIterator[AnsweringReplica]:  # noqa: F811
    made = AnsweringReplica(lambda: agent, ServerSettings(model=MODEL, learns=False))
    yield made
    await made.leave()


def asked(agent: AgentMemory, user: str, **body: Any) -> RelayedRequest:  # noqa: F811
    secret = agent.store.api_keys.new("default", user).secret
    said = {"model": MODEL, "messages": [{"role": "user", "content": "Who am I?"}], "max_tokens": 8} | body
    headers = ((b"authorization", f"Bearer {secret}".encode()),)
    return RelayedRequest("POST", "/v1/chat/completions", b"", headers, json.dumps(said).encode())


async def heard(replica: AnsweringReplica, request: RelayedRequest) -> tuple[int, bytes]:
    """Return the status and the body of an answer."""
    async with aclosing(replica.answer(request)) as pieces:
        messages = [message async for some in pieces for message in some]
    return messages[0]["status"], b"".join(message.get("body", b"") for message in messages)


def text_of(body: bytes) -> str:
    return str(json.loads(body)["choices"][0]["message"]["content"])


async def test_each_is_answered_with_the_own_memory(
    replica: AnsweringReplica,
    agent: AgentMemory,  # noqa: F811
    teach: Teach,  # noqa: F811
) -> None:
    users = ["ada", "ben", "cleo"]
    for seed, user in enumerate(users):
        teach(user, seed=seed)
    question = [{"role": "user", "content": "Who am I?"}]
    own = [agent.for_user(user).generate(question, max_new_tokens=8).text for user in users]
    answers = await asyncio.gather(*(heard(replica, asked(agent, user, store=False)) for user in users))
    assert [status for status, _ in answers] == [200] * 3
    told = [text_of(body) for _, body in answers]
    assert len({text[:4] for text in own}) == 3  # they could be told apart
    assert [text[:4] for text in told] == [text[:4] for text in own]


async def test_stream_comes_in_pieces_and_is_journalled(
    replica: AnsweringReplica,
    agent: AgentMemory,  # noqa: F811
) -> None:
    status, body = await heard(replica, asked(agent, "ada", stream=True))
    assert (status, body.endswith(b"data: [DONE]\n\n")) == (200, True)
    turns = agent.store.turns(UserKey("default", "ada"))
    assert [turn.role for turn in turns][:1] == ["user"]


async def test_answer_that_nobody_waits_for_stops(replica: AnsweringReplica, agent: AgentMemory) -> None:  # noqa: F811
    async with aclosing(replica.answer(asked(agent, "ada", stream=True, max_tokens=400))) as pieces:
        await anext(pieces)
    # another one finds room at once, and the journal has no answer to the first
    assert (await heard(replica, asked(agent, "ben")))[0] == 200
    assert [turn.role for turn in agent.store.turns(UserKey("default", "ada"))] == ["user"]


async def test_fault_of_the_application_is_told_without_its_text(
    replica: AnsweringReplica,
    agent: AgentMemory,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def broken(*_: object) -> None:
        raise RuntimeError("what somebody said")

    monkeypatch.setattr(replica, "_app", broken)
    status, body = await heard(replica, asked(agent, "ada"))
    assert (status, json.loads(body)["error"]["type"]) == (500, "server_error")
    assert "what somebody said" not in body.decode() + caplog.text


async def test_who_sends_no_key_is_refused(replica: AnsweringReplica) -> None:
    assert (await heard(replica, RelayedRequest("GET", "/v1/models", b"", (), b"")))[0] == 401

"""The application as Ray Serve takes it: front and replica over its handles, in this process, without a cluster."""

from __future__ import annotations

import json
from typing import Any

import pytest
from starlette.requests import Request
from starlette.types import Message

from locas_agent import AgentMemory
from locas_agent.server.settings import ServerSettings
from locas_storage import UserKey

pytest.importorskip("ray", reason="Ray is not installed: the extra `ray`")
from ray import serve

from locas_ray.cluster import RayResources
from locas_ray.serving import ray_application
from tests.unit.server.conftest import MODEL, agent, with_tools  # noqa: F401  fixtures

pytestmark = [pytest.mark.rounding, pytest.mark.filterwarnings("ignore")]  # Serve's own, of loops that it leaves open


_OPENED: list[AgentMemory] = []


def opened() -> AgentMemory:
    """Return the agent of the test; Serve pickles what it is given, which an agent refuses."""
    return _OPENED[-1]


@pytest.fixture
def front(agent: AgentMemory, monkeypatch: pytest.MonkeyPatch) -> Any:  # noqa: F811
    """A handle of the application's front."""
    monkeypatch.setattr("ray.cluster_resources", lambda: {"CPU": 2.0})
    settings = ServerSettings(model=MODEL, learns=False)
    _OPENED[:] = [agent]
    application = ray_application(opened, settings, RayResources())
    return serve.run(application, _local_testing_mode=True)


async def test_question_goes_through_front_and_replica(front: Any, agent: AgentMemory) -> None:  # noqa: F811
    secret = agent.store.api_keys.new("default").secret
    asked = {"model": MODEL, "user": "ada", "messages": [{"role": "user", "content": "Hello."}], "max_tokens": 8}
    headers = [(b"authorization", f"Bearer {secret}".encode())]
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/chat/completions",
        "query_string": b"",
        "headers": headers,
    }
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": json.dumps(asked).encode(), "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    response = await front.remote(Request(scope, receive))
    await response(scope, receive, send)
    assert sent[0]["status"] == 200
    assert json.loads(sent[1]["body"])["object"] == "chat.completion"
    assert agent.store.turns(UserKey("default", "ada"))[0].content == "Hello."

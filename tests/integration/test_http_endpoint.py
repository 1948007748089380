"""The example of an HTTP endpoint: each key is answered with the memory of its user, and nobody without one."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from locas_agent import AgentMemory, Backbone, LocasConfig
from locas_storage import InMemoryStore
from tests.conftest import MakeMemory
from tests.unit.langchain.conftest import taught

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "http_endpoint.py"
ASKED = [{"role": "user", "content": "What is my dog called?"}]
CONFIG = LocasConfig.model_validate({"memory": {"width": 2}, "window": {"max_new_tokens": 8}})


@pytest.fixture
def agent(backbone: Backbone, make_memory: MakeMemory) -> Iterator[AgentMemory]:
    with AgentMemory(backbone=backbone, store=InMemoryStore(), config=CONFIG) as made:
        for seed, user in enumerate(("ada", "ben")):
            taught(made, make_memory(seed), user)
        yield made


@pytest.fixture
def port(agent: AgentMemory) -> Iterator[int]:
    spec = spec_from_file_location("http_endpoint", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    serving = module.server(agent, {"ada's key": "ada", "ben's key": "ben"}, port=0)
    thread = Thread(target=serving.serve_forever)
    thread.start()
    yield serving.server_address[1]
    serving.shutdown()
    thread.join()
    serving.server_close()


def post(port: int, body: object, key: str | None = "ada's key") -> tuple[int, dict[str, Any]]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    connection.request("POST", "/", body if isinstance(body, str) else json.dumps(body), headers)
    response = connection.getresponse()
    found = response.status, json.loads(response.read())
    connection.close()
    return found


def test_each_key_is_answered_with_the_memory_of_its_user(port: int, agent: AgentMemory) -> None:
    journals = [agent.for_user(user).turns() for user in ("ada", "ben")]
    status, ada = post(port, {"messages": ASKED})
    assert (status, ada["content"]) == (200, agent.for_user("ada").generate(ASKED).text)
    assert post(port, {"messages": ASKED}, "ben's key")[1]["content"] == agent.for_user("ben").generate(ASKED).text
    assert ada["content"] != agent.for_user("ben").generate(ASKED).text  # the memories do something
    assert [agent.for_user(user).turns() for user in ("ada", "ben")] == journals


@pytest.mark.parametrize("key", [None, "", "ada", "another key"])
def test_nobody_without_a_key_is_answered(port: int, key: str | None) -> None:
    status, body = post(port, {"messages": ASKED}, key)
    assert (status, list(body)) == (401, ["error"])


@pytest.mark.parametrize(
    "body", ["no JSON", {}, [], {"messages": []}, {"messages": "Hi."}, {"messages": ASKED, "max_tokens": 0}], ids=str
)
def test_what_cannot_be_answered_is_refused_with_a_message(port: int, body: object) -> None:
    status, said = post(port, body)
    assert (status, list(said)) == (400, ["error"])


def test_example_is_short() -> None:
    assert len(EXAMPLE.read_text(encoding="utf-8").splitlines()) <= 60

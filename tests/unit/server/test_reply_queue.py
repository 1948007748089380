"""The queue: bounded, and whoever goes away gives the place to the next."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncGenerator
from contextlib import closing
from http.client import HTTPConnection
from typing import Any

import pytest
from openai import APIStatusError
from starlette.types import Message

from locas_agent import AgentMemory
from locas_agent.server.protocol.events import EventStream
from tests.conftest import MakeMemory
from tests.unit.server.conftest import MODEL, Gate, Serve, Served, taught, wait_for

pytestmark = pytest.mark.rounding

LONG: dict[str, Any] = {"model": MODEL, "max_tokens": 40}


def asked(text: str, **options: Any) -> dict[str, Any]:
    return LONG | {"messages": [{"role": "user", "content": text}]} | options


def in_metrics(served: Served, name: str) -> float:
    with closing(HTTPConnection("127.0.0.1", served.port, timeout=60)) as connection:
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
    return next(float(line.split()[1]) for line in text.splitlines() if line.startswith(f"{name} "))


def test_queue_that_is_full_answers_429(serve: Serve, gate: Gate) -> None:
    served = serve(answers_at_once=1, waiting_answers=1)
    client = served.client()
    done: list[str] = []

    def ask(name: str) -> None:
        made = client.chat.completions.create(**asked(f"I am {name}."), user=name)
        done.append(made.choices[0].finish_reason)

    threads = [threading.Thread(target=ask, args=(name,)) for name in ("ada", "ben")]
    for thread in threads:
        thread.start()
    wait_for(lambda: in_metrics(served, "locas_waiting_requests") == 1)
    for stream in (False, True):
        with pytest.raises(APIStatusError) as caught:
            client.chat.completions.create(**asked("I am late."), user="carl", stream=stream)
        assert (caught.value.status_code, caught.value.code) == (429, "queue_full")
        assert caught.value.response.headers["retry-after"] == "1"
    with pytest.raises(APIStatusError):
        client.responses.create(model=MODEL, input="I am late.", safety_identifier="carl")
    assert served.said("carl") == []  # nothing was done for what was refused
    gate.open()
    for thread in threads:
        thread.join()
    assert len(done) == 2
    assert client.chat.completions.create(**asked("Now?"), user="carl").choices


@pytest.mark.parametrize("stream", [True, False])
def test_client_that_goes_away_stops_its_answer(serve: Serve, gate: Gate, stream: bool) -> None:
    served = serve(answers_at_once=1)
    connection = served.connection()
    headers = {"Authorization": f"Bearer {served.secret}"}
    connection.request("POST", "/v1/chat/completions", json.dumps(asked("Hello.", stream=stream, user="ada")), headers)
    wait_for(lambda: gate.begun)
    assert connection.sock is not None
    connection.sock.close()
    connection.close()
    wait_for(lambda: in_metrics(served, "locas_answers_left_total") == 1)
    gate.open()
    wait_for(lambda: in_metrics(served, "locas_running_answers") == 0)
    assert gate.tokens <= 20  # of 40: it did not run to its end
    assert served.said() == [("user", "Hello.")]  # the question is kept, no half answer
    made = served.client().chat.completions.create(**asked("Hello."), user="ada")
    assert made.usage is not None
    assert made.usage.completion_tokens > 20  # the place is free, and whole answers are longer
    assert [role for role, _ in served.said()] == ["user", "assistant"]


def test_client_that_goes_away_while_it_waits_is_not_answered(serve: Serve, gate: Gate) -> None:
    served = serve(answers_at_once=1)
    first, second = served.connection(), served.connection()
    headers = {"Authorization": f"Bearer {served.secret}"}
    for connection, user in ((first, "ada"), (second, "ben")):
        connection.request("POST", "/v1/chat/completions", json.dumps(asked("Hello.", user=user)), headers)
        wait_for(lambda: gate.begun)
    wait_for(lambda: in_metrics(served, "locas_waiting_requests") == 1)
    assert second.sock is not None
    second.sock.close()
    second.close()
    wait_for(lambda: in_metrics(served, "locas_waiting_requests") == 0)
    gate.open()
    assert first.getresponse().status == 200
    assert gate.begun == 1


def test_answers_of_several_users_are_rows_of_one_batch(
    serve: Serve, gate: Gate, agent: AgentMemory, make_memory: MakeMemory
) -> None:
    names = ("ada", "ben", "carl", "dora")
    for seed, name in enumerate(names):
        taught(agent, make_memory(seed, on=agent.backbone), name)
    alone = {name: agent.for_user(name).generate(asked("Who am I?")["messages"], max_new_tokens=40) for name in names}
    assert len({answer.text for answer in alone.values()}) == len(names)
    served = serve(answers_at_once=4)
    client = served.client()
    got: dict[str, str] = {}

    def ask(name: str) -> None:
        pieces = client.chat.completions.create(**asked("Who am I?"), user=name, stream=True)
        got[name] = "".join(chunk.choices[0].delta.content or "" for chunk in pieces if chunk.choices)

    threads = [threading.Thread(target=ask, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    wait_for(lambda: in_metrics(served, "locas_running_answers") == 4)
    gate.open()
    for thread in threads:
        thread.join()
    assert gate.most_at_once > 1
    # a row beside others is rounded differently; that it is another user's answer shows from the first tokens on
    assert {name: text[:4] for name, text in got.items()} == {name: alone[name].text[:4] for name in names}


def test_answer_that_takes_too_long_is_ended(serve: Serve, gate: Gate) -> None:
    served = serve(answer_seconds=0.2)
    threading.Timer(0.5, gate.open).start()
    with pytest.raises(APIStatusError) as caught:
        served.client().chat.completions.create(**asked("Hello."), user="ada")
    assert (caught.value.status_code, caught.value.code) == (504, "timeout")


async def test_client_that_accepts_nothing_is_left() -> None:
    ended: list[str] = []

    async def events() -> AsyncGenerator[bytes]:
        try:
            while True:
                yield b"data: {}\n\n"
        finally:
            ended.append("closed")

    async def receive() -> Message:
        await asyncio.sleep(60)
        raise AssertionError("the client says nothing more")

    async def send(message: Message) -> None:
        if message["type"] == "http.response.body":
            await asyncio.sleep(60)  # its window is full

    scope = {"type": "http", "method": "GET", "headers": []}
    async with asyncio.timeout(20):
        await EventStream(events(), send_seconds=0.05)(scope, receive, send)
    assert ended == ["closed"]

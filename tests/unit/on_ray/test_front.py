"""The front over replicas that die, are full, or answer: what its clients get of each."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import pytest
from starlette.requests import Request
from starlette.types import Message

from locas_agent.server.settings import ServerSettings
from locas_ray.relayed import RelayedRequest

pytest.importorskip("ray", reason="Ray is not installed: the extra `ray`")
from ray.exceptions import ActorDiedError, ActorUnavailableError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError

from locas_ray.front import TRIES, Front

HEAD: Message = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]}
PIECE: Message = {"type": "http.response.body", "body": b"data: {}\n\n", "more_body": True}
END: Message = {"type": "http.response.body", "body": b"", "more_body": False}


class Pieces:
    """What one call of a replica yields; an exception ends it."""

    def __init__(self, script: Sequence[list[Message] | Exception]) -> None:
        self._script = self._play(script)
        self.is_cancelled = False

    async def _play(self, script: Sequence[list[Message] | Exception]) -> AsyncGenerator[list[Message]]:
        for each in script:
            if isinstance(each, Exception):
                raise each
            yield each

    def __aiter__(self) -> Pieces:
        return self

    async def __anext__(self) -> list[Message]:
        return await anext(self._script)

    def cancel(self) -> None:
        self.is_cancelled = True


class Replicas:
    """Stands in for the handle of a deployment: call after call is played from a script."""

    def __init__(self, *scripts: Sequence[list[Message] | Exception]) -> None:
        self._scripts = iter(scripts)
        self.asked: list[RelayedRequest] = []
        self.calls: list[Pieces] = []
        self.names: list[str] = []

    def options(self, *, multiplexed_model_id: str = "", **_: object) -> Replicas:
        self.names.append(multiplexed_model_id)
        return self

    def remote(self, asked: RelayedRequest) -> Pieces:
        self.asked.append(asked)
        self.calls.append(Pieces(next(self._scripts)))
        return self.calls[-1]


async def ask(
    replicas: Any, path: str = "/v1/chat/completions", *, padding: int = 0, **settings: Any
) -> tuple[int, bytes, dict[str, str]]:
    """Return status, body and headers of what a client gets."""
    body = json.dumps({"user": "ada"}).encode() + b" " * padding
    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "query_string": b"",
        "headers": [(b"authorization", b"Bearer secret")],
    }
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    response = await Front(replicas, ServerSettings(**settings))(Request(scope, receive))
    await response(scope, receive, send)
    headers = {name.decode().lower(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent), headers


async def test_answer_is_sent_on_as_it_comes() -> None:
    replicas = Replicas([[HEAD, PIECE], [PIECE, END]])
    assert await ask(replicas) == (200, PIECE["body"] * 2, {"content-type": "text/event-stream"})
    assert replicas.names[-1] == replicas.asked[0].routing_name
    assert replicas.calls[0].is_cancelled  # whoever leaves early stops the answer; harmless at its end


@pytest.mark.parametrize("died", [ActorDiedError(), ActorUnavailableError("away", None)])
async def test_replica_that_dies_before_a_word_is_replaced_by_another(died: Exception) -> None:
    replicas = Replicas([died], [[HEAD, PIECE, END]])
    assert (await ask(replicas, "/v1/responses"))[0] == 200
    first, second = (dict(asked.headers)[b"idempotency-key"] for asked in replicas.asked)
    assert first == second  # so that the journal knows it again


async def test_stream_whose_replica_dies_ends_with_an_event_that_says_so() -> None:
    replicas = Replicas([[HEAD, PIECE], ActorDiedError()])
    status, body, _ = await ask(replicas)
    assert (status, len(replicas.calls)) == (200, 1)  # a part of it was sent: it is not begun again
    assert json.loads(body.removeprefix(PIECE["body"]).removeprefix(b"data: "))["error"]["code"] == "replica_lost"


@pytest.mark.parametrize(
    ("scripts", "status", "code"),
    [
        ([[ActorDiedError()]] * TRIES, 503, "replica_lost"),
        ([[DeploymentUnavailableError("answers")]], 503, "replica_lost"),
        ([[BackPressureError(num_queued_requests=9, max_queued_requests=9)]], 429, "queue_full"),
    ],
)
async def test_what_cannot_be_answered_is_told_in_the_usual_form(
    scripts: list[list[Exception]], status: int, code: str
) -> None:
    told, body, headers = await ask(Replicas(*scripts))
    assert (told, json.loads(body)["error"]["code"], headers["retry-after"]) == (status, code, "1")


async def test_long_body_is_refused_before_it_is_handed_on() -> None:
    replicas = Replicas([[HEAD, PIECE, END]])
    status, body, _ = await ask(replicas, padding=2048, max_body_bytes=1024)
    assert (status, json.loads(body)["error"]["code"], replicas.calls) == (413, "body_too_long", [])

"""What answered requests leave behind in the server's process: nothing that grows with users, conversations or keys."""

from __future__ import annotations

import gc
import json
import re
from collections.abc import AsyncGenerator, Iterable

import pytest

from locas_agent import ChatAnswer
from locas_agent.server.reply_queue import ReplyQueue, WaitingRequest
from tests.unit.server.conftest import MODEL, Serve, Served

pytestmark = pytest.mark.rounding

USERS = 12
MARK = "zanzibar"
"""Stands in every name, text and key of a request."""


def answered(served: Served, users: Iterable[int]) -> None:
    """Have each user ask with a key of its own, in conversations of its own; some requests lead nowhere."""
    connection = served.connection()
    for number in users:
        marked = f"{MARK} {number}"
        headers = {
            "Authorization": f"Bearer {served.key()}",
            "Idempotency-Key": marked,
            "X-Request-Id": f"{MARK}{number}",
        }
        options = {"model": MODEL, "safety_identifier": marked, "store": number % 4 != 0, "stream": number % 2 == 0}
        chat = {"messages": [{"role": "user", "content": marked}], "max_tokens": 1}
        for path, body in (
            ("/v1/chat/completions", options | chat),
            ("/v1/responses", options | {"input": marked, "max_output_tokens": 1}),
            (f"/v1/{MARK}/{number}", options),
        ):
            connection.request("POST", path, json.dumps(body), headers)
            response = connection.getresponse()
            response.read()
            assert response.status == (404 if MARK in path else 200)
    connection.close()


def left_behind() -> set[str]:
    """Return the users of whom a text is left in whatever object of this process."""
    gc.collect()
    held = (each for one in gc.get_objects() for each in gc.get_referents(one))
    texts = {id(each): each for each in held if type(each) is str}
    return {number for text in texts.values() for number in re.findall(rf"{MARK}\W?(\d+)", text)}


def test_requests_leave_nothing_behind(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    served = serve(requests_per_minute=1000)
    kept: list[WaitingRequest] = []
    answered(served, range(USERS))
    assert len(left_behind()) < USERS // 2  # of the newest requests some
    stream = ReplyQueue.stream

    def keeping(queue: ReplyQueue, asked: WaitingRequest) -> AsyncGenerator[str | ChatAnswer]:
        kept.append(asked)
        return stream(queue, asked)

    monkeypatch.setattr(ReplyQueue, "stream", keeping)
    answered(served, range(USERS, 2 * USERS))
    assert len(left_behind()) >= USERS  # a fault that is planted is seen

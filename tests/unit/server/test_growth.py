"""What answered requests leave behind in the server's process: nothing that grows with users, conversations or keys."""

from __future__ import annotations

import gc
import json
from collections import Counter
from collections.abc import AsyncGenerator

import pytest

from locas_agent import ChatAnswer
from locas_agent.server.reply_queue import ReplyQueue, WaitingRequest
from tests.unit.server.conftest import MODEL, Serve, Served

pytestmark = pytest.mark.rounding

REQUESTS = 16


def objects() -> Counter[str]:
    """Count the objects that there are, by their types."""
    gc.collect()
    return Counter(str(type(each)) for each in gc.get_objects())


def answered(served: Served, secrets: list[str], first: int) -> None:
    """Have each request be a new user's, with a key of its own, in a conversation of its own; some lead nowhere."""
    connection = served.connection()
    for number, secret in enumerate(secrets, first):
        user, kept = f"user {number}", number % 4 != 0
        headers = {"Authorization": f"Bearer {secret}", "Idempotency-Key": f"{number}", "X-Request-Id": f"{number}"}
        options = {"model": MODEL, "safety_identifier": user, "store": kept, "stream": number % 2 == 0}
        chat = {"messages": [{"role": "user", "content": f"{number}"}], "max_tokens": 1}
        for path, body in (
            ("/v1/chat/completions", options | chat),
            ("/v1/responses", options | {"input": f"{number}", "max_output_tokens": 1}),
            (f"/v1/nowhere/{number}", options),
        ):
            connection.request("POST", path, json.dumps(body), headers)
            response = connection.getresponse()
            response.read()
            assert response.status == (404 if "nowhere" in path else 200)
    connection.close()


def grown(served: Served, warm: int) -> set[str]:
    """Return the types of which there is one more for each request."""
    secrets = [served.key() for _ in range(warm + REQUESTS)]
    answered(served, secrets[:warm], 0)
    before = objects()
    answered(served, secrets[warm:], warm)
    return {name for name, count in (objects() - before).items() if count >= REQUESTS // 2}


def test_requests_leave_nothing_behind(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    served, kept = serve(requests_per_minute=1000), []
    assert grown(served, warm=8) == set()
    stream = ReplyQueue.stream

    def keeping(queue: ReplyQueue, asked: WaitingRequest) -> AsyncGenerator[str | ChatAnswer]:
        kept.append(asked)
        return stream(queue, asked)

    monkeypatch.setattr(ReplyQueue, "stream", keeping)
    assert str(WaitingRequest) in grown(served, warm=0)

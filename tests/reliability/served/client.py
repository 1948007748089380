"""A client of a server over plain HTTP, which reads streams as they come and may leave in the middle of one."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any

PATIENCE_SECONDS = 120.0
BROKEN = "broken"
"""Outcome of a try whose connection ended without a word."""
REFUSED = "refused"
"""Outcome of a try that found no server, so that nobody took it."""


@dataclass(frozen=True)
class Heard:
    """What a client heard of one try.

    Attributes:
        outcome: the status; of a stream that was not whole the code of its error; `BROKEN` or `REFUSED`.
        text: of the answer, as far as it came.
        response_id: of the answer; "" unless it is a response.
        retry_after: seconds that the server asks for.
        seconds: until the end.
        first_seconds: until the first piece.
    """

    outcome: int | str
    text: str = ""
    response_id: str = ""
    retry_after: float = 0.2
    seconds: float = 0.0
    first_seconds: float = 0.0

    @property
    def is_whole(self) -> bool:
        return self.outcome == 200


def post(port: int, path: str, body: Mapping[str, Any], headers: Mapping[str, str], *, leave: bool = False) -> Heard:
    """Send a request and hear what comes.

    Args:
        port: of the server.
        path: of the endpoint.
        body: of the request.
        headers: of the request.
        leave: whether to go away after the first piece of a stream.
    """
    began, text, first = time.monotonic(), "", 0.0
    try:
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_SECONDS)) as connection:
            connection.request("POST", path, json.dumps(body), dict(headers))
            response = connection.getresponse()
            if response.status != 200:
                _check_error(json.loads(response.read()))
                return Heard(response.status, retry_after=float(response.headers.get("Retry-After", "0.2")))
            if not body.get("stream"):
                told = json.loads(response.read())
                return Heard(200, _text_of(told), str(told["id"]), seconds=time.monotonic() - began)
            for event in _events(response):
                if "error" in event:
                    _check_error(event)
                    return Heard(str(event["error"]["code"]), text)
                if not event:
                    return Heard(200, text, seconds=time.monotonic() - began, first_seconds=first)
                text += event["choices"][0]["delta"].get("content") or ""
                first = first or (time.monotonic() - began if text else 0.0)
                if leave and text:
                    return Heard(BROKEN, text)
    except ConnectionRefusedError:
        return Heard(REFUSED)
    except (OSError, http.client.HTTPException):
        pass
    return Heard(BROKEN, text)


def _events(response: http.client.HTTPResponse) -> Iterator[dict[str, Any]]:
    """Yield the events of a stream; an empty one is its end."""
    for line in response:
        if line.startswith(b"data: "):
            yield {} if line == b"data: [DONE]\n" else json.loads(line[6:])


def _text_of(told: Mapping[str, Any]) -> str:
    if "choices" in told:
        return str(told["choices"][0]["message"]["content"])
    return "".join(part["text"] for item in told["output"] for part in item.get("content", ()))


def _check_error(told: Mapping[str, Any]) -> None:
    """Hold an error to OpenAI's form."""
    assert set(told["error"]) == {"message", "type", "param", "code"}, "an error without its form"

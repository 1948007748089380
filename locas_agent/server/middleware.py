"""Around every request: its id, one line of the log, and the headers that each response has. No content is logged."""

from __future__ import annotations

import asyncio
import logging
import re
import time
import uuid
from collections import OrderedDict
from dataclasses import dataclass

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from locas_agent.server.metrics import Metrics
from locas_agent.server.protocol import errors
from locas_agent.server.protocol.errors import ApiError
from locas_storage import tracing

logger = logging.getLogger(__name__)

REQUEST_ID = "X-Request-Id"
_GIVEN_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_HEADERS = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}
_METHODS = ("GET", "POST", "HEAD")
NOBODY_WAITS = 499
"""Status in the log where the client was gone before a response began."""

_READ_OUT_BYTES = 64 << 20
_READ_OUT_SECONDS = 5.0


@dataclass(slots=True)
class RequestFacts:
    """What the line of the log says of a request; endpoints add what they find out."""

    request_id: str
    method: str = "other"
    route: str = "none"
    key_id: str | None = None
    user: str | None = None
    status: int = NOBODY_WAITS
    reason: str | None = None


def facts_of(request: Request) -> RequestFacts:
    """Return the facts of a request."""
    facts = request.scope["state"]["facts"]
    assert isinstance(facts, RequestFacts)
    return facts


class Observed:
    """Gives each request an id, counts it, logs it and traces it.

    Args:
        app: what answers.
        metrics: where it is counted.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get(REQUEST_ID, "")
        facts = RequestFacts(given if _GIVEN_ID.fullmatch(given) else uuid.uuid4().hex)
        scope.setdefault("state", {})["facts"] = facts

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                facts.status = message["status"]
                headers = MutableHeaders(scope=message)
                headers[REQUEST_ID] = facts.request_id
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        began = time.monotonic()
        with tracing.served("request", traceparent=Headers(scope=scope).get("traceparent")) as traced:
            try:
                await self._app(scope, receive, answer)
            except Exception as error:  # noqa: BLE001  a bug: the client is told that there is one, the log which
                facts.reason = type(error).__name__
                if facts.status == NOBODY_WAITS:
                    told = errors.of(error)
                    await JSONResponse(told.body, status_code=told.status)(scope, receive, answer)
            finally:
                facts.route = getattr(scope.get("route"), "path", "none")
                facts.method = scope["method"] if scope["method"] in _METHODS else "other"
                self._done(facts, time.monotonic() - began, traced)

    def _done(self, facts: RequestFacts, seconds: float, traced: tracing.TracedSpan) -> None:
        self._metrics.request(facts.route, facts.status, seconds)
        _trace(traced, facts)
        # Only the name of an error: a foreign message may quote what somebody said.
        logger.log(
            logging.ERROR if facts.reason else logging.INFO,
            "request",
            extra={
                "action": "request",
                "request_id": facts.request_id,
                "trace_id": traced.trace_id,
                "method": facts.method,
                "route": facts.route,
                "status": facts.status,
                "seconds": round(seconds, 4),
                "key_id": facts.key_id,
                "user": facts.user,
                "reason": facts.reason,
            },
        )


def _trace(traced: tracing.TracedSpan, facts: RequestFacts) -> None:
    """Tell the span of a request what it was. Its id is left out: a client chooses it, and may put a name there."""
    traced.rename(f"{facts.method} {facts.route}")
    traced.note(
        {
            "http.request.method": facts.method if facts.method in _METHODS else "_OTHER",
            "http.route": facts.route,
            "http.response.status_code": facts.status,
            "locas.key_id": facts.key_id,
            "locas.user": facts.user,
        }
    )
    if facts.reason is not None or facts.status >= 500:
        traced.fail(facts.reason or str(facts.status))


class ReadOut:
    """Reads what is left of a request's body before it is answered, and drops it.

    A connection that is closed with bytes unread is reset, and a client that is still sending then sees the reset in
    place of the answer. What is read is bounded in bytes and in seconds; a client that sends more is cut off.

    Args:
        app: what answers.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        headers = Headers(scope=scope) if scope["type"] == "http" else Headers()
        has_body = "transfer-encoding" in headers or headers.get("content-length", "0") != "0"
        if not has_body or "expect" in headers:  # who waits to be asked for the body has not begun to send it
            await self._app(scope, receive, send)
            return
        is_read = False

        async def counted() -> Message:
            nonlocal is_read
            message = await receive()
            is_read = not message.get("more_body", False)  # a client that is gone sends no more either
            return message

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start" and not is_read:
                left = _READ_OUT_BYTES
                try:
                    async with asyncio.timeout(_READ_OUT_SECONDS):
                        while not is_read and left > 0:
                            left -= len((await counted()).get("body", b""))
                except TimeoutError:
                    pass
            await send(message)

        await self._app(scope, counted, answer)


class OneLength:
    """Refuses requests that say in two ways where their body ends, and closes the connection.

    HTTP lets a server go by `Transfer-Encoding` then. A proxy in front of it that goes by `Content-Length` would take
    the rest for a request of somebody else.

    Args:
        app: what answers.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] == "http" and {"content-length", "transfer-encoding"} <= set(Headers(scope=scope)):
            told = ApiError(400, "the request has both Content-Length and Transfer-Encoding: send one of them")
            refusal = JSONResponse(told.body, status_code=told.status, headers={"Connection": "close"})
            await refusal(scope, receive, send)
        else:
            await self._app(scope, receive, send)


class RateLimit:
    """Requests of each API key: a bucket that fills evenly, as large as what comes in a minute.

    A bucket that was not used for a minute is full again, as that of a key never seen: it is let go of.

    Args:
        per_minute: requests in a minute; None sets no limit.
    """

    def __init__(self, per_minute: int | None) -> None:
        self._per_minute = per_minute
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # the least recently used first

    def take(self, key_id: str) -> None:
        """Count a request.

        Raises:
            ApiError: the key has sent too many.
        """
        if self._per_minute is None:
            return
        now = time.monotonic()
        left, at = self._buckets.get(key_id, (float(self._per_minute), now))
        left = min(float(self._per_minute), left + (now - at) * self._per_minute / 60.0)
        if left < 1.0:
            wait = (1.0 - left) * 60.0 / self._per_minute
            raise ApiError(
                429,
                f"the API key has sent more than {self._per_minute} requests in a minute: wait {wait:.1f} seconds",
                kind="rate_limit_error",
                code="rate_limit_exceeded",
                headers={"Retry-After": str(int(wait) + 1)},
            )
        self._buckets[key_id] = (left - 1.0, now)
        self._buckets.move_to_end(key_id)
        while now - next(iter(self._buckets.values()))[1] >= 60.0:
            self._buckets.popitem(last=False)

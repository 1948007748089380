"""Around every request: its id, one line of the log, and the headers that each response has. No content is logged."""

from __future__ import annotations

import asyncio
import logging
import re
import time
import uuid
from dataclasses import dataclass

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from locas_agent.server.metrics import Metrics
from locas_agent.server.protocol import errors
from locas_agent.server.protocol.errors import ApiError

logger = logging.getLogger(__name__)

REQUEST_ID = "X-Request-Id"
_GIVEN_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_HEADERS = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}
NOBODY_WAITS = 499
"""Status in the log where the client was gone before a response began."""

_READ_OUT_BYTES = 64 << 20
_READ_OUT_SECONDS = 5.0


@dataclass(slots=True)
class RequestFacts:
    """What the line of the log says of a request; endpoints add what they find out."""

    request_id: str
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
    """Gives each request an id, counts it and logs it.

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
        began = time.monotonic()

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                facts.status = message["status"]
                headers = MutableHeaders(scope=message)
                headers[REQUEST_ID] = facts.request_id
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            await self._app(scope, receive, answer)
        except Exception as error:  # noqa: BLE001  a bug: the client is told that there is one, the log which
            facts.reason = type(error).__name__
            if facts.status == NOBODY_WAITS:
                told = errors.of(error)
                await JSONResponse(told.body, status_code=told.status)(scope, receive, answer)
        finally:
            route = scope.get("route")
            facts.route = getattr(route, "path", "none")
            self._done(scope["method"], facts, time.monotonic() - began)

    def _done(self, method: str, facts: RequestFacts, seconds: float) -> None:
        self._metrics.request(facts.route, facts.status, seconds)
        # Only the name of an error: a foreign message may quote what somebody said.
        logger.log(
            logging.ERROR if facts.reason else logging.INFO,
            "request",
            extra={
                "action": "request",
                "request_id": facts.request_id,
                "method": method if method in ("GET", "POST", "HEAD") else "other",
                "route": facts.route,
                "status": facts.status,
                "seconds": round(seconds, 4),
                "key_id": facts.key_id,
                "user": facts.user,
                "reason": facts.reason,
            },
        )


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


class RateLimit:
    """Requests of each API key: a bucket that fills evenly, as large as what comes in a minute.

    Args:
        per_minute: requests in a minute; None sets no limit.
    """

    def __init__(self, per_minute: int | None) -> None:
        self._per_minute = per_minute
        self._buckets: dict[str, tuple[float, float]] = {}

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

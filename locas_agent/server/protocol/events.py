"""A response that is sent piece by piece as server-sent events, and ends when its client is gone or too slow."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

logger = logging.getLogger(__name__)

DONE = b"data: [DONE]\n\n"


def event(data: Mapping[str, Any], *, name: str | None = None) -> bytes:
    """Return an event; its data is one line of JSON."""
    head = f"event: {name}\n" if name is not None else ""
    return f"{head}data: {json.dumps(data, ensure_ascii=False, separators=(',', ':'))}\n\n".encode()


class EventStream(Response):
    """Events as they come.

    Args:
        events: what is sent; it is closed when the client is gone.
        send_seconds: longest time that the client may take to accept one.
        headers: more headers.
    """

    media_type = "text/event-stream"

    def __init__(
        self, events: AsyncGenerator[bytes], *, send_seconds: float, headers: Mapping[str, str] | None = None
    ) -> None:
        self.status_code = 200
        self.background = None
        self.body = b""
        self._events = events
        self._send_seconds = send_seconds
        self.init_headers({"Cache-Control": "no-store", "X-Accel-Buffering": "no"} | dict(headers or {}))
        del self.headers["content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events; stop when the client is gone."""
        async with aclosing(self._events) as events:
            sending = asyncio.ensure_future(self._send(events, send))
            leaving = asyncio.ensure_future(left(receive))
            try:
                await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                leaving.cancel()
                is_cut = sending.cancel()
                await asyncio.wait({sending, leaving})
            if is_cut:
                return
            if isinstance(sending.exception(), TimeoutError):
                logger.warning("client too slow", extra={"action": "cut", "seconds": self._send_seconds})
                return
            sending.result()

    async def _send(self, events: AsyncIterator[bytes], send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async for each in events:
            async with asyncio.timeout(self._send_seconds):
                await send({"type": "http.response.body", "body": each, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def left(receive: Receive) -> None:
    """Return when the client is gone; to be awaited once the body is read."""
    while (await receive())["type"] != "http.disconnect":
        pass

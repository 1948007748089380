"""One request between the front and a replica, and the name by which Ray routes it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from starlette.requests import Request
from starlette.types import Scope

from locas_agent.server.identity import USER_HEADER
from locas_agent.server.requests import IDEMPOTENCY_HEADER

_RESPONSES = "/v1/responses"
_DIGITS = 16
"""Of a digest: enough that two people in one cluster hardly ever share a name, which would do no harm."""


@dataclass(frozen=True, slots=True)
class RelayedRequest:
    """A request of HTTP with its whole body.

    Attributes:
        method: of HTTP.
        path: decoded.
        query: after the question mark, as it came.
        headers: names in lower case.
        body: all of it.
    """

    method: str
    path: str
    query: bytes
    headers: tuple[tuple[bytes, bytes], ...] = field(repr=False)
    body: bytes = field(repr=False)

    @classmethod
    def of(cls, request: Request, body: bytes) -> RelayedRequest:
        """Return a request as it is handed on.

        A response that its client gave no idempotency key is given one: handed to a second replica, because the first
        died over it, it is still the same response.
        """
        headers = [(name.lower(), value) for name, value in request.headers.raw]
        if request.method == "POST" and request.url.path == _RESPONSES and IDEMPOTENCY_HEADER not in request.headers:
            headers.append((IDEMPOTENCY_HEADER.lower().encode(), uuid4().hex.encode()))
        return cls(request.method, request.url.path, request.scope["query_string"], tuple(headers), body)

    @property
    def routing_name(self) -> str:
        """A digest of the API key and of the user that the request names; "" where it sends no key.

        It only chooses a replica: whose memory answers is found out there, from the key and the request. Ray shows such
        names in its state and its metrics, so it tells neither the key nor the user.
        """
        keys = [value for name, value in self.headers if name == b"authorization"]
        users = [value for name, value in self.headers if name == USER_HEADER.lower().encode()]
        if not keys:
            return ""
        named = json.dumps([[value.decode("latin-1") for value in (*keys, *users)], self._named()])
        return hashlib.sha256(named.encode()).hexdigest()[:_DIGITS]

    def scope(self) -> Scope:
        """Return it as an ASGI application takes it."""
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "method": self.method,
            "scheme": "http",
            "path": self.path,
            "raw_path": self.path.encode(),
            "query_string": self.query,
            "root_path": "",
            "headers": list(self.headers),
            "client": None,
            "server": None,
        }

    def _named(self) -> list[Any]:
        """Return the users that the body names; what is no such JSON is refused by the replica."""
        try:
            told = json.loads(self.body) if self.body else {}
        except (ValueError, RecursionError):
            return []
        names = [told.get("safety_identifier"), told.get("user")] if isinstance(told, dict) else []
        return sorted({name for name in names if isinstance(name, str)})

"""What every endpoint does first: let the caller in, read the body within bounds, and find out whose memory answers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect, Request

from locas_agent import MemoryHost
from locas_agent.server.identity import Caller, caller_of, key_of
from locas_agent.server.middleware import RateLimit, facts_of
from locas_agent.server.protocol import errors
from locas_agent.server.protocol.errors import ApiError
from locas_agent.server.protocol.events import left
from locas_agent.server.settings import ServerSettings
from locas_storage import ApiKey

F = TypeVar("F", bound=BaseModel)
T = TypeVar("T")

STORE_HEADER = "X-Locas-Store"
"""`false`: what is said is neither journalled nor learnt."""
LEARN_HEADER = "X-Locas-Learn"
"""`false`: what is new, and its answer, is journalled and not learnt."""
IDEMPOTENCY_HEADER = "Idempotency-Key"
"""The same text twice is one response, whose turns are journalled once."""
CONVERSATION_HEADER = "X-Locas-Conversation"
"""Names the conversation, so that what begins alike is told apart."""


class Door:
    """Lets requests in.

    Args:
        memory: whose keys and users.
        settings: bounds.
    """

    def __init__(self, memory: MemoryHost, settings: ServerSettings) -> None:
        self._memory = memory
        self._settings = settings
        self._rate = RateLimit(settings.requests_per_minute)

    async def key(self, request: Request) -> ApiKey:
        """Return the key of a request, which counts against its rate.

        Raises:
            ApiError: there is none in force, or it is used too often.
        """
        key = await key_of(request.headers, self._memory)
        facts_of(request).key_id = key.key_id
        self._rate.take(key.key_id)
        return key

    def caller(self, request: Request, key: ApiKey, *, safety_identifier: str | None, user: str | None) -> Caller:
        """Return whose memory answers; see `caller_of`."""
        found = caller_of(key, request.headers, safety_identifier=safety_identifier, user=user)
        facts_of(request).user = found.user.short_hash
        return found

    async def body(self, request: Request, form: type[F]) -> F:
        """Read and check the body of a request.

        Raises:
            ApiError: it is too long, comes too slowly, or is none of this form.
        """
        raw = await read_body(request, self._settings)
        try:
            return form.model_validate_json(raw)
        except ValidationError as error:
            raise errors.of_validation(error) from None  # what it would show quotes the request


async def read_body(request: Request, settings: ServerSettings) -> bytes:
    """Return the body of a request.

    Raises:
        ApiError: it is too long, or comes too slowly.
    """
    most = settings.max_body_bytes
    told = request.headers.get("content-length", "0")
    if told.isdigit() and int(told[:18]) > most:
        raise _too_long(most)
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(settings.body_seconds):
            async for part in request.stream():
                size += len(part)
                if size > most:
                    raise _too_long(most)
                parts.append(part)
    except TimeoutError:
        raise ApiError(
            408, f"the body was not here within {settings.body_seconds} seconds: send it again", code="timeout"
        ) from None
    except ClientDisconnect:
        raise ApiError(400, "the connection was closed before the body was here") from None
    return b"".join(parts)


async def while_client_waits(request: Request, work: Awaitable[T]) -> T:
    """Do something as long as the client waits for it; when the client is gone it is cancelled.

    Raises:
        ApiError: the client was gone first; nobody reads it.
    """
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(left(request.receive))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        leaving.cancel()
        is_cut = working.cancel()
        await asyncio.wait({working, leaving})
    if is_cut:
        raise ApiError(499, "the client was gone before it was answered")
    return working.result()


def stores(request: Request, asked: bool | None) -> bool:
    """Tell whether what is said in a request is journalled; a request that says so in two ways says no by either.

    Raises:
        ApiError: the header has no value that is known.
    """
    return _says_yes(request, STORE_HEADER) and asked is not False


def learns(request: Request) -> bool:
    """Tell whether the turns that a request brings, and its answer, may be learnt.

    Raises:
        ApiError: the header has no value that is known.
    """
    return _says_yes(request, LEARN_HEADER)


def _says_yes(request: Request, header: str) -> bool:
    """Read a header that is true unless given; of several one that says no is enough."""
    given = [value.lower() for value in request.headers.getlist(header)]
    if not set(given) <= {"true", "false"}:
        raise ApiError(400, f"{header}: expected true or false", param=header)
    return "false" not in given


def _too_long(most: int) -> ApiError:
    return ApiError(
        413,
        f"the body has more than {most} bytes: send less at once",
        code="body_too_long",
        headers={"Connection": "close"},
    )

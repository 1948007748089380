"""The front: takes requests from Ray Serve's proxy, and has each answered by a replica that has its user's memory."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from ray.exceptions import RayActorError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Message, Receive, Scope, Send

from locas_agent.server.protocol.errors import ApiError
from locas_agent.server.protocol.events import EventStream, event
from locas_agent.server.requests import read_body
from locas_agent.server.settings import ServerSettings
from locas_ray.relayed import RelayedRequest

if TYPE_CHECKING:
    from ray.serve.handle import DeploymentHandle, DeploymentResponseGenerator

logger = logging.getLogger(__name__)

TRIES = 3
"""Replicas that may die over one request, one after the other, before its client is told."""


class Front:
    """Hands requests to replicas; to be made the ingress of a Ray Serve application. It holds nothing.

    A request whose replica dies before anything of its answer was sent is handed to another one. That adds nothing to
    the journal a second time: turns have keys that follow from what was said, as if the client had asked again.

    Args:
        answers: the deployment of the replicas.
        settings: of the server.
    """

    def __init__(self, answers: DeploymentHandle, settings: ServerSettings) -> None:
        self._answers = answers.options(stream=True, method_name="answer")
        self._settings = settings

    async def __call__(self, request: Request) -> Response:
        """Return the answer of a replica, or why there is none."""
        try:
            asked = RelayedRequest.of(request, await read_body(request, self._settings))
            return await self._begun(asked)
        except ApiError as error:
            return JSONResponse(error.body, error.status, error.headers)

    async def _begun(self, asked: RelayedRequest) -> Response:
        """Return an answer of which the first piece is there.

        Raises:
            ApiError: several replicas died over it, or there is no room for it.
        """
        answers = self._answers.options(multiplexed_model_id=asked.routing_name)
        for tries_left in reversed(range(TRIES)):
            pieces = answers.remote(asked)
            try:
                return RelayedResponse(await anext(pieces), pieces)
            except asyncio.CancelledError:  # the client left
                pieces.cancel()
                raise
            except RayActorError as error:
                logger.warning(
                    "replica lost", extra={"action": "relay", "reason": type(error).__name__, "tries_left": tries_left}
                )
            except BackPressureError:
                raise _full() from None
            except DeploymentUnavailableError:
                break
        raise _gone()


class RelayedResponse(Response):
    """What a replica sends, as it comes.

    Args:
        first: what it has sent already.
        pieces: what it will send.
    """

    def __init__(self, first: list[Message], pieces: DeploymentResponseGenerator) -> None:
        self.background = None
        self.body = b""
        self.status_code = first[0]["status"]
        self.raw_headers = list(first[0]["headers"])
        self._first = first
        self._pieces = pieces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it on; where the replica dies in the middle, a stream of events ends with one that says so."""
        try:
            async for message in self._messages():
                await send(message)
        except RayActorError as error:
            logger.warning("replica lost", extra={"action": "relay", "reason": type(error).__name__})
            if self.media_type_sent != EventStream.media_type:
                raise
            await send({"type": "http.response.body", "body": event(_gone().body), "more_body": False})
        finally:
            self._pieces.cancel()  # the client may have left; harmless at its end

    @property
    def media_type_sent(self) -> str:
        """What the replica says that it sends."""
        return self.headers.get("content-type", "").partition(";")[0]

    async def _messages(self) -> AsyncIterator[Message]:
        for message in self._first:
            yield message
        async for messages in self._pieces:
            for message in messages:
                yield message


def _gone() -> ApiError:
    return ApiError(
        503,
        "the process that was answering ended: nothing was lost that was acknowledged, send the request again",
        kind="server_error",
        code="replica_lost",
        headers={"Retry-After": "1"},
    )


def _full() -> ApiError:
    return ApiError(
        429,
        "as many requests wait for an answer as may: try again in a moment",
        kind="rate_limit_error",
        code="queue_full",
        headers={"Retry-After": "1"},
    )

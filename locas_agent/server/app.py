"""The application: routes, what is around them, and what runs beside them while it serves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from locas_agent import MemoryHost
from locas_agent.errors import LocasError
from locas_agent.fleet import Learning
from locas_agent.server.endpoints import Endpoints
from locas_agent.server.inspector.pages import Inspector
from locas_agent.server.metrics import CONTENT_TYPE, Metrics
from locas_agent.server.middleware import Observed, OneLength, ReadOut, facts_of
from locas_agent.server.protocol import errors
from locas_agent.server.protocol.errors import ApiError
from locas_agent.server.reply_queue import ReplyQueue
from locas_agent.server.settings import ServerSettings
from locas_storage import UserKey

_HEALTH = UserKey("health", "health")
"""A user of whom nothing is ever journalled: reading its state tells whether the store answers."""


def create_app(memory: MemoryHost, settings: ServerSettings | None = None) -> Starlette:
    """Return an ASGI application that answers with the memories of the users whom its API keys name.

    Args:
        memory: answers, an `AgentMemory` or a `Fleet`; agents whose consolidation is "background", if the server is to
            learn. The caller closes it.
        settings: what can be chosen.
    """
    chosen = settings or ServerSettings()
    metrics = Metrics()
    queue = ReplyQueue(
        memory,
        at_once=chosen.answers_at_once,
        waiting=chosen.waiting_answers,
        answer_seconds=chosen.answer_seconds,
    )
    endpoints = Endpoints(memory, queue, metrics, chosen)

    async def health(_: Request) -> Response:
        try:
            await memory.crews.run("journal", memory.store.state, _HEALTH)
        except LocasError:
            return JSONResponse({"status": "store unavailable"}, status_code=503)
        return JSONResponse({"status": "ok"})

    async def counts(_: Request) -> Response:
        return Response(metrics.text(waiting=queue.waiting, running=queue.running), media_type=CONTENT_TYPE)

    routes: list[BaseRoute] = [
        Route("/health", health, methods=["GET"]),
        Route("/v1/models", endpoints.models, methods=["GET"]),
        Route("/v1/models/{model:path}", endpoints.one_model, methods=["GET"]),
        Route("/v1/chat/completions", endpoints.chat_completions, methods=["POST"]),
        Route("/v1/responses", endpoints.responses, methods=["POST"]),
        Route("/v1/responses/{response_id}", endpoints.stored_response, methods=["GET"]),
    ]
    if chosen.shows_pages:
        routes += Inspector(memory, chosen).routes()
    if chosen.shows_metrics:
        routes.append(Route("/metrics", counts, methods=["GET"]))

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        learning = memory.agents if chosen.learns else ()
        with Learning([agent for agent in learning if agent.consolidation == "background"]):
            yield
            await asyncio.to_thread(queue.close)

    app = Starlette(
        routes=routes,
        middleware=[Middleware(ReadOut), Middleware(Observed, metrics=metrics), Middleware(OneLength)],
        exception_handlers={LocasError: _refused, HTTPException: _no_such_route},
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False  # where it would lead follows from the Host header, which a client chooses
    return app


async def _refused(request: Request, error: Exception) -> Response:
    told = errors.of(error)
    if told.status >= 500:
        facts_of(request).reason = type(error).__name__
    return JSONResponse(told.body, status_code=told.status, headers=told.headers)


async def _no_such_route(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    known = {404: "there is nothing at this path", 405: "this path takes another method"}
    told = ApiError(error.status_code, known.get(error.status_code, "the request cannot be taken"))
    return JSONResponse(told.body, status_code=told.status, headers=dict(error.headers or {}))

"""A replica: the server's own application, queue and running batch in a process that Ray Serve keeps alive."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable

from ray import serve
from starlette.responses import JSONResponse
from starlette.types import Message

from locas_agent import AgentMemory, Fleet
from locas_agent.server.app import create_app
from locas_agent.server.endpoints import model_names
from locas_agent.server.protocol import errors
from locas_agent.server.settings import ServerSettings
from locas_ray.relayed import RelayedRequest

logger = logging.getLogger(__name__)

USERS_PER_REPLICA = 500
"""Users whom Ray routes to a replica because they were there before; of more the one who was silent longest is free to
go elsewhere. Each costs every router some bytes; what is kept of a memory is bounded in bytes, in the process."""


class AnsweringReplica:
    """Answers requests of many users in one running batch; to be made a Ray Serve deployment.

    Args:
        open_memory: opens the backbone, or several, and the store; called here, in the replica's process.
        settings: of the server; its address is not this one's.
    """

    def __init__(self, open_memory: Callable[[], AgentMemory | Fleet], settings: ServerSettings) -> None:
        self._memory = open_memory()
        for agent, called in zip(self._memory.agents, model_names(self._memory, settings), strict=True):
            agent.backbone.name = called
        self._app = create_app(self._memory, settings)
        self._over = asyncio.Event()
        self._living = asyncio.get_running_loop().create_task(self._live())

    async def answer(self, asked: RelayedRequest) -> AsyncGenerator[list[Message]]:
        """Yield what the application sends, as it comes; closed early, the answer stops at its next token."""
        if name := serve.get_multiplexed_model_id():
            await self.remember(name)
        sent: asyncio.Queue[Message | None] = asyncio.Queue()
        working, is_over = asyncio.ensure_future(self._run(asked, sent)), False
        try:
            while not is_over:
                messages = [await sent.get()]
                while not sent.empty():
                    messages.append(sent.get_nowait())
                is_over = messages[-1] is None
                if told := [message for message in messages if message is not None]:
                    yield told
        finally:
            working.cancel()
            await asyncio.wait({working})

    @serve.multiplexed(max_num_models_per_replica=USERS_PER_REPLICA)  # type: ignore[untyped-decorator]
    async def remember(self, name: str) -> str:
        """Note that somebody was here, so that Ray routes the next request here too.

        Nothing is loaded: the answer that follows reads the user's current revision, and keeps what it read ready.
        """
        return name

    async def leave(self) -> None:
        """End what is under way, give back what is being learnt, and close the store."""
        self._over.set()
        await self._living
        self._memory.close()

    def __del__(self) -> Awaitable[None] | None:
        """Leave; Ray Serve calls this, and waits for it, before it ends the process."""
        return None if self._over.is_set() else self.leave()

    async def _live(self) -> None:
        async with self._app.router.lifespan_context(self._app):
            await self._over.wait()

    async def _run(self, asked: RelayedRequest, sent: asyncio.Queue[Message | None]) -> None:
        """Have the application answer; whatever goes wrong in it is told without its text, which may quote somebody."""
        body = iter([{"type": "http.request", "body": asked.body, "more_body": False}])
        has_begun = False

        async def receive() -> Message:
            for part in body:
                return part
            await asyncio.Event().wait()  # a client that leaves has the call closed
            raise AssertionError("nobody sets it")

        async def send(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await sent.put(message)

        try:
            await self._app(asked.scope(), receive, send)
        except Exception as error:  # noqa: BLE001  told by its name, as the server's own log does
            logger.warning("request failed", extra={"action": "answer", "reason": type(error).__name__})
            if not has_begun:
                told = errors.of(error)
                await JSONResponse(told.body, told.status, told.headers)(asked.scope(), receive, send)
        finally:
            sent.put_nowait(None)

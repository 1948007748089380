"""`ReplyQueue`: requests that wait for an answer, and the answers that are being written.

Answers on one backbone share the processor in one running batch of `AgentMemory.side_by_side`, each row with the memory
of its user. A thread for each row waits for its tokens and hands their text to the event loop.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from dataclasses import dataclass, field

from locas_agent import AgentMemory, ChatAnswer, ChatRequest, MemoryHost, UserKey
from locas_agent.errors import IncompatibleMemory
from locas_agent.server.protocol.content import Message, Options
from locas_agent.server.protocol.errors import ApiError
from locas_storage import tracing


@dataclass(frozen=True, slots=True)
class WaitingRequest:
    """One answer that is asked for.

    Attributes:
        user: whose memory answers.
        messages: the whole prompt.
        options: how it is drawn.
    """

    user: UserKey
    messages: Sequence[Message] = field(repr=False)
    options: Options


class ReplyQueue:
    """Answers requests, a few at once; the others wait, and beyond a bound they are refused.

    To be used by one event loop.

    Args:
        memory: answers.
        at_once: answers that are written at the same time.
        waiting: requests that may wait.
        answer_seconds: longest time for one answer, waiting not counted.
    """

    def __init__(self, memory: MemoryHost, *, at_once: int, waiting: int, answer_seconds: float) -> None:
        self._memory = memory
        self._answers = {agent: agent.side_by_side(rows=at_once) for agent in memory.agents}
        self._most_waiting = waiting
        self._answer_seconds = answer_seconds
        self._threads = ThreadPoolExecutor(at_once, thread_name_prefix="locas-rows")
        self._free = asyncio.Semaphore(at_once)
        self.waiting = 0
        """Requests that wait now."""
        self.running = 0
        """Answers that are being written now."""

    async def stream(self, asked: WaitingRequest) -> AsyncGenerator[str | ChatAnswer]:
        """Answer piece by piece; the last thing that comes is the whole answer.

        Closing the generator stops the answer at its next token and gives its place to the next request.

        Raises:
            ApiError: too many wait already.
            LocasError: as `UserMemory.generate`.
        """
        await self._take_turn()
        loop = asyncio.get_running_loop()
        pieces: asyncio.Queue[str | ChatAnswer | BaseException] = asyncio.Queue()
        is_left = threading.Event()

        def tell(piece: str | ChatAnswer | BaseException) -> None:
            loop.call_soon_threadsafe(pieces.put_nowait, piece)

        def write() -> None:
            try:
                self._write(asked, tell, is_left)
            finally:
                with suppress(RuntimeError):  # the loop has ended, and nobody waits any more
                    loop.call_soon_threadsafe(self._give_back)

        self.running += 1
        self._threads.submit(copy_context().run, write)
        try:
            while True:
                piece = await pieces.get()
                if isinstance(piece, BaseException):
                    raise piece
                yield piece
                if isinstance(piece, ChatAnswer):
                    return
        finally:
            is_left.set()

    def _write(
        self, asked: WaitingRequest, tell: Callable[[str | ChatAnswer | BaseException], None], is_left: threading.Event
    ) -> None:
        """Write one answer in the calling thread; stop when its reader is gone."""
        options = asked.options
        request = ChatRequest(
            asked.user,
            asked.messages,
            stop=options.stop,
            tools=options.tools,
            tool_choice=options.tool_choice,
            max_new_tokens=options.max_new_tokens,
            temperature=options.temperature,
            seed=options.seed,
            timeout_seconds=self._answer_seconds,
        )
        try:
            home = self._memory.runtime_of(asked.user)
            try:
                self._tell_all(home, request, tell, is_left)
            except IncompatibleMemory:  # before the first piece: the user was moved to another backbone meanwhile
                if (moved := self._memory.runtime_of(asked.user)) is home:
                    raise
                self._tell_all(moved, request, tell, is_left)
        except Exception as error:  # noqa: BLE001  raised again where the answer is read
            with suppress(RuntimeError):
                tell(error)

    def _tell_all(
        self,
        home: AgentMemory,
        request: ChatRequest,
        tell: Callable[[str | ChatAnswer | BaseException], None],
        is_left: threading.Event,
    ) -> None:
        """Tell the pieces of an answer and the whole of it, written in the batch of one agent."""
        stream = self._answers[home].stream(request)
        for piece in stream:
            if is_left.is_set():
                return
            tell(piece)
        assert stream.answer is not None
        tell(stream.answer)

    async def _take_turn(self) -> None:
        self.check_room()
        self.waiting += 1
        try:
            with tracing.span("locas.wait"):
                await self._free.acquire()
        finally:
            self.waiting -= 1

    def check_room(self) -> None:
        """Refuse a request before anything is done for it, if it could not even wait.

        Raises:
            ApiError: as many wait as may.
        """
        if self._free.locked() and self.waiting >= self._most_waiting:
            raise ApiError(
                429,
                f"{self.waiting} requests wait for an answer, which is as many as may: try again in a moment",
                kind="rate_limit_error",
                code="queue_full",
                headers={"Retry-After": "1"},
            )

    def _give_back(self) -> None:
        self.running -= 1
        self._free.release()

    def close(self) -> None:
        """Let the threads go when what they write has ended, and then the batch."""
        self._threads.shutdown(wait=True)
        for answers in self._answers.values():
            answers.close()

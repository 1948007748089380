"""Async twins of sync verbs: the same call, handed to a thread of the crew for its kind of work."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import wraps
from threading import Lock
from typing import Concatenate, Literal, ParamSpec, Protocol, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

Crew = Literal["journal", "answers", "pieces", "training"]
"""What the store alone does; what runs the backbone once, and may wait for a user's earlier answer; the further pieces
of an answer that has begun, which wait for nobody; what trains."""

_AS_MANY_AS_ASYNCIO = min(32, (os.cpu_count() or 1) + 4)
_THREADS: dict[Crew, int] = {
    "journal": _AS_MANY_AS_ASYNCIO,
    "answers": _AS_MANY_AS_ASYNCIO,
    "pieces": _AS_MANY_AS_ASYNCIO,
    "training": 2,
}
"""Most threads of each crew. One training fills the processor by itself: the second keeps a short one from waiting for
a long one."""


class Crews:
    """The crews of one `AgentMemory`.

    There is no thread before the first call of its kind, and none after `close` until the next.
    """

    def __init__(self) -> None:
        self._executors: dict[Crew, ThreadPoolExecutor] = {}
        self._lock = Lock()

    async def run(self, crew: Crew, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Make a call in a thread of a crew, in the caller's context, and return what it returns."""
        context = copy_context()
        with self._lock:
            if crew not in self._executors:
                self._executors[crew] = ThreadPoolExecutor(_THREADS[crew], thread_name_prefix=f"locas-{crew}")
            future = self._executors[crew].submit(lambda: context.run(call, *args, **kwargs))
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        """Wait for the calls that are being made, cancel those that have not begun, and let the threads go."""
        with self._lock:
            executors, self._executors = list(self._executors.values()), {}
        for executor in executors:
            executor.shutdown(wait=False, cancel_futures=True)
        for executor in executors:
            executor.shutdown(wait=True)


class Crewed(Protocol):
    """An object whose verbs have async twins."""

    @property
    def crews(self) -> Crews: ...  # noqa: D102


S = TypeVar("S", bound=Crewed)


def to_async(verb: Callable[Concatenate[S, P], R], crew: Crew | None) -> Callable[Concatenate[S, P], Awaitable[R]]:
    """Return the verb as a coroutine. A cancelled call still finishes in its thread: what it wrote stays written, once.

    Args:
        verb: a method.
        crew: whose threads make the call; None takes the event loop's own, for calls that last as long as the caller
            likes.
    """

    @wraps(verb)
    async def twin(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        if crew is None:
            return await asyncio.to_thread(verb, self, *args, **kwargs)
        return await self.crews.run(crew, verb, self, *args, **kwargs)

    twin.__name__ = f"a{verb.__name__}"
    twin.__qualname__ = verb.__qualname__.replace(verb.__name__, twin.__name__)
    twin.__doc__ = f"Do what `{verb.__name__}` does, off the event loop."
    return twin

"""Async twins of sync verbs: the same call, handed to a worker thread. Knows nothing else of the project."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar

S = TypeVar("S")
P = ParamSpec("P")
R = TypeVar("R")


def async_twin(verb: Callable[Concatenate[S, P], R]) -> Callable[Concatenate[S, P], Awaitable[R]]:
    """Return the verb as a coroutine. A cancelled call still finishes in its thread: what it wrote stays written, once."""

    @wraps(verb)
    async def twin(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return await asyncio.to_thread(verb, self, *args, **kwargs)

    twin.__name__ = f"a{verb.__name__}"
    twin.__qualname__ = verb.__qualname__.replace(verb.__name__, twin.__name__)
    twin.__doc__ = f"Do what `{verb.__name__}` does, off the event loop."
    return twin

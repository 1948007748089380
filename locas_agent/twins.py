"""Async twins of sync verbs: the same call, handed to a thread of the crew for its kind of work. Knows nothing else of the project."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from locas_agent.crews import Crew, Crews


class Crewed(Protocol):
    """Whoever has twins."""

    @property
    def crews(self) -> Crews: ...  # noqa: D102


S = TypeVar("S", bound=Crewed)
P = ParamSpec("P")
R = TypeVar("R")


def async_twin(verb: Callable[Concatenate[S, P], R], crew: Crew | None) -> Callable[Concatenate[S, P], Awaitable[R]]:
    """Return the verb as a coroutine. A cancelled call still finishes in its thread: what it wrote stays written, once.

    Args:
        verb: a method.
        crew: whose threads make the call; None takes the event loop's own, for calls that last as long as the caller likes.
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

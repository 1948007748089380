"""Answers while they are being written: pieces of text for `for` and `async for`, and the whole answer at the end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator, Iterator
from typing import Generic, TypeVar

from locas_agent.aio import Crew, Crews
from locas_agent.results import ChatAnswer, Reply

R = TypeVar("R")


class TextStream(Generic[R]):
    """Pieces of text as they come, and what the writer returns after the last one."""

    def __init__(self, pieces: Generator[str, None, R], crews: Crews) -> None:
        """Take the pieces, and threads for `async for`."""
        self._finish: list[R] = []
        # No reference to this object: a stream that is dropped half-way ends at once, not at the next collection.
        self._pieces = _kept(pieces, self._finish)
        self._crews = crews

    def __iter__(self) -> Iterator[str]:
        """Return the pieces of text as they come."""
        return self._pieces

    async def __aiter__(self) -> AsyncIterator[str]:
        """Yield the pieces of text as they come, each written in a worker thread."""
        crew: Crew = "answers"  # the first one may wait for another answer; those after it must not wait for such calls
        while (piece := await self._crews.run(crew, next, self._pieces, None)) is not None:
            crew = "pieces"
            yield piece

    @property
    def _result(self) -> R | None:
        return self._finish[0] if self._finish else None


class ReplyStream(TextStream[Reply]):
    """An answer while it is being written: iterate for pieces of text; afterwards `reply` holds the result.

    The answer is journalled when the iteration ends. Left half-way, the user's turn stays and no answer is stored: the
    same call under the same idempotency key answers it. Other replies to the same user wait for it, but not for a
    reader that pauses for longer than a second.
    """

    @property
    def reply(self) -> Reply | None:
        """The finished reply; None until the iteration has ended."""
        return self._result


class GenerationStream(TextStream[ChatAnswer]):
    """A stateless answer while it is being written: iterate for pieces of text; afterwards `answer` holds all of it.

    Tool calls are not shown as text: `answer` has them. Nothing is stored.
    """

    @property
    def answer(self) -> ChatAnswer | None:
        """The finished answer; None until the iteration has ended."""
        return self._result


def _kept(pieces: Generator[str, None, R], finish: list[R]) -> Iterator[str]:
    finish.append((yield from pieces))

"""An answer while it is being written, for `for` and for `async for`. Knows neither how it is written nor where it is kept."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

from locas_agent.crews import Crew, Crews
from locas_agent.results import Reply


class ReplyStream:
    """An answer while it is being written: iterate for pieces of text; afterwards `reply` holds the result.

    The answer is journalled when the iteration ends. Left half-way, the user's turn stays and no answer is stored: the same call under the
    same key answers it. Other replies to the same user wait for it, but not for a reader that pauses for longer than a second.
    """

    def __init__(self, pieces: Iterator[str], finish: list[Reply], crews: Crews) -> None:
        """Take the pieces, the list into which the finished reply will be put, and threads for `async for`."""
        self._pieces = pieces
        self._finish = finish
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
    def reply(self) -> Reply | None:
        """The finished reply; None until the iteration has ended."""
        return self._finish[0] if self._finish else None

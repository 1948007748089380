"""An answer while it is being written, for `for` and for `async for`. Knows neither how it is written nor where it is kept."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

from locas_agent.results import Reply


class ReplyStream:
    """An answer while it is being written: iterate for pieces of text; afterwards `reply` holds the result.

    The answer is journalled when the iteration ends. Left half-way, the user's turn stays and no answer is stored.
    """

    def __init__(self, pieces: Iterator[str], finish: list[Reply]) -> None:
        """Take the pieces, and the list into which the finished reply will be put."""
        self._pieces = pieces
        self._finish = finish

    def __iter__(self) -> Iterator[str]:
        """Return the pieces of text as they come."""
        return self._pieces

    async def __aiter__(self) -> AsyncIterator[str]:
        """Yield the pieces of text as they come, each written in a worker thread."""
        while (piece := await asyncio.to_thread(next, self._pieces, None)) is not None:
            yield piece

    @property
    def reply(self) -> Reply | None:
        """The finished reply; None until the iteration has ended."""
        return self._finish[0] if self._finish else None

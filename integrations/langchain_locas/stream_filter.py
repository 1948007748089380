"""An answer while it is being written: which of its text may be shown already, where it ends, which calls it holds.

Knows no model: pieces of text in, pieces of text out.
"""

from __future__ import annotations

from collections.abc import Sequence

from langchain_locas.tool_calls import OPEN, Call, read
from locas_agent.errors import ConfigurationError


class Writing:
    """Takes an answer piece by piece. Spaces around it are left out, as `UserMemory.reply` does.

    Args:
        stop: words before which the answer ends.
        has_tools: whether it may hold calls, which are shown when they are complete.

    Raises:
        ConfigurationError: a stop word is empty.
    """

    def __init__(self, stop: Sequence[str], *, has_tools: bool) -> None:
        if "" in stop:
            raise ConfigurationError("stop holds an empty text: before it every answer would end; leave it out")
        self.is_stopped = False
        self._stop = tuple(stop)
        self._has_tools = has_tools
        self._whole = ""
        self._shown = 0

    def take(self, piece: str) -> str:
        """Take a piece and return what may be shown now; `is_stopped` tells that a stop word came."""
        self._whole += piece
        if not self._whole[: self._shown]:
            self._whole = self._whole.lstrip()
        found = [at for word in self._stop if (at := self._whole.find(word)) >= 0]
        if found:
            self._whole = self._whole[: min(found)]
            self.is_stopped = True
        return self._show(self._safe_end())

    def finish(self) -> tuple[str, list[Call]]:
        """Return what has not been shown yet, and the calls."""
        opened = self._opened()
        calls, after = read(self._whole[opened:])
        last = self._show(len(self._whole[:opened].rstrip()))
        return last + ("\n" if self._shown and after else "") + after, calls

    def _show(self, end: int) -> str:
        text = self._whole[self._shown : end]
        self._shown = max(self._shown, end)
        return text

    def _safe_end(self) -> int:
        """Where the text ends that neither a stop word nor a call nor the end of the answer can take back."""
        text = self._whole[: self._opened()]
        if not self.is_stopped:
            marks = (*self._stop, OPEN) if self._has_tools else self._stop
            longest = max((len(mark) for mark in marks), default=1) - 1
            held = next(
                (
                    size
                    for size in range(min(longest, len(text)), 0, -1)
                    if any(mark.startswith(text[-size:]) for mark in marks)
                ),
                0,
            )
            text = text[: len(text) - held]
        return max(self._shown, len(text.rstrip()))

    def _opened(self) -> int:
        """Where the first call begins; the end of the text if none does."""
        at = self._whole.find(OPEN) if self._has_tools else -1
        return len(self._whole) if at < 0 else at

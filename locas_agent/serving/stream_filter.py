"""Filter an answer while it is being written: stop texts end it, tool calls are held back until they are complete."""

from __future__ import annotations

from collections.abc import Sequence

from locas_agent.errors import ConfigurationError
from locas_agent.results import ToolCall
from locas_agent.serving.tool_calls import OPEN, read


class StreamFilter:
    """Takes an answer piece by piece. Spaces around it are left out, as `UserMemory.reply` does.

    Args:
        stop: texts before which the answer ends.
        has_tools: whether it may hold calls, which are shown when they are complete.

    Raises:
        ConfigurationError: a stop text is empty, or no text.
    """

    def __init__(self, stop: str | Sequence[str], *, has_tools: bool) -> None:
        stop = (stop,) if isinstance(stop, str) else tuple(stop)
        for text in stop:
            if not isinstance(text, str):
                raise ConfigurationError(f"stop holds a value of type {type(text).__name__}, expected texts")
        if "" in stop:
            raise ConfigurationError("stop holds an empty text: before it every answer would end; leave it out")
        self.is_stopped = False
        self._stop = stop
        self._has_tools = has_tools
        self._whole = ""
        self._shown = 0

    def feed(self, piece: str) -> str:
        """Take a piece and return what may be shown now; `is_stopped` tells that a stop text came."""
        self._whole += piece
        if not self._whole[: self._shown]:
            self._whole = self._whole.lstrip()
        found = [at for word in self._stop if (at := self._whole.find(word)) >= 0]
        if found:
            self._whole = self._whole[: min(found)]
            self.is_stopped = True
        return self._show(self._safe_end())

    def finish(self) -> tuple[str, list[ToolCall]]:
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
        """Where the text ends that neither a stop text nor a call nor the end of the answer can take back."""
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

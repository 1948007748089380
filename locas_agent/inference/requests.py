"""What is asked of a running batch, and the answer as its reader sees it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from queue import SimpleQueue
from threading import Event
from typing import Literal

from locas_agent.errors import ConfigurationError
from locas_agent.inference.generation import AllowedTokens, check_decoding
from locas_agent.inference.prefix_cache import PrefixSlot
from locas_agent.memory import MemoryBatch

FinishReason = Literal["stop", "length", "cancelled", "timeout"]
"""Why an answer ended: a stop token or a stop text, `max_new_tokens` or the context, its reader, its deadline."""


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One answer that is asked for; several of one user may run at once.

    Attributes:
        prompt: token ids, not empty.
        memory: serves one row: the memory of one (tenant, user, revision). None is the bare backbone.
        kept: a past of the same memory; what the prompt has in common with it is not run again, and the new past is
            left there.
        max_new_tokens: most tokens.
        temperature: 0 is greedy.
        seed: of a sampled answer, which is that of `Engine.stream` with this seed, whatever runs beside it.
        stop: texts that end the answer. The tokens that spell one are still given: who shows text cuts it.
        allowed: asked before each token which ones may be chosen: a form the answer has to keep.
        deadline: of `time.monotonic()`, at which the answer ends as far as it has come; None is no deadline.
    """

    prompt: Sequence[int] = field(repr=False)
    memory: MemoryBatch | None = field(default=None, repr=False)
    kept: PrefixSlot | None = field(default=None, repr=False)
    max_new_tokens: int = 48
    temperature: float = 0.0
    seed: int = 0
    stop: Sequence[str] = field(default=(), repr=False)
    allowed: AllowedTokens | None = field(default=None, repr=False)
    deadline: float | None = None

    def __post_init__(self) -> None:
        """Refuse options that are out of bounds.

        Raises:
            ConfigurationError: there is nothing to generate, no such temperature, seed or stop text.
        """
        check_decoding(self.max_new_tokens, self.temperature, self.seed)
        if isinstance(self.stop, str) or not all(isinstance(text, str) and text for text in self.stop):
            raise ConfigurationError("stop: expected a sequence of texts, none of them empty")


class RunningAnswer:
    """One answer under way: an iterator of tokens for one reading thread; any thread may cancel it."""

    def __init__(self) -> None:
        self._parts: SimpleQueue[int | Exception | None] = SimpleQueue()
        self._is_cancelled = Event()
        self._has_ended = False
        self.finish_reason: FinishReason | None = None
        """Why it ended; None while it is being written, and where an error ended it."""

    def __iter__(self) -> Iterator[int]:
        """Yield tokens as they come, the stop token left out, and end with the answer; raises as `next_token` does."""
        while (token := self.next_token()) is not None:
            yield token

    def next_token(self, timeout_seconds: float | None = None) -> int | None:
        """Wait for the next token.

        Args:
            timeout_seconds: the longest wait; None waits for as long as it takes.

        Returns:
            The token; None once the answer has ended.

        Raises:
            queue.Empty: nothing came in time.
            Exception: what went wrong in the step that wrote this answer.
        """
        if self._has_ended:
            return None
        part = self._parts.get(timeout=timeout_seconds)
        if isinstance(part, int):
            return part
        self._has_ended = True
        if part is not None:
            raise part
        return None

    def cancel(self) -> None:
        """Let the answer end at the next step; harmless once it has ended."""
        self._is_cancelled.set()

    @property
    def is_cancelled(self) -> bool:
        """Whether its reader wants no more."""
        return self._is_cancelled.is_set()

    def give(self, token: int) -> None:
        """Hand the reader a token; for the batch that writes the answer."""
        self._parts.put(token)

    def end(self, reason: FinishReason | Exception) -> None:
        """End the answer, or fail it; for the batch that writes it."""
        if isinstance(reason, Exception):
            self._parts.put(reason)
        else:
            self.finish_reason = reason
            self._parts.put(None)

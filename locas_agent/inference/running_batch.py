"""Many answers at once, each with its own memory, past, settings and end.

New ones join while others are being written: their prompts are run in parts between two steps of the others, then they
stand beside them in one forward. It imports no user and no store: whoever submits says whose memory a row has.

Example:
    batch = RunningBatch(engine)
    Thread(target=batch.serve, daemon=True).start()
    for token in batch.submit(GenerationRequest(prompt, memory=memory)):
        ...
    batch.close()
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from threading import Condition, Lock
from types import TracebackType
from typing import Self

from locas_agent.errors import ConfigurationError, IncompatibleMemory, TurnTooLong
from locas_agent.inference.decoding import BatchGeneration
from locas_agent.inference.generation import AnswerRow
from locas_agent.inference.requests import FinishReason, GenerationRequest, RunningAnswer
from locas_agent.inference.runner import ModelRunner
from locas_agent.memory import MemoryBatch

STOP_WINDOW = 8
"""Tokens looked at for a stop text beyond as many as it has characters: characters may span several tokens."""


class _Asked:
    """A request with its answer and, once it is taken in, its row."""

    def __init__(self, request: GenerationRequest) -> None:
        self.request = request
        self.answer = RunningAnswer()
        self.row: AnswerRow | None = None
        self._given = 0
        self._has_ended = False

    def take_row(self, context_tokens: int) -> AnswerRow:
        """Make its row."""
        asked = self.request
        limit = min(asked.max_new_tokens, context_tokens - len(asked.prompt))
        self.row = AnswerRow(
            asked.prompt, limit, asked.temperature, (asked.seed, 0), kept=asked.kept, allowed=asked.allowed
        )
        return self.row

    def end(self, reason: FinishReason | Exception) -> None:
        """End the answer once, and let its row leave the batch."""
        if self.row is not None:
            self.row.is_over = True
        if not self._has_ended:
            self._has_ended = True
            self.answer.end(reason)

    def end_if_unwanted(self) -> bool:
        """End it where its reader wants no more or its time is over; return whether it has ended."""
        deadline = self.request.deadline
        if self.answer.is_cancelled:
            self.end("cancelled")
        elif deadline is not None and time.monotonic() >= deadline:
            self.end("timeout")
        return self._has_ended

    def hand_out(self, decode: Callable[[Sequence[int]], str]) -> None:
        """Give new tokens to the reader, and end what has ended."""
        if (row := self.row) is None or self._has_ended:
            return
        for token in row.ids[self._given :]:
            self.answer.give(token)
        self._given = len(row.ids)
        if row.error is not None:
            self.end(row.error)
        elif row.is_stopped or _spells_stop(row.ids, self.request.stop, decode):
            self.end("stop")
        elif row.is_over:
            self.end("length")


class RunningBatch:
    """Writes answers of many requests side by side.

    `submit`, `close` and the answers may be used from any thread; `step` and `serve` run in one thread at a time.
    Nothing is allocated and no thread is started until then.
    """

    def __init__(
        self,
        runner: ModelRunner,
        *,
        max_rows: int = 16,
        max_batch_tokens: int = 16384,
        prefill_tokens: int = 512,
    ) -> None:
        """Take a runner.

        Args:
            runner: runs the backbone; an `Engine` is one.
            max_rows: most answers written at once; further requests wait, first come, first served.
            max_batch_tokens: rows times columns of keys and values that are taken in; a longer row runs alone.
            prefill_tokens: most tokens of prompts that are run between two steps of the others.

        Raises:
            ConfigurationError: a number is less than 1.
        """
        if min(max_rows, max_batch_tokens, prefill_tokens) < 1:
            raise ConfigurationError(
                f"max_rows, max_batch_tokens and prefill_tokens are at least 1, got {max_rows}, {max_batch_tokens} and "
                f"{prefill_tokens}"
            )
        self._runner = runner
        self._max_rows, self._max_batch_tokens, self._prefill_tokens = max_rows, max_batch_tokens, prefill_tokens
        self._waiting: deque[_Asked] = deque()
        self._changed = Condition()
        self._is_closed = False
        self._stepping = Lock()
        self._running: list[_Asked] = []
        self._joining: list[_Asked] = []
        self._decoding: BatchGeneration | None = None
        self._prefill: BatchGeneration | None = None

    @property
    def n_waiting(self) -> int:
        """Requests that have no row yet."""
        return len(self._waiting)

    @property
    def n_running(self) -> int:
        """Requests that have a row."""
        return len(self._running) + len(self._joining)

    @property
    def is_prefilling(self) -> bool:
        """Whether prompts are being run."""
        return self._prefill is not None

    def submit(self, request: GenerationRequest) -> RunningAnswer:
        """Ask for an answer; it is taken in by one of the next steps.

        Raises:
            ConfigurationError: the prompt is empty.
            TurnTooLong: the prompt leaves no room for a single token.
            IncompatibleMemory: the memory serves another number of rows than one.
            RuntimeError: the batch is closed.
        """
        backbone = self._runner.backbone
        if not request.prompt:
            raise ConfigurationError("the prompt is empty; a forward needs at least one token")
        if len(request.prompt) >= backbone.context_tokens:
            raise TurnTooLong(
                f"the prompt takes {len(request.prompt)} tokens, {backbone.name!r} leaves room for "
                f"{backbone.context_tokens - 1}"
            )
        if request.memory is not None and request.memory.n_rows != 1:
            raise IncompatibleMemory(f"the memory of a request serves one row, got {request.memory.n_rows}")
        asked = _Asked(request)
        with self._changed:
            if self._is_closed:
                raise RuntimeError("the batch is closed: nothing can be submitted any more; make another one")
            self._waiting.append(asked)
            self._changed.notify()
        return asked.answer

    def step(self) -> bool:
        """Write one token of every answer under way, after running a part of the prompts that wait.

        Returns:
            Whether anything is left to do.
        """
        with self._stepping:
            self._end_some()
            self._take_in()
            self._guarded(self._run_prompts)
            self._guarded(self._write)
            return bool(self._running or self._joining or self._waiting)

    def serve(self) -> None:
        """Step until the batch is closed, and wait while there is nothing to do; for a thread of its own."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._running or self._joining or self._is_closed)
                if self._is_closed:
                    break
            self.step()
        with self._stepping:
            self._cancel_all()

    def close(self) -> None:
        """Take nothing more; what is under way ends as cancelled, and `serve` returns."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        with self._stepping:
            self._cancel_all()

    def __enter__(self) -> Self:
        """Return the batch."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()

    def _end_some(self) -> None:
        """End what is not wanted any more, wherever it stands; rows leave the batch when it writes the next time."""
        with self._changed:
            self._waiting = deque([asked for asked in self._waiting if not asked.end_if_unwanted()])
        for asked in (*self._joining, *self._running):
            asked.end_if_unwanted()

    def _take_in(self) -> None:
        """Begin the prompts of requests that wait, as many as there is room for."""
        if self._joining or (self._decoding is not None and not self._decoding.may_be_joined):
            return
        taken: list[_Asked] = []
        with self._changed:
            while self._waiting and self._has_room([*taken, self._waiting[0]]):
                taken.append(self._waiting.popleft())
        if taken:
            self._joining = taken
            self._guarded(self._begin)

    def _has_room(self, group: Sequence[_Asked]) -> bool:
        """Whether requests may be taken in together, beside what is running."""
        n_rows = len(group) + len(self._running)
        longest = max(len(asked.request.prompt) for asked in group)
        if n_rows > self._max_rows or (len(group) > 1 and len(group) * longest > self._prefill_tokens):
            return False
        running = [asked.row for asked in self._running if asked.row is not None]
        columns = max([longest, *(len(row.prompt) + len(row.ids) for row in running)])
        return not running or n_rows * columns <= self._max_batch_tokens

    def _begin(self) -> None:
        backbone = self._runner.backbone
        rows = [asked.take_row(backbone.context_tokens) for asked in self._joining]
        memory = MemoryBatch.joined([(asked.request.memory, 1) for asked in self._joining], backbone)
        self._prefill = BatchGeneration(self._runner, rows, memory)

    def _run_prompts(self) -> None:
        """Run a part of the prompts under way; those that are through get their first token and join the others."""
        if (prefill := self._prefill) is None:
            return
        part = max(1, self._prefill_tokens // len(self._joining))
        if not prefill.alive:
            self._joining, self._prefill = [], None
        elif prefill.waiting_tokens > part:
            prefill.run_ahead(part)
        else:
            prefill.step()
            self._hand_out(self._joining)
            prefill.drop_finished()
            self._join(prefill)

    def _join(self, prefill: BatchGeneration) -> None:
        self._running += [asked for asked in self._joining if asked.row in prefill.rows]
        self._joining, self._prefill = [], None
        if self._decoding is None:
            self._decoding = prefill if prefill.rows else None
        elif prefill.rows:
            self._decoding.join(prefill)

    def _write(self) -> None:
        """Write a token of every answer whose prompt is through."""
        if (decoding := self._decoding) is None:
            return
        decoding.drop_finished()
        if decoding.rows:
            decoding.step()
        self._hand_out(self._running)
        self._running = [asked for asked in self._running if asked.row in decoding.alive]
        if not self._running:
            decoding.drop_finished()
            self._decoding = None

    def _hand_out(self, group: Sequence[_Asked]) -> None:
        for asked in group:
            asked.hand_out(self._runner.backbone.decode)

    def _guarded(self, act: Callable[[], None]) -> None:
        """Act for everybody who has a row; what goes wrong fails all of them and nobody else."""
        try:
            act()
        except Exception as error:  # noqa: BLE001  it is raised again in each reader
            self._end_all([*self._joining, *self._running], error)

    def _end_all(self, group: Sequence[_Asked], reason: FinishReason | Exception) -> None:
        for asked in group:
            asked.end(reason)
        self._joining, self._running, self._prefill, self._decoding = [], [], None, None

    def _cancel_all(self) -> None:
        with self._changed:
            waiting, self._waiting = list(self._waiting), deque()
        self._end_all([*waiting, *self._joining, *self._running], "cancelled")


def _spells_stop(ids: Sequence[int], stop: Sequence[str], decode: Callable[[Sequence[int]], str]) -> bool:
    """Tell whether the newest tokens complete a stop text; spaces before the answer are none of it."""
    if not stop:
        return False
    window = max(map(len, stop)) + STOP_WINDOW
    text = decode(ids[-window:])
    if len(ids) <= window or not decode(ids[:-window]).strip():
        text = text.lstrip()
    return any(word in text for word in stop)

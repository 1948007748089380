"""Stateless answers of many users in one running batch, each row with its own memory."""

from __future__ import annotations

from collections.abc import Iterator
from threading import Lock, Thread
from types import TracebackType
from typing import Self

from locas_agent.aio import Crews
from locas_agent.inference.requests import GenerationRequest, RunningAnswer
from locas_agent.inference.running_batch import RunningBatch
from locas_agent.serving.generation import ChatGeneration, ChatRequest
from locas_agent.serving.streams import GenerationStream


class SideBySide:
    """Answers requests as `UserMemory.generate_stream` does, those that are under way together in one batch.

    May be called from several threads. One thread writes the tokens of all of them; it begins with the first answer and
    ends with `close`.

    Args:
        chat: makes prompts of requests, and text of tokens.
        crews: threads for `async for`.
        rows: most answers that are written at once; further requests wait, first come, first served.

    Raises:
        ConfigurationError: there is not one row.
    """

    def __init__(self, chat: ChatGeneration, crews: Crews, *, rows: int) -> None:
        self._chat = chat
        self._crews = crews
        self._batch = RunningBatch(chat.engine, max_rows=rows)
        self._writing: Thread | None = None
        self._lock = Lock()

    @property
    def n_running(self) -> int:
        """Answers that are being written now."""
        return self._batch.n_running

    def stream(self, request: ChatRequest) -> GenerationStream:
        """Answer a request piece by piece; dropped half-way, its row leaves the batch at the next token.

        Raises:
            LocasError: where it is read, as `UserMemory.generate`.
            RuntimeError: where it is read: this was closed before the answer had ended.
        """
        return GenerationStream(self._chat.stream(request, write=self._tokens), self._crews)

    def close(self) -> None:
        """Take nothing more, end what is under way, and let the thread go."""
        self._batch.close()
        with self._lock:
            writing, self._writing = self._writing, None
        if writing is not None:
            writing.join()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    def _tokens(self, asked: GenerationRequest) -> Iterator[int]:
        answer = self._submit(asked)
        try:
            yield from answer
        finally:
            answer.cancel()  # its reader may have left; harmless at its end
        if answer.finish_reason == "cancelled":
            raise RuntimeError("this was closed while the answer was being written: ask again, of another one")

    def _submit(self, asked: GenerationRequest) -> RunningAnswer:
        answer = self._batch.submit(asked)
        with self._lock:
            if self._writing is None:
                self._writing = Thread(target=self._batch.serve, name="locas-writing", daemon=True)
                self._writing.start()
        return answer

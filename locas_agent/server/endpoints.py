"""The endpoints of /v1: let the caller in, journal what is new, have it answered, journal the answer, send it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import TypeVar

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from locas_agent import ChatAnswer, MemoryHost, UserKey
from locas_agent.errors import ConfigurationError
from locas_agent.server.journal import ChatJournal, JournalledChat, fitted
from locas_agent.server.metrics import Metrics
from locas_agent.server.protocol import errors
from locas_agent.server.protocol.chat_completions import ChatCompletionRequest, Completion
from locas_agent.server.protocol.content import Message, Options, answered_text, merged
from locas_agent.server.protocol.errors import ApiError, unsupported
from locas_agent.server.protocol.events import DONE, EventStream, event
from locas_agent.server.protocol.responses import ResponseForm, ResponseRequest, new_id, stored_response
from locas_agent.server.reply_queue import ReplyQueue, WaitingRequest
from locas_agent.server.requests import (
    CONVERSATION_HEADER,
    IDEMPOTENCY_HEADER,
    Door,
    learns,
    stores,
    while_client_waits,
)
from locas_agent.server.response_journal import ResponseJournal
from locas_agent.server.settings import ServerSettings

Pieces = AsyncGenerator[str | ChatAnswer]
Keep = Callable[[ChatAnswer], None]
T = TypeVar("T")


class Endpoints:
    """What is answered under /v1.

    Args:
        memory: answers.
        queue: has it answer.
        metrics: counts.
        settings: bounds.
    """

    def __init__(self, memory: MemoryHost, queue: ReplyQueue, metrics: Metrics, settings: ServerSettings) -> None:
        self._memory = memory
        self._queue = queue
        self._metrics = metrics
        self._settings = settings
        self._door = Door(memory, settings)
        self._chats = ChatJournal(memory)
        self._threads = ResponseJournal(memory)
        self._since = int(time.time())
        self.models_served = model_names(memory, settings)

    async def models(self, request: Request) -> Response:
        """List the backbones."""
        await self._door.key(request)
        return JSONResponse({"object": "list", "data": [self._model(name) for name in self.models_served]})

    async def one_model(self, request: Request) -> Response:
        """Describe a backbone."""
        await self._door.key(request)
        name = request.path_params["model"]
        self._check_model(name)
        return JSONResponse(self._model(name))

    async def chat_completions(self, request: Request) -> Response:
        """Answer a conversation that the client sends whole."""
        key = await self._door.key(request)
        asked = await self._door.body(request, ChatCompletionRequest)
        caller = self._door.caller(request, key, safety_identifier=asked.safety_identifier, user=asked.user)
        self._check_model(asked.model)
        options, messages = asked.options(), asked.chat()
        self._queue.check_room()
        keep: Keep | None = None
        if stores(request, asked.store):
            conversation = request.headers.get(CONVERSATION_HEADER)
            learn = learns(request)
            recorded = await self._journal(
                lambda: self._chats.record(caller.user, messages, conversation=conversation, learn=learn)
            )
            messages = await self._fitted(recorded, options)
            keep = lambda answer: self._chats.answered(recorded, answered_text(answer))  # noqa: E731
        else:
            messages = merged(messages)
        form = Completion.of(asked)
        pieces = self._pieces(caller.user, messages, options, keep)
        if asked.stream:
            return await self._stream(request, pieces, lambda begun: _chunks(form, begun))
        return JSONResponse(form.whole(await self._whole(request, pieces)))

    async def responses(self, request: Request) -> Response:
        """Answer what is new in a conversation that the server holds."""
        key = await self._door.key(request)
        asked = await self._door.body(request, ResponseRequest)
        caller = self._door.caller(request, key, safety_identifier=asked.safety_identifier, user=asked.user)
        self._check_model(asked.model)
        again = request.headers.get(IDEMPOTENCY_HEADER)
        form = ResponseForm(asked, new_id(caller.user, again), stores(request, asked.store))
        pieces = self._response(caller.user, form, learn=learns(request), may_be_kept=again is not None)
        if asked.stream:
            return await self._stream(request, pieces, lambda begun: _events(form, begun))
        return JSONResponse(form.whole(await self._whole(request, pieces)))

    async def _response(self, user: UserKey, form: ResponseForm, *, learn: bool, may_be_kept: bool) -> Pieces:
        """Yield a response: the kept one where the same call was answered before, else one that is written now."""
        asked, response_id = form.request, form.response_id
        options, given, name = asked.options(), asked.given(), asked.conversation_name()

        def record() -> tuple[JournalledChat | None, list[Message]]:
            session, history = self._threads.history(
                user, response_id, previous=asked.previous_response_id, conversation=name
            )
            if not form.is_stored:
                return None, merged(self._threads.shown(given, history))
            return self._threads.record(user, response_id, given, session=session, history=history, learn=learn), []

        with self._threads.one_try_of(response_id):
            if may_be_kept and form.is_stored:
                before = await self._journal(lambda: self._threads.answered_before(user, response_id, given))
                if before is not None:
                    turn, answer = before
                    form.created = int(turn.at.timestamp())
                    if answer.text:
                        yield answer.text
                    yield answer
                    return
            self._queue.check_room()
            recorded, messages = await self._journal(record)
            keep: Keep | None = None
            if recorded is not None:
                kept = recorded
                messages = await self._fitted(kept, options)
                keep = lambda answer: self._threads.answered(kept, answer)  # noqa: E731
            async with aclosing(self._pieces(user, messages, options, keep)) as pieces:
                async for piece in pieces:
                    yield piece

    async def stored_response(self, request: Request) -> Response:
        """Return a response that was given before, as the journal has it."""
        key = await self._door.key(request)
        caller = self._door.caller(request, key, safety_identifier=None, user=None)
        if request.query_params.get("stream", "false") != "false":
            raise unsupported("stream", "a response of before comes whole, leave it out")
        response_id = request.path_params["response_id"]
        turn, message = await self._journal(lambda: self._threads.stored(caller.user, response_id))
        return JSONResponse(stored_response(turn, message, response_id, model=self.models_served[0]))

    async def _journal(self, call: Callable[[], T]) -> T:
        return await self._memory.crews.run("journal", call)

    async def _fitted(self, recorded: JournalledChat, options: Options) -> list[Message]:
        def fit() -> list[Message]:
            home = self._memory.runtime_of(recorded.user)
            length = home.config.window.answer_tokens(options.max_new_tokens)
            return fitted(home, recorded, options.tools, answer_tokens=length)

        return await self._journal(fit)

    async def _pieces(self, user: UserKey, messages: list[Message], options: Options, keep: Keep | None) -> Pieces:
        """Yield an answer, and journal it before its end is told: who has read it all knows that it is kept."""
        is_whole = False
        try:
            async with aclosing(self._queue.stream(WaitingRequest(user, messages, options))) as pieces:
                async for piece in pieces:
                    if isinstance(piece, ChatAnswer):
                        is_whole = True
                        self._metrics.answer(piece)
                        if keep is not None:
                            await asyncio.shield(self._memory.crews.run("journal", keep, piece))
                    yield piece
        except (asyncio.CancelledError, GeneratorExit):
            if not is_whole:
                self._metrics.left()
            raise

    async def _whole(self, request: Request, pieces: Pieces) -> ChatAnswer:
        """Return an answer; stop writing it when the client is gone."""

        async def read() -> ChatAnswer:
            async with aclosing(pieces):
                async for piece in pieces:
                    if isinstance(piece, ChatAnswer):
                        return piece
            raise AssertionError("an answer ends with the whole of it")

        return await while_client_waits(request, read())

    async def _stream(
        self, request: Request, pieces: Pieces, form: Callable[[Pieces], AsyncGenerator[bytes]]
    ) -> Response:
        """Send an answer as events.

        What goes wrong before the first piece is an error of the usual form: the status is not sent before there is
        one.
        """
        try:
            first = await while_client_waits(request, anext(pieces))
        except BaseException:
            await pieces.aclose()
            raise

        async def begun() -> Pieces:
            async with aclosing(pieces):
                yield first
                async for piece in pieces:
                    yield piece

        return EventStream(form(begun()), send_seconds=self._settings.send_seconds)

    def _model(self, name: str) -> dict[str, object]:
        return {"id": name, "object": "model", "created": self._since, "owned_by": "locas-agent"}

    def _check_model(self, name: str) -> None:
        if name not in self.models_served:
            served = ", ".join(map(repr, self.models_served))
            raise ApiError(404, f"this server has {served}: name one of them", code="model_not_found", param="model")


def model_names(memory: MemoryHost, settings: ServerSettings) -> list[str]:
    """Return what clients call the backbones, in the order of the agents.

    Any of them may be named: each user is answered on the backbone of the user's memory.

    Raises:
        ConfigurationError: two have one name.
    """
    names = [Path(agent.backbone.name).name for agent in memory.agents]
    names[0] = settings.model or names[0]
    if len(set(names)) < len(names):
        raise ConfigurationError(f"backbones are called {', '.join(names)}: name the first otherwise, with --model")
    return names


async def _chunks(form: Completion, pieces: Pieces) -> AsyncGenerator[bytes]:
    async with aclosing(pieces):
        try:
            yield event(form.first())
            async for piece in pieces:
                if isinstance(piece, ChatAnswer):
                    for chunk in form.last(piece):
                        yield event(chunk)
                else:
                    yield event(form.piece(piece))
            yield DONE
        except Exception as error:  # noqa: BLE001  the status is sent: what is left is an event that says so
            yield event(errors.of(error).body)


async def _events(form: ResponseForm, pieces: Pieces) -> AsyncGenerator[bytes]:
    async with aclosing(pieces):
        try:
            for each in form.opening():
                yield event(each, name=each["type"])
            async for piece in pieces:
                for each in form.closing(piece) if isinstance(piece, ChatAnswer) else (form.piece(piece),):
                    yield event(each, name=each["type"])
        except Exception as error:  # noqa: BLE001  the status is sent: what is left is an event that says so
            failed = form.failure(errors.of(error))
            yield event(failed, name=failed["type"])

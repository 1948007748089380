"""Stateless answers: given messages, answered with one user's memory. Nothing is journalled and nothing learnt."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from locas_agent.backbone import Backbone
from locas_agent.backbone.detokenizer import Detokenizer
from locas_agent.config import WindowSettings
from locas_agent.conversation.window import overflow
from locas_agent.errors import ConfigurationError, GenerationTimeout
from locas_agent.inference import Engine
from locas_agent.inference.generation import check_decoding
from locas_agent.inference.requests import GenerationRequest
from locas_agent.memory import MemoryBatch
from locas_agent.memory_cache import MemoryCache
from locas_agent.results import ChatAnswer
from locas_agent.serving.stream_filter import StreamFilter
from locas_agent.serving.tool_calls import begins_with_call, must_call, names_of, require_tools
from locas_storage import MemoryStore, Turn, UserKey

TokenWriter = Callable[[GenerationRequest], Iterator[int]]
"""Writes one answer, token by token; whoever wants no more of it closes or drops the iterator."""


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """What is to be answered, with whose memory, and how; `UserMemory.generate` says what each option does.

    Attributes:
        user: whose memory answers.
        messages: chat messages of the Hugging Face form, the whole prompt.
        stop: texts before which the answer ends.
        tools: JSON schemas of functions that the answer may call.
        tool_choice: whether it has to call one, and which.
        max_new_tokens: longest answer, in tokens; the configuration's by default.
        temperature: 0 is greedy.
        seed: of sampling.
        timeout_seconds: longest time that the answer may take.
    """

    user: UserKey
    messages: Sequence[Mapping[str, Any]] = field(repr=False)
    stop: str | Sequence[str] = field(default=(), repr=False)
    tools: Sequence[Mapping[str, Any]] = field(default=(), repr=False)
    tool_choice: object = None
    max_new_tokens: int | None = None
    temperature: float = 0.0
    seed: int = 0
    timeout_seconds: float | None = None


@dataclass(slots=True)
class _Draw:
    """One answer under way: its prompt, its room, and how many tokens were written."""

    request: ChatRequest
    prompt: list[int]
    room: int
    memory: MemoryBatch | None
    write: TokenWriter
    tokens: int = 0


class ChatGeneration:
    """Answers messages with the memory of the user who asks. May be called from several threads.

    Args:
        backbone: the frozen language model.
        store: where journals are.
        engine: runs the backbone.
        memories: of the users.
        settings: window and longest answer.
    """

    def __init__(
        self,
        *,
        backbone: Backbone,
        store: MemoryStore,
        engine: Engine,
        memories: MemoryCache,
        settings: WindowSettings,
    ) -> None:
        self._backbone = backbone
        self._store = store
        self.engine = engine
        self._memories = memories
        self._settings = settings

    def stream(self, request: ChatRequest, *, write: TokenWriter | None = None) -> Generator[str, None, ChatAnswer]:
        """Answer piece by piece.

        Args:
            request: what is asked.
            write: writes the tokens; the engine, in a batch of this one row, unless given.

        Yields:
            Pieces of text, without stop texts and tool calls.

        Returns:
            The whole answer, what it was made from, and the tool calls in it.

        Raises:
            ConfigurationError: there is no message, or an option is out of bounds.
            InvalidTurn: a message holds a text that cannot be encoded.
            BackboneError: the chat template refuses the messages.
            TurnTooLong: the messages leave no room for an answer.
            GenerationTimeout: the answer took longer than it was given.
        """
        length = self._settings.answer_tokens(request.max_new_tokens)
        check_decoding(length, request.temperature, request.seed)
        prompt = self._prompt(request)
        revision, memory = self._memories.current(request.user)
        pending_turns = len(self.pending_turns(request.user))
        room = min(length, self._backbone.context_tokens - len(prompt))
        draw = _Draw(request, prompt, room, self._memories.batch([memory]), write or self._alone)
        written = StreamFilter(request.stop, has_tools=bool(request.tools))
        shown = ""
        for piece in self._pieces(draw):
            if text := written.feed(piece):
                shown += text
                yield text
            if written.is_stopped:
                break
        last, calls = written.finish()
        if last:
            yield last
        is_cut = not written.is_stopped and draw.tokens >= room
        return ChatAnswer(
            text=shown + last,
            calls=tuple(calls),
            finish_reason="tool_calls" if calls else "length" if is_cut else "stop",
            prompt_tokens=len(prompt),
            answer_tokens=draw.tokens,
            revision=revision.number if revision else None,
            used_memory=memory is not None,
            pending_turns=pending_turns,
        )

    def pending_turns(self, user: UserKey) -> list[Turn]:
        """Return the turns of a user that left the window and wait to be learnt."""
        state = self._store.state(user)
        if state is None:
            return []
        return overflow(self._store.turns(user, after=state.consolidated_seq), self._settings.window_tokens)

    def _prompt(self, request: ChatRequest) -> list[int]:
        messages, tools = request.messages, request.tools
        if isinstance(messages, str | Mapping) or not all(
            isinstance(one, Mapping) and {"role", "content"} <= set(one) for one in messages
        ):
            raise ConfigurationError(
                "messages: expected a list of mappings with role and content, such as "
                '[{"role": "user", "content": "Hello."}]'
            )
        if not messages:
            raise ConfigurationError("messages: got none, so there is nothing to answer; give at least one")
        names_of(tools)
        if tools:
            require_tools(self._backbone)
        return self._backbone.encode_chat(messages, tools=tools or None)

    def _pieces(self, draw: _Draw) -> Iterator[str]:
        request = draw.request
        deadline = None if request.timeout_seconds is None else time.monotonic() + request.timeout_seconds
        must = must_call(request.tool_choice, request.tools)
        asked = GenerationRequest(
            draw.prompt,
            memory=draw.memory,
            max_new_tokens=max(1, draw.room),
            temperature=request.temperature,
            seed=request.seed,
            allowed=begins_with_call(self._backbone, must) if must else None,
            deadline=deadline,
        )
        detokenizer = Detokenizer(self._backbone.decode)
        for token in draw.write(asked):
            draw.tokens += 1
            yield detokenizer.add(token)
            if deadline is not None and time.monotonic() >= deadline:
                raise _too_slow(request)
        if draw.tokens < draw.room and deadline is not None and time.monotonic() >= deadline:
            raise _too_slow(request)  # the writer ended it then, wherever it stood
        yield detokenizer.finish()

    def _alone(self, asked: GenerationRequest) -> Iterator[int]:
        return self.engine.stream(
            asked.prompt,
            memory=asked.memory,
            max_new_tokens=asked.max_new_tokens,
            temperature=asked.temperature,
            seed=asked.seed,
            allowed=asked.allowed,
        )


def _too_slow(request: ChatRequest) -> GenerationTimeout:
    return GenerationTimeout(
        f"no whole answer within {request.timeout_seconds} seconds: give it longer, or fewer tokens"
    )

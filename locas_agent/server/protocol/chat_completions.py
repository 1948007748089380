"""The form of /v1/chat/completions: a request's messages and options, an answer's JSON, whole or in chunks."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from locas_agent import ChatAnswer
from locas_agent.server.protocol.content import (
    MAX_MESSAGES,
    MAX_TOOLS,
    Content,
    Form,
    Function,
    Message,
    Options,
    about_memory,
    answered_text,
    call_of,
    check_one_answer,
    finish_reason,
    text_of,
    tool_schema,
)
from locas_agent.server.protocol.errors import unsupported
from locas_agent.serving.tool_calls import held

_ROLES = {"developer": "system", "function": "tool"}
"""Roles that are another one's."""


class _Call(Form):
    id: str = ""
    function: Function


class ChatMessage(Form):
    """One message of a request."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: Content = None
    name: str | None = Field(None, max_length=200)
    tool_calls: list[_Call] | None = Field(None, max_length=MAX_TOOLS)
    tool_call_id: str | None = None


class _Tool(Form):
    type: str = "function"
    function: Function


class _StreamOptions(Form):
    include_usage: bool = False


class _ResponseFormat(Form):
    type: str = "text"


class ChatCompletionRequest(Form):
    """The body of a request."""

    model: str = Field(min_length=1, max_length=500)
    messages: list[ChatMessage] = Field(min_length=1, max_length=MAX_MESSAGES)
    stream: bool = False
    stream_options: _StreamOptions | None = None
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2)
    seed: int | None = Field(None, ge=0)
    stop: str | Annotated[list[str], Field(max_length=16)] | None = None
    tools: list[_Tool] | None = Field(None, max_length=MAX_TOOLS)
    tool_choice: str | dict[str, Any] | None = None
    response_format: _ResponseFormat | None = None
    n: int | None = None
    top_p: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    user: str | None = None
    safety_identifier: str | None = None
    store: bool | None = None

    def chat(self) -> list[Message]:
        """Return the messages as the core takes them.

        Raises:
            ApiError: a message holds something that a backbone cannot read.
        """
        return [_message(message, f"messages.{at}") for at, message in enumerate(self.messages)]

    def options(self) -> Options:
        """Return how the answer is to be drawn.

        Raises:
            ApiError: an option is asked for that the engine does not have.
        """
        check_one_answer(
            self.n,
            top_p=self.top_p,
            frequency_penalty=self.frequency_penalty,
            presence_penalty=self.presence_penalty,
            logprobs=self.logprobs,
            top_logprobs=self.top_logprobs,
        )
        if self.response_format is not None and self.response_format.type != "text":
            raise unsupported("response_format", "answers are plain text")
        is_bound = self.tool_choice != "none"
        return Options(
            stop=(self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ()),
            tools=tuple(tool_schema(tool.function) for tool in self.tools or ()) if is_bound else (),
            tool_choice=self.tool_choice if is_bound else None,
            max_new_tokens=self.max_completion_tokens or self.max_tokens,
            temperature=self.temperature or 0.0,
            seed=self.seed or 0,
        )


def _message(message: ChatMessage, param: str) -> Message:
    role = _ROLES.get(message.role, message.role)
    made: Message = {"role": role, "content": held(role, text_of(message.content, f"{param}.content"))}
    if message.name:
        made["name"] = message.name
    if message.tool_calls:
        made["tool_calls"] = [call_of(call.function, f"{param}.tool_calls") for call in message.tool_calls]
    return made


@dataclass(frozen=True, slots=True)
class Completion:
    """One answer on its way out.

    Attributes:
        model: what clients call the backbone.
        completion_id: its id.
        created: seconds since 1970.
        includes_usage: whether the chunks end with the usage.
    """

    model: str
    completion_id: str
    created: int
    includes_usage: bool

    @classmethod
    def of(cls, request: ChatCompletionRequest) -> Completion:
        """Begin the answer to a request."""
        usage = request.stream_options is not None and request.stream_options.include_usage
        return cls(request.model, f"chatcmpl-{uuid.uuid4().hex}", int(time.time()), usage)

    def whole(self, answer: ChatAnswer) -> dict[str, Any]:
        """Return the answer in one piece."""
        message: dict[str, Any] = {"role": "assistant", "content": answered_text(answer), "refusal": None}
        if calls := _calls(answer):
            message |= {"tool_calls": calls, "content": message["content"] or None}
        choice = {"index": 0, "message": message, "finish_reason": finish_reason(answer), "logprobs": None}
        return self._head("chat.completion") | {
            "choices": [choice],
            "usage": _usage(answer),
            "locas": about_memory(answer),
        }

    def first(self) -> dict[str, Any]:
        """Return the chunk that opens the answer."""
        return self._chunk({"role": "assistant", "content": ""}, None)

    def piece(self, text: str) -> dict[str, Any]:
        """Return the chunk of a piece of text."""
        return self._chunk({"content": text}, None)

    def last(self, answer: ChatAnswer) -> list[dict[str, Any]]:
        """Return the chunks after the last piece: calls, why it ended, and the usage if it is asked for."""
        chunks = []
        if unread := answered_text(answer)[len(answer.text) :]:
            chunks.append(self.piece(unread))
        if calls := _calls(answer):
            chunks.append(self._chunk({"tool_calls": [{"index": at} | call for at, call in enumerate(calls)]}, None))
        chunks.append(self._chunk({}, finish_reason(answer)) | {"locas": about_memory(answer)})
        if self.includes_usage:
            chunks.append(self._head("chat.completion.chunk") | {"choices": [], "usage": _usage(answer)})
        return chunks

    def _chunk(self, delta: dict[str, Any], reason: str | None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "finish_reason": reason, "logprobs": None}
        return self._head("chat.completion.chunk") | {"choices": [choice]}

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.completion_id, "object": kind, "created": self.created, "model": self.model}


def _calls(answer: ChatAnswer) -> list[dict[str, Any]]:
    return [
        {
            "id": f"call_{uuid.uuid4().hex[:24]}",
            "type": "function",
            "function": {"name": call.name, "arguments": call.arguments},
        }
        for call in answer.calls
        if call.name is not None
    ]


def _usage(answer: ChatAnswer) -> dict[str, Any]:
    return {
        "prompt_tokens": answer.prompt_tokens,
        "completion_tokens": answer.answer_tokens,
        "total_tokens": answer.prompt_tokens + answer.answer_tokens,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
    }

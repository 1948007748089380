"""The form of /v1/responses: a request's messages and options, an answer's JSON, whole or as events."""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import Field

from locas_agent import ChatAnswer, Turn, UserKey
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
    text_of,
    tool_schema,
)
from locas_agent.server.protocol.errors import ApiError, unsupported
from locas_agent.serving.tool_calls import held


class _Item(Form):
    """A message, a call of a tool, or what a tool returned."""

    type: str = "message"
    role: Literal["system", "developer", "user", "assistant"] = "user"
    content: Content = None
    name: str = ""
    arguments: str = "{}"
    output: Content = None


class _Tool(Form):
    type: str
    name: str = ""
    description: str | None = None
    parameters: dict[str, Any] | None = None


class _Conversation(Form):
    id: str = Field(min_length=1, max_length=200)


class _TextFormat(Form):
    type: str = "text"


class _Text(Form):
    format: _TextFormat | None = None


class ResponseRequest(Form):
    """The body of a request."""

    model: str = Field(min_length=1, max_length=500)
    input: str | list[_Item] = Field(max_length=4 << 20)
    instructions: str | None = None
    previous_response_id: str | None = Field(None, min_length=1, max_length=200)
    conversation: str | _Conversation | None = None
    stream: bool = False
    store: bool | None = None
    max_output_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = None
    tools: list[_Tool] | None = Field(None, max_length=MAX_TOOLS)
    tool_choice: str | dict[str, Any] | None = None
    text: _Text | None = None
    top_logprobs: int | None = None
    background: bool | None = None
    metadata: dict[str, str] | None = None
    user: str | None = None
    safety_identifier: str | None = None

    def conversation_name(self) -> str | None:
        """Return the name of the conversation, None where it has none.

        Raises:
            ApiError: there is one, and a response to go on from as well.
        """
        name = self.conversation.id if isinstance(self.conversation, _Conversation) else self.conversation
        if name is not None and self.previous_response_id is not None:
            raise ApiError(
                400,
                "the request has both `conversation` and `previous_response_id`: send one of them",
                param="previous_response_id",
            )
        return name

    def given(self) -> list[Message]:
        """Return the new messages as the core takes them.

        Raises:
            ApiError: an item is none that a backbone can read.
        """
        items = [_Item(content=self.input)] if isinstance(self.input, str) else self.input
        if not items or len(items) > MAX_MESSAGES:
            raise ApiError(400, f"input: got {len(items)} items, expected 1 to {MAX_MESSAGES}", param="input")
        said = [_message(item, f"input.{at}") for at, item in enumerate(items) if item.type != "reasoning"]
        return [{"role": "system", "content": self.instructions}, *said] if self.instructions else said

    def options(self) -> Options:
        """Return how the answer is to be drawn.

        Raises:
            ApiError: an option is asked for that the engine does not have.
        """
        check_one_answer(None, top_p=self.top_p, top_logprobs=self.top_logprobs, background=self.background)
        if self.text is not None and self.text.format is not None and self.text.format.type != "text":
            raise unsupported("text.format", "answers are plain text")
        is_bound = self.tool_choice != "none"
        choice = self.tool_choice
        if isinstance(choice, dict):
            choice = {"type": "function", "function": {"name": choice.get("name")}}
        return Options(
            tools=tuple(_schema(tool) for tool in self.tools or ()) if is_bound else (),
            tool_choice=choice if is_bound else None,
            max_new_tokens=self.max_output_tokens,
            temperature=self.temperature or 0.0,
        )


def _schema(tool: _Tool) -> dict[str, Any]:
    if tool.type != "function" or not tool.name:
        raise unsupported("tools", "only tools of type function, with a name, can be called")
    return tool_schema(Function(name=tool.name, description=tool.description, parameters=tool.parameters))


def _message(item: _Item, param: str) -> Message:
    if item.type == "message":
        role = "system" if item.role == "developer" else item.role
        return {"role": role, "content": held(role, text_of(item.content, f"{param}.content"))}
    if item.type == "function_call" and item.name:
        return {
            "role": "assistant",
            "content": "",
            "tool_calls": [call_of(Function(name=item.name[:128], arguments=item.arguments), f"{param}.arguments")],
        }
    if item.type == "function_call_output":
        return {"role": "tool", "content": held("tool", text_of(item.output, f"{param}.output"))}
    raise unsupported(f"{param}.type", "expected message, function_call or function_call_output")


def new_id(user: UserKey, again: str | None) -> str:
    """Return the id of a response: a fresh one, or that of a call that is tried again.

    Args:
        user: whose response.
        again: what the client calls this call, if it may be tried again.
    """
    if again is None:
        return f"resp_{uuid.uuid4().hex}"
    return f"resp_{hashlib.sha256(f'{user.digest}{again}'.encode()).hexdigest()[:32]}"


@dataclass(slots=True)
class ResponseForm:
    """One answer on its way out.

    Attributes:
        request: what was asked.
        response_id: its id.
        is_stored: whether it can be gone on from.
        created: seconds since 1970.
    """

    request: ResponseRequest
    response_id: str
    is_stored: bool
    created: int = field(default_factory=lambda: int(time.time()))
    _number: int = 0

    def whole(self, answer: ChatAnswer) -> dict[str, Any]:
        """Return the answer in one piece."""
        return self._response("incomplete" if answer.finish_reason == "length" else "completed", answer)

    def opening(self) -> Iterator[dict[str, Any]]:
        """Return the events before the first piece of text."""
        yield self._event("response.created", response=self._response("in_progress", None))
        yield self._event("response.in_progress", response=self._response("in_progress", None))
        yield self._event("response.output_item.added", output_index=0, item=self._message("", "in_progress"))
        yield self._event("response.content_part.added", **self._place(), part=_part(""))

    def piece(self, text: str) -> dict[str, Any]:
        """Return the event of a piece of text."""
        return self._event("response.output_text.delta", **self._place(), delta=text, logprobs=[])

    def closing(self, answer: ChatAnswer) -> Iterator[dict[str, Any]]:
        """Return the events after the last piece."""
        text = answered_text(answer)
        if unread := text[len(answer.text) :]:
            yield self.piece(unread)
        response = self.whole(answer)
        message = self._message(text, "completed")
        yield self._event("response.output_text.done", **self._place(), text=text, logprobs=[])
        yield self._event("response.content_part.done", **self._place(), part=_part(text))
        yield self._event("response.output_item.done", output_index=0, item=message)
        for at, item in enumerate(response["output"]):
            if item["type"] == "function_call":
                begun = item | {"arguments": "", "status": "in_progress"}
                place = {"item_id": item["id"], "output_index": at}
                yield self._event("response.output_item.added", output_index=at, item=begun)
                yield self._event("response.function_call_arguments.delta", **place, delta=item["arguments"])
                yield self._event("response.function_call_arguments.done", **place, arguments=item["arguments"])
                yield self._event("response.output_item.done", output_index=at, item=item)
        yield self._event(f"response.{response['status']}", response=response)

    def failure(self, error: ApiError) -> dict[str, Any]:
        """Return the event of an answer that could not be ended."""
        failed = self._response("failed", None) | {"error": {"code": error.code or error.kind, "message": str(error)}}
        return self._event("response.failed", response=failed)

    def _event(self, kind: str, **fields: Any) -> dict[str, Any]:
        self._number += 1
        return {"type": kind, "sequence_number": self._number - 1} | fields

    def _place(self) -> dict[str, Any]:
        return {"item_id": self._message_id, "output_index": 0, "content_index": 0}

    @property
    def _message_id(self) -> str:
        return f"msg_{self.response_id.removeprefix('resp_')}"

    def _message(self, text: str, status: str) -> dict[str, Any]:
        content = [_part(text)] if status == "completed" else []
        return {"type": "message", "id": self._message_id, "status": status, "role": "assistant", "content": content}

    def _response(self, status: str, answer: ChatAnswer | None) -> dict[str, Any]:
        request = self.request
        return {
            "id": self.response_id,
            "object": "response",
            "created_at": self.created,
            "status": status,
            "model": request.model,
            "error": None,
            "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
            "instructions": request.instructions,
            "max_output_tokens": request.max_output_tokens,
            "metadata": request.metadata or {},
            "output": [] if answer is None else self._output(answer),
            "parallel_tool_calls": True,
            "previous_response_id": request.previous_response_id,
            "store": self.is_stored,
            "temperature": request.temperature,
            "tool_choice": request.tool_choice or "auto",
            "tools": [tool.model_dump() for tool in request.tools or ()],
            "top_p": request.top_p,
            "usage": None if answer is None else _usage(answer),
        } | ({} if answer is None else {"locas": about_memory(answer)})

    def _output(self, answer: ChatAnswer) -> list[dict[str, Any]]:
        calls = [(call.name, call.arguments) for call in answer.calls if call.name is not None]
        return [self._message(answered_text(answer), "completed"), *self._calls(calls)]

    def _calls(self, calls: Sequence[tuple[str, str]]) -> Iterator[dict[str, Any]]:
        for at, (name, arguments) in enumerate(calls):
            named = f"{self.response_id.removeprefix('resp_')[:24]}{at:02}"
            yield {
                "type": "function_call",
                "id": f"fc_{named}",
                "call_id": f"call_{named}",
                "name": name,
                "arguments": arguments,
                "status": "completed",
            }

    def kept(self, message: Message) -> dict[str, Any]:
        """Return the answer as it was journalled, calls in the Hugging Face form."""
        functions = [call["function"] for call in message.get("tool_calls", ())]
        calls = self._calls([(one["name"], json.dumps(one["arguments"], ensure_ascii=False)) for one in functions])
        return self._response("completed", None) | {"output": [self._message(message["content"], "completed"), *calls]}


def stored_response(turn: Turn, message: Message, response_id: str, *, model: str) -> dict[str, Any]:
    """Return a response of before: what the journal keeps of it.

    Options, usage and what it went on from are not kept.

    Args:
        turn: holds it.
        message: the message that the turn was.
        response_id: its id.
        model: what clients call the backbone.
    """
    created = int(turn.at.timestamp())
    return ResponseForm(ResponseRequest(model=model, input=""), response_id, True, created).kept(message)


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _usage(answer: ChatAnswer) -> Mapping[str, Any]:
    return {
        "input_tokens": answer.prompt_tokens,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": answer.answer_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": answer.prompt_tokens + answer.answer_tokens,
    }

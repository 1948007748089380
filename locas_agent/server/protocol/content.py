"""Messages and tools as clients write them, as the core takes them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from locas_agent import ChatAnswer
from locas_agent.server.protocol.errors import ApiError, unsupported
from locas_agent.serving.tool_calls import unread

Message = dict[str, Any]
"""A chat message of the Hugging Face form: `role`, `content`, and where they are given `name` and `tool_calls`."""

MAX_MESSAGES = 2000
"""Messages of one request."""
MAX_TOOLS = 128


class Form(BaseModel):
    """A part of a request. Fields that are not known here are passed over, as clients send ever new ones."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)


class TextPart(Form):
    """A piece of a message."""

    type: str
    text: str = ""
    refusal: str = ""


Content = str | Annotated[list[TextPart], Field(max_length=MAX_MESSAGES)] | None

_TEXTS = {"text", "input_text", "output_text"}


def text_of(content: Content, param: str) -> str:
    """Return the text of a content.

    Raises:
        ApiError: it holds something that a backbone cannot read.
    """
    if content is None or isinstance(content, str):
        return content or ""
    for part in content:
        if part.type not in _TEXTS and part.type != "refusal":
            raise unsupported(param, "a backbone reads text only, describe images, sound and files in words")
    return "\n".join(part.refusal if part.type == "refusal" else part.text for part in content)


class Function(Form):
    """A function that an answer may call, or a call of one."""

    name: str = Field(min_length=1, max_length=128)
    description: str | None = None
    parameters: dict[str, Any] | None = None
    arguments: str = "{}"


def tool_schema(function: Function) -> dict[str, Any]:
    """Return the JSON schema of a function as a chat template takes it."""
    return {
        "type": "function",
        "function": {
            "name": function.name,
            "description": function.description or "",
            "parameters": function.parameters or {"type": "object", "properties": {}},
        },
    }


def call_of(function: Function, param: str) -> Message:
    """Return a call of an earlier answer as a chat template takes it.

    Raises:
        ApiError: its arguments are no JSON object.
    """
    try:
        arguments = json.loads(function.arguments or "{}")
    except (ValueError, RecursionError):
        arguments = None
    if not isinstance(arguments, dict):
        raise ApiError(400, f"{param}: expected the arguments of a call as the text of a JSON object", param=param)
    return {"type": "function", "function": {"name": function.name, "arguments": arguments}}


def merged(messages: Iterable[Message]) -> list[Message]:
    """Return messages as a template takes them, neighbours of one role as one: many templates refuse two in a row."""
    chat: list[Message] = []
    for message in messages:
        name = message.get("name") if message["role"] == "user" else None
        content = f"{name}: {message['content']}" if name else message["content"]
        entry = {key: value for key, value in message.items() if key != "name"} | {"content": content}
        if message["role"] == "tool" and message.get("name"):
            entry["name"] = message["name"]
        last = chat[-1] if chat else None
        if (
            last is not None
            and last["role"] == entry["role"] != "tool"
            and "tool_calls" not in last
            and "tool_calls" not in entry
        ):
            last["content"] += f"\n\n{content}"
        else:
            chat.append(entry)
    return chat


@dataclass(frozen=True, slots=True)
class Options:
    """How an answer is drawn; see `UserMemory.generate`."""

    stop: tuple[str, ...] = field(default=(), repr=False)
    tools: tuple[Mapping[str, Any], ...] = field(default=(), repr=False)
    tool_choice: str | Mapping[str, Any] | None = None
    max_new_tokens: int | None = None
    temperature: float = 0.0
    seed: int = 0


def check_one_answer(n: int | None, **asked: object) -> None:
    """Refuse options that would change the answer and that the engine does not have.

    Raises:
        ApiError: more than one answer is asked for, or one of the options has not its neutral value.
    """
    if n not in (None, 1):
        raise unsupported("n", "expected 1, send several requests for several answers")
    neutral: dict[str, Sequence[object]] = {
        "top_p": (None, 1, 1.0),
        "frequency_penalty": (None, 0, 0.0),
        "presence_penalty": (None, 0, 0.0),
        "logprobs": (None, False),
        "top_logprobs": (None, 0),
        "background": (None, False),
    }
    for name, value in asked.items():
        if value not in neutral[name]:
            raise unsupported(name, "leave it out")


def answered_text(answer: ChatAnswer) -> str:
    """Return what an answer says, calls that could not be read as the text they are."""
    return answer.text + unread(answer.calls)


def finish_reason(answer: ChatAnswer) -> Literal["stop", "length", "tool_calls"]:
    """Return why an answer ended; one whose calls could not be read ended by itself."""
    if answer.finish_reason == "tool_calls" and not any(call.name for call in answer.calls):
        return "stop"
    return answer.finish_reason


def about_memory(answer: ChatAnswer) -> dict[str, Any]:
    """Return what every answer says beside OpenAI's fields: which memory it was given with."""
    return {
        "revision": answer.revision,
        "used_memory": answer.used_memory,
        "pending_turns": answer.pending_turns,
    }

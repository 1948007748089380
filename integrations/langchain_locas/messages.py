"""LangChain messages as a chat template takes them, as turns, and back. Knows no model, no store and no user.

Only text is kept: a backbone reads nothing else. What tools returned is not said by anybody, and becomes no turn.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, ChatMessage, HumanMessage, SystemMessage, ToolMessage

from locas_agent.errors import ConfigurationError
from locas_storage import Turn

_ROLES: tuple[tuple[type[BaseMessage], str], ...] = (
    (SystemMessage, "system"),
    (HumanMessage, "user"),
    (AIMessage, "assistant"),
    (ToolMessage, "tool"),
)
_MESSAGES: dict[str, type[BaseMessage]] = {"system": SystemMessage, "user": HumanMessage, "assistant": AIMessage}


def role_of(message: BaseMessage) -> str:
    """Return the role of a message in a chat template.

    Raises:
        ConfigurationError: there is none for it.
    """
    role = message.role if isinstance(message, ChatMessage) else next((role for kind, role in _ROLES if isinstance(message, kind)), None)
    if role not in ("system", "user", "assistant", "tool"):
        raise ConfigurationError(f"a message of type {message.type!r} has no place in a chat: expected system, human, ai or tool messages")
    return role


def text_of(message: BaseMessage) -> str:
    """Return the text of a message. What a model wrote beside text (calls, thoughts) is left out, what a person sent is not.

    Raises:
        ConfigurationError: a person's or a tool's message holds something else than text.
    """
    if isinstance(message.content, str):
        return message.content
    parts: list[str] = []
    for block in message.content:
        kind = "text" if isinstance(block, str) else str(block.get("type"))
        if kind == "text":
            parts.append(block if isinstance(block, str) else str(block.get("text", "")))
        elif not isinstance(message, AIMessage):
            raise ConfigurationError(f"a {message.type} message holds a block of type {kind!r}: a backbone reads text only, describe it in words")
    return "\n".join(parts)


def is_said(message: BaseMessage) -> bool:
    """Tell whether somebody said this: a person or the assistant, in words. A middleware's summary is no turn of the user."""
    is_summary = "lc_source" in message.additional_kwargs
    return isinstance(message, HumanMessage | AIMessage) and not is_summary and bool(text_of(message).strip())


def to_chat(messages: Iterable[BaseMessage]) -> list[dict[str, Any]]:
    """Return messages as a chat template takes them; neighbours of one role are merged, since many templates refuse two in a row."""
    chat: list[dict[str, Any]] = []
    for message in messages:
        entry = _entry(message)
        if chat and _merges(chat[-1], entry):
            chat[-1]["content"] += f"\n\n{entry['content']}"
        else:
            chat.append(entry)
    return chat


def from_turn(turn: Turn) -> BaseMessage:
    """Return a turn as a message; its id is the turn's key."""
    return _MESSAGES[turn.role](content=turn.content, name=turn.name, id=turn.key)


def from_turns(turns: Sequence[Turn]) -> list[BaseMessage]:
    """Return turns as messages, those of tools left out: they belong to calls that no turn holds."""
    return [from_turn(turn) for turn in turns if turn.role in _MESSAGES]


def turn_key(session: str | None, message_id: str) -> str:
    """Return the idempotency key of a message: ids are unique within a thread at best, and may be longer than a key."""
    scope = (session or "").encode()
    return f"langchain-{hashlib.sha256(len(scope).to_bytes(4, 'big') + scope + message_id.encode()).hexdigest()[:40]}"


def _entry(message: BaseMessage) -> dict[str, Any]:
    role, text = role_of(message), text_of(message)
    entry: dict[str, Any] = {"role": role, "content": f"{message.name}: {text}" if message.name and role == "user" else text}
    if isinstance(message, AIMessage) and message.tool_calls:
        calls = [{"name": call["name"], "arguments": call["args"]} for call in message.tool_calls]
        entry["tool_calls"] = [{"type": "function", "function": call} for call in calls]
    if isinstance(message, ToolMessage) and message.name:
        entry["name"] = message.name
    return entry


def _merges(earlier: dict[str, Any], later: dict[str, Any]) -> bool:
    return earlier["role"] == later["role"] != "tool" and "tool_calls" not in earlier and "tool_calls" not in later

"""LangChain messages as a chat template takes them, as turns, and back.

Only text is kept: a backbone reads nothing else. What tools returned is not said by anybody, and becomes no turn.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)

from locas_agent.errors import ConfigurationError
from locas_agent.serving.tool_calls import held
from locas_storage import Turn, TurnDraft
from locas_storage.records.bounds import check_text

_ROLES: tuple[tuple[type[BaseMessage], str], ...] = (
    (SystemMessage, "system"),
    (HumanMessage, "user"),
    (AIMessage, "assistant"),
    (ToolMessage, "tool"),
    (FunctionMessage, "tool"),
)
_NAMED = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "ai": "assistant",
    "tool": "tool",
    "function": "tool",
}
"""What the role of a `ChatMessage` means; the names are those that LangChain itself takes for messages."""
_MESSAGES: dict[str, type[BaseMessage]] = {"system": SystemMessage, "user": HumanMessage, "assistant": AIMessage}


def role_of(message: BaseMessage) -> str:
    """Return who speaks in a message: "system", "user", "assistant" or "tool".

    Everything that asks who speaks asks here, so that what is answered is what is journalled.

    Raises:
        ConfigurationError: it is none of them.
    """
    if isinstance(message, ChatMessage):
        role = _NAMED.get(message.role)
    else:
        role = next((role for kind, role in _ROLES if isinstance(message, kind)), None)
    if role is None:
        what = (
            "a ChatMessage whose role is another"
            if isinstance(message, ChatMessage)
            else f"a message of type {message.type!r}"
        )
        raise ConfigurationError(
            f"{what} has no place in a chat: expected system, human, ai or tool messages, or one of "
            f"{', '.join(_NAMED)} as role"
        )
    return role


def text_of(message: BaseMessage) -> str:
    """Return the text of a message as LangChain's own `text` joins it.

    What a model wrote beside text (calls, thoughts) is left out.

    Raises:
        ConfigurationError: somebody else's message holds something else than text.
    """
    if not isinstance(message.content, str) and role_of(message) != "assistant":
        kinds = (block.get("type") for block in message.content if not isinstance(block, str))
        if other := next((kind for kind in kinds if kind not in (None, "text")), None):
            raise ConfigurationError(
                f"a {message.type} message holds a block of type {other!r}: a backbone reads text only, describe it in "
                "words"
            )
    return str(message.text)


def name_of(message: BaseMessage) -> str | None:
    """Return the name of the person who speaks, None if none is given or no person speaks."""
    return message.name if role_of(message) == "user" else None


def is_said(message: BaseMessage) -> bool:
    """Tell whether somebody said this: a person or the assistant, in words.

    A middleware's summary is no turn of the user.

    Raises:
        ConfigurationError: there is no such role, or a person's message holds something else than text.
    """
    is_summary = "lc_source" in message.additional_kwargs
    return role_of(message) in ("user", "assistant") and not is_summary and bool(text_of(message).strip())


def draft_of(message: BaseMessage, *, session: str | None, idempotency_key: str | None) -> TurnDraft:
    """Return a message that was said as the turn it becomes.

    Raises:
        InvalidTurn: text, name or session that cannot be stored.
    """
    return TurnDraft(
        role_of(message), text_of(message), name=name_of(message), session=session, idempotency_key=idempotency_key
    )


def to_chat(messages: Iterable[BaseMessage]) -> list[dict[str, Any]]:
    """Return messages as a chat template takes them.

    Neighbours of one role are merged, since many templates refuse two in a row.

    Raises:
        ConfigurationError: a message has no role, or holds something else than text.
        InvalidTurn: a person's text is none that a turn can hold: no tokenizer takes half a character.
    """
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
    return _MESSAGES[turn.role](content=turn.content, name=turn.name, id=turn.idempotency_key)


def from_turns(turns: Sequence[Turn]) -> list[BaseMessage]:
    """Return turns as messages, those of tools left out: they belong to calls that no turn holds."""
    return [from_turn(turn) for turn in turns if turn.role in _MESSAGES]


def turn_key(session: str | None, message_id: str, *, again: int = 0) -> str:
    """Return the idempotency key of a message: ids are unique within a thread at best, and may be longer than a key.

    Args:
        session: the session or thread.
        message_id: any text.
        again: how often the message was said again after it had been forgotten; the forgotten turn keeps its key.
    """
    scope, named = (session or "").encode("utf-8", "surrogatepass"), message_id.encode("utf-8", "surrogatepass")
    key = f"langchain-{hashlib.sha256(len(scope).to_bytes(4, 'big') + scope + named).hexdigest()[:40]}"
    return f"{key}-{again}" if again else key


def _entry(message: BaseMessage) -> dict[str, Any]:
    role, text = role_of(message), text_of(message)
    content = f"{message.name}: {text}" if message.name and role == "user" else text
    content = held(role, content)  # the thread would be stuck at a tool's bytes
    check_text(f"a {message.type} message", content)
    entry: dict[str, Any] = {"role": role, "content": content}
    if isinstance(message, AIMessage) and message.tool_calls:
        calls = [{"name": call["name"], "arguments": call["args"]} for call in message.tool_calls]
        entry["tool_calls"] = [{"type": "function", "function": call} for call in calls]
    if role == "tool" and message.name:
        entry["name"] = message.name
    return entry


def _merges(earlier: dict[str, Any], later: dict[str, Any]) -> bool:
    return earlier["role"] == later["role"] != "tool" and "tool_calls" not in earlier and "tool_calls" not in later

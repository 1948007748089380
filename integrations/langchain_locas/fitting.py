"""The messages of a call that fit: of those that do not, turns of the journal stay behind, oldest first."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from langchain_core.messages import BaseMessage
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool

from langchain_locas.messages import role_of, text_of, to_chat
from locas_agent import AgentMemory, Turn, UserKey


def fitted(
    agent: AgentMemory,
    user: UserKey,
    messages: Sequence[BaseMessage],
    tools: Sequence[Mapping[str, Any]],
    *,
    answer_tokens: int,
) -> Sequence[BaseMessage]:
    """Return the messages of a call without those for which the prompt has no room.

    Those are not lost: the journal holds them, so they are learnt or wait to be, and `LocasChatMessageHistory` still
    lists them. What the journal does not hold word for word is never left out, however long the prompt becomes.

    Args:
        agent: whose backbone and journal.
        user: who asks.
        messages: all of the call.
        tools: JSON schemas of functions that the answer may call.
        answer_tokens: longest answer; the prompt leaves room for it, but never less than half the context to itself.
    """
    backbone = agent.backbone

    def count(shown: Sequence[BaseMessage]) -> int:
        return len(backbone.encode_chat(to_chat(shown), tools=tools or None))

    room = backbone.context_tokens - min(answer_tokens, backbone.context_tokens // 2)
    if count(messages) <= room:
        return messages
    turns = {
        turn.idempotency_key: turn
        for turn in agent.store.known(user, [message.id for message in messages if message.id is not None])
    }
    return _fitted(messages, turns, room_tokens=room, count=count)


def prompt_tokens(
    agent: AgentMemory,
    messages: Sequence[BaseMessage],
    tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
) -> int:
    """Return how many tokens a prompt of these messages and tools takes on an agent's backbone, template and all."""
    schemas = [convert_to_openai_tool(tool) for tool in tools]
    return len(agent.backbone.encode_chat(to_chat(messages), tools=schemas or None))


def _fitted(
    messages: Sequence[BaseMessage],
    turns: Mapping[str, Turn],
    *,
    room_tokens: int,
    count: Callable[[Sequence[BaseMessage]], int],
) -> list[BaseMessage]:
    """Leave out the oldest messages that are turns, until the rest fits or none of them is left.

    An answer goes with its question.

    The newest question stays, and what came after it.
    """
    questions = [at for at, message in enumerate(messages) if role_of(message) == "user"]
    waiting = deque(at for at in range(questions[-1] if questions else 0) if _is_kept(messages[at], turns))
    left_out: set[int] = set()
    shown = list(messages)
    while waiting and (excess := count(shown) - room_tokens) > 0:
        while waiting and excess > 0:
            excess -= max(1, turns[str(messages[waiting[0]].id)].token_count)
            left_out.add(waiting.popleft())
        while waiting and waiting[0] - 1 in left_out and role_of(messages[waiting[0]]) == "assistant":
            left_out.add(waiting.popleft())
        shown = [message for at, message in enumerate(messages) if at not in left_out]
    return shown


def _is_kept(message: BaseMessage, turns: Mapping[str, Turn]) -> bool:
    """Tell whether the journal holds a message as it is; its id is the turn's key if a history gave it."""
    turn = turns.get(str(message.id))
    return (
        turn is not None and not turn.is_forgotten and (turn.role, turn.content) == (role_of(message), text_of(message))
    )

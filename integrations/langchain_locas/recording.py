"""A thread's messages and the journal's turns: each message becomes one turn, and the prompt is cut to what is not learnt yet.

Knows no graph and no runtime: the middleware says who speaks, and in which thread.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage

from langchain_locas.messages import is_said, role_of, text_of, turn_key
from locas_agent import AgentMemory, Turn, UserMemory
from locas_agent.window import Layout, lay_out


@dataclass(frozen=True, slots=True)
class Thread:
    """One user's conversation in one thread of a graph; `thread_id` is None where no checkpointer keeps it."""

    user: UserMemory
    thread_id: str | None

    def key_of(self, message: BaseMessage) -> str:
        """Return the idempotency key of a message, whose id a graph's state always sets."""
        return turn_key(self.thread_id, str(message.id))


def record(agent: AgentMemory, thread: Thread, messages: Sequence[BaseMessage]) -> dict[str, Turn]:
    """Journal what was said and is not journalled yet, and return the turns by message id.

    A key makes each message one turn, so calling it again, or in another process, changes nothing. Messages before the first one that is
    among the newest turns were journalled with it or before it: they are not looked at.

    Without a thread, ids last for one run only, and a caller hands over the whole conversation each time: what came before the newest
    question is then taken to be journalled.
    """
    said = [message for message in (messages if thread.thread_id else _newest(messages)) if is_said(message)]
    known = {turn.key: turn for turn in thread.user.turns(newest=max(8, agent.backbone.context_tokens // 4))}
    first = next((at for at, message in enumerate(said) if thread.key_of(message) in known), 0)
    return {str(message.id): known.get(thread.key_of(message)) or _added(thread, message) for message in said[first:]}


def live(
    agent: AgentMemory,
    thread: Thread,
    messages: Sequence[BaseMessage],
    turns: dict[str, Turn],
    *,
    answer_tokens: int,
    count: Callable[[Sequence[BaseMessage]], int],
) -> list[BaseMessage]:
    """Return what a model has to see: the newest exchanges that fill the window, and older ones that are not learnt, while there is room.

    Exchanges, a question and all up to the next one, are kept or left out whole. What was forgotten is left out.

    Args:
        agent: whose window and context.
        thread: whose messages.
        messages: of the thread, oldest first.
        turns: what `record` returned for them.
        answer_tokens: longest answer; the prompt leaves room for it, but never less than half the context to itself.
        count: tokens of a prompt that holds given messages.
    """
    exchanges = _exchanges(_to_be_shown(messages, turns, is_thread=thread.thread_id is not None))
    state = agent.store.state(thread.user.key)
    learnt = state.consolidated_seq if state else 0
    context = agent.backbone.context_tokens
    room = context - min(answer_tokens, context // 2)
    units = _units(agent, exchanges, turns, is_thread=thread.thread_id is not None)
    laid = lay_out(units, consolidated_seq=learnt, window_tokens=agent.config.window.window_tokens, room_tokens=room)
    # System message, tools and the template's own tokens are in no unit: measure the whole prompt.
    while len(laid.prompt_turns) > 1 and (excess := count(_kept(exchanges, laid)) - room) > 0:
        laid = laid.shortened(excess)
    return _kept(exchanges, laid)


def _added(thread: Thread, message: BaseMessage) -> Turn:
    name = message.name if isinstance(message, HumanMessage) else None
    return thread.user.add(role_of(message), text_of(message), name=name, session=thread.thread_id, key=thread.key_of(message))


def _newest(messages: Sequence[BaseMessage]) -> Sequence[BaseMessage]:
    """Return the newest question, of one or several messages in a row, and what followed."""
    at = next((at for at in range(len(messages) - 1, -1, -1) if isinstance(messages[at], HumanMessage)), len(messages))
    while at > 0 and isinstance(messages[at - 1], HumanMessage):
        at -= 1
    return messages[at:]


def _to_be_shown(messages: Sequence[BaseMessage], turns: dict[str, Turn], *, is_thread: bool) -> list[BaseMessage]:
    """Leave out what was forgotten, and the results of calls that went with it.

    Of a thread that is also what was said before the first message that `record` looked at: pushed out long ago, or forgotten.
    """
    left: list[BaseMessage] = []
    lost_calls: set[str | None] = set()
    for message in messages:
        turn = turns.get(str(message.id))
        if (turn is not None and turn.is_forgotten) or (turn is None and is_thread and is_said(message)):
            lost_calls |= {call["id"] for call in message.tool_calls} if isinstance(message, AIMessage) else set()
        elif not (isinstance(message, ToolMessage) and message.tool_call_id in lost_calls):
            left.append(message)
    return left


def _exchanges(messages: Sequence[BaseMessage]) -> list[list[BaseMessage]]:
    """Cut messages before each question."""
    exchanges: list[list[BaseMessage]] = []
    for message in messages:
        if not exchanges or (isinstance(message, HumanMessage) and not isinstance(exchanges[-1][-1], HumanMessage)):
            exchanges.append([])
        exchanges[-1].append(message)
    return exchanges


def _units(agent: AgentMemory, exchanges: Sequence[Sequence[BaseMessage]], turns: dict[str, Turn], *, is_thread: bool) -> list[Turn]:
    """Return each exchange as the one turn `lay_out` takes it for: its tokens, and the number of its last turn.

    An exchange without a turn stands before all that are known: in a thread it was learnt or pushed out long ago, and its number is below
    every other; without a thread nothing is known of it, and it stays while there is room.
    """
    units: list[Turn] = []
    now = datetime.now(UTC)
    for at, exchange in enumerate(exchanges):
        known = [turn for message in exchange if (turn := turns.get(str(message.id))) is not None]
        seq = known[-1].seq if known else at - len(exchanges)
        unit = Turn(seq=seq, key="", role="user", content="", name=None, session=None, at=now, trust="user", token_count=0, created_at=now)
        units.append(replace(unit, token_count=sum(_tokens(agent, message, turns) for message in exchange)))
    if not is_thread:
        units = [replace(unit, seq=_NEVER_LEARNT + at) for at, unit in enumerate(units)]
    return units


_NEVER_LEARNT = 1 << 62
"""Above every number of a turn."""


def _tokens(agent: AgentMemory, message: BaseMessage, turns: dict[str, Turn]) -> int:
    turn = turns.get(str(message.id))
    if turn is not None:
        return turn.token_count
    calls = "".join(f"{call['name']}{call['args']}" for call in message.tool_calls) if isinstance(message, AIMessage) else ""
    return agent.backbone.count_tokens(text_of(message) + calls)


def _kept(exchanges: Sequence[Sequence[BaseMessage]], laid: Layout) -> list[BaseMessage]:
    kept = exchanges[len(exchanges) - len(laid.prompt_turns) :]
    return [message for exchange in kept for message in exchange]

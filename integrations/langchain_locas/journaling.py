"""A thread's messages and the journal's turns.

Each message becomes one turn, and the prompt is cut to what is not learnt yet.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from langchain_core.messages import AIMessage, BaseMessage, ToolMessage

from langchain_locas.errors import PromptTooLong
from langchain_locas.marks import NOBODY, Marks, is_persons
from langchain_locas.messages import is_said, name_of, role_of, text_of, to_chat, turn_key
from locas_agent import AgentMemory, Turn, UserMemory
from locas_agent.conversation.window import Layout, first_of_window, lay_out
from locas_agent.errors import ConfigurationError, InvalidTurn, LocasError, TurnNotFound, TurnTooLong

logger = logging.getLogger(__name__)

_REFUSALS = (InvalidTurn, TurnTooLong, ConfigurationError)
"""What a message is refused with for what it is, whenever it is tried."""


@dataclass(frozen=True, slots=True)
class Thread:
    """One user's conversation in one thread of a graph.

    Attributes:
        user: who speaks.
        thread_id: None where no checkpointer keeps it.
        marks: what the checkpoint keeps about its messages.
        is_shared: whether others speak in it too; then only what this user said is journalled, and no answer.
    """

    user: UserMemory
    thread_id: str | None
    marks: Marks = field(default_factory=Marks)
    is_shared: bool = False

    def key_of(self, message: BaseMessage) -> str:
        """Return the idempotency key of a message, whose id a graph's state always sets."""
        return turn_key(self.thread_id, str(message.id))

    def takes(self, message: BaseMessage) -> bool:
        """Tell whether a message is to be journalled for this user."""
        by = self.marks.by(message)
        if self.is_shared:
            return is_persons(message) and by == self.user.key.digest
        return by in (None, self.user.key.digest)


@dataclass(frozen=True, slots=True)
class Recorded:
    """What `record` found.

    Attributes:
        turns: of the user, by message id.
        hidden: ids of messages that no prompt shows: forgotten, refused in an earlier call, another's, or pushed out
            long ago.
        refused: ids of those that were refused in an earlier call.
        corrected: by message id, the text of turns that were corrected in the journal, and not by an edit of the
            message.
    """

    turns: dict[str, Turn]
    hidden: frozenset[str]
    refused: frozenset[str]
    corrected: dict[str, str]


def record(agent: AgentMemory, thread: Thread, messages: Sequence[BaseMessage]) -> Recorded:
    """Journal what was said and is not journalled yet.

    A key makes each message one turn, so calling it again, or in another process, changes nothing. Messages before the
    first one that is among the newest turns were journalled with it or before it: they are not looked at unless they
    are new to the thread or edited. An edited message replaces its turn.

    Without a thread, ids last for one run only, and a caller hands over the whole conversation each time: what came
    before the newest question is then taken to be journalled.

    Raises:
        PromptTooLong: a message of this call is too long for a turn.
        InvalidTurn, ConfigurationError: it holds what the journal cannot take or a backbone cannot read.
    """
    refused = {str(message.id) for message in messages if _is_passed_over(thread, message, lambda one: to_chat([one]))}
    readable = [message for message in messages if str(message.id) not in refused]
    said = [message for message in (readable if thread.thread_id else _newest(readable)) if is_said(message)]
    known = {
        turn.idempotency_key: turn for turn in thread.user.turns(newest=max(8, agent.backbone.context_tokens // 4))
    }
    first = next((at for at, message in enumerate(said) if thread.key_of(message) in known), 0)
    turns: dict[str, Turn] = {}

    def journal(message: BaseMessage) -> None:
        turns[str(message.id)] = _turn_of(thread, message, known)

    for at, message in enumerate(said):
        if thread.takes(message) and (at >= first or thread.marks.awaits(message)):
            if _is_passed_over(thread, message, journal):
                refused.add(str(message.id))
        elif (
            thread.marks.by(message) == NOBODY
            and (turn := known.get(thread.key_of(message)))
            and turn.content == text_of(message)
        ):
            turns[str(message.id)] = turn  # the journal says that it was this user's
    _forget_blanked(thread, readable)
    hidden = {name for name, turn in turns.items() if turn.is_forgotten} | refused
    if thread.thread_id:
        hidden |= {
            name
            for message in said
            if (name := str(message.id)) not in turns and (thread.takes(message) or not thread.is_shared)
        }
    corrected = {
        name: turn.content
        for message in said
        if (turn := turns.get(name := str(message.id))) and turn.content != text_of(message)
    }
    return Recorded(turns, frozenset(hidden), frozenset(refused), corrected)


def trim_to_window(
    agent: AgentMemory,
    thread: Thread,
    messages: Sequence[BaseMessage],
    recorded: Recorded,
    *,
    answer_tokens: int,
    count: Callable[[Sequence[BaseMessage]], int],
) -> list[BaseMessage]:
    """Return what a model has to see.

    The newest exchanges that fill the window, and older ones that are not learnt, while there is room.

    Exchanges, a question and all up to the next one, are kept or left out whole; questions that one call brought are
    one. What is hidden is left out.

    Args:
        agent: whose window and context.
        thread: whose messages.
        messages: of the thread, oldest first.
        recorded: what `record` returned for them.
        answer_tokens: longest answer; the prompt leaves room for it, but never less than half the context to itself.
        count: tokens of a prompt that holds given messages.
    """
    exchanges = _exchanges(_to_be_shown(messages, recorded), thread.marks.new)
    state = agent.store.state(thread.user.key)
    learnt = state.consolidated_seq if state else 0
    context = agent.backbone.context_tokens
    room = context - min(answer_tokens, context // 2)
    window = agent.config.window.window_tokens
    units = [_unit(agent, exchange, recorded.turns, number) for number, exchange in enumerate(exchanges, start=1)]
    start = first_of_window(units, min(window, room))
    # A corrected message is not learnt where those around it are: what is learnt is taken out first, and what is left
    # is all to be shown.
    kept = [
        at
        for at, exchange in enumerate(exchanges)
        if at >= start or not _is_learnt(thread, exchange, recorded.turns, learnt)
    ]
    exchanges = [exchanges[at] for at in kept]
    laid = lay_out([units[at] for at in kept], consolidated_seq=0, window_tokens=window, room_tokens=room)
    # System message, tools and the template's own tokens are in no unit: measure the whole prompt.
    while len(laid.prompt_turns) > 1 and (excess := count(_kept(exchanges, laid)) - room) > 0:
        laid = laid.shortened(excess)
    return _kept(exchanges, laid)


def _turn_of(thread: Thread, message: BaseMessage, known: dict[str, Turn]) -> Turn:
    """Return a message's turn: the one there is, a new one, or one in the place of what the message said before."""
    text = text_of(message)
    turn = known.get(thread.key_of(message)) or _added(thread, message)
    if turn.is_forgotten:
        if str(message.id) in thread.marks.new:
            raise TurnNotFound(
                "a message was edited that had been forgotten: send what it says now as a message of its own"
            )
        return turn
    if turn.content == text or not thread.marks.is_open(message):
        return turn
    if turn.role != role_of(message):
        raise ConfigurationError(
            f"a message of role {role_of(message)!r} came under the id of one of role {turn.role!r}: give it an id of "
            "its own"
        )
    return thread.user.correct(turn, text, wait=False)


def _added(thread: Thread, message: BaseMessage) -> Turn:
    role, text, name = role_of(message), text_of(message), name_of(message)
    return thread.user.add(role, text, name=name, session=thread.thread_id, idempotency_key=thread.key_of(message))


def _forget_blanked(thread: Thread, messages: Sequence[BaseMessage]) -> None:
    """Forget what was said in a message of which an edit has left nothing."""
    blanked = {
        thread.key_of(message)
        for message in messages
        if thread.marks.awaits(message) and thread.takes(message) and _is_blank(message)
    }
    if blanked and (turns := [turn for turn in thread.user.turns() if turn.idempotency_key in blanked]):
        thread.user.forget(turns, wait=False)


def _is_blank(message: BaseMessage) -> bool:
    return (
        role_of(message) in ("user", "assistant")
        and not text_of(message).strip()
        and not getattr(message, "tool_calls", None)
    )


def _is_passed_over(thread: Thread, message: BaseMessage, attempt: Callable[[BaseMessage], object]) -> bool:
    """Try something with a message; tell whether it is left out since it was refused before this call.

    Raises:
        LocasError: it is refused, and came with this call.
    """
    if thread.marks.is_refused(message):
        return True
    try:
        attempt(message)
    except (*_REFUSALS, TurnNotFound) as error:
        if thread.marks.is_of_this_call(message):
            raise _documented(error) from error
        logger.warning(
            "message of an earlier call passed over",
            extra={"action": "pass_over", "reason": type(error).__name__, "user": thread.user.key.short_hash},
        )
        return True
    return False


def _documented(error: LocasError) -> LocasError:
    return (
        PromptTooLong(str(error)) if isinstance(error, TurnTooLong) and not isinstance(error, PromptTooLong) else error
    )


def _newest(messages: Sequence[BaseMessage]) -> Sequence[BaseMessage]:
    """Return the newest question, of one or several messages in a row, and what followed."""
    at = next((at for at in range(len(messages) - 1, -1, -1) if is_persons(messages[at])), len(messages))
    while at > 0 and is_persons(messages[at - 1]):
        at -= 1
    return messages[at:]


def _to_be_shown(messages: Sequence[BaseMessage], recorded: Recorded) -> list[BaseMessage]:
    """Leave out what is hidden, and the results of calls that went with it.

    Show what was corrected as the journal has it.
    """
    left: list[BaseMessage] = []
    lost_calls: set[str | None] = set()
    for message in messages:
        name = str(message.id)
        if name in recorded.hidden:
            lost_calls |= {call["id"] for call in message.tool_calls} if isinstance(message, AIMessage) else set()
        elif not (isinstance(message, ToolMessage) and message.tool_call_id in lost_calls):
            left.append(
                message.model_copy(update={"content": recorded.corrected[name]})
                if name in recorded.corrected
                else message
            )
    return left


def _exchanges(messages: Sequence[BaseMessage], new: frozenset[str]) -> list[list[BaseMessage]]:
    """Cut messages before each question; those that one call brought in a row stay together."""
    exchanges: list[list[BaseMessage]] = []
    for message in messages:
        before = exchanges[-1][-1] if exchanges else None
        is_one_call = before is not None and is_persons(before) and {str(before.id), str(message.id)} <= new
        if before is None or (is_persons(message) and not is_one_call):
            exchanges.append([])
        exchanges[-1].append(message)
    return exchanges


def _unit(agent: AgentMemory, exchange: Sequence[BaseMessage], turns: dict[str, Turn], number: int) -> Turn:
    """Return an exchange as the one turn `lay_out` takes it for: its number among the exchanges, and its tokens."""
    now = datetime.now(UTC)
    tokens = sum(_tokens(agent, message, turns) for message in exchange)
    return Turn(
        seq=number,
        idempotency_key="",
        role="user",
        content="",
        name=None,
        session=None,
        at=now,
        trust="user",
        token_count=tokens,
        created_at=now,
    )


def _is_learnt(thread: Thread, exchange: Sequence[BaseMessage], turns: dict[str, Turn], learnt: int) -> bool:
    """Tell whether all that was said in an exchange is learnt, up to turn `learnt`.

    One without a turn was pushed out long ago if the thread is one user's. In a room, and without a thread, nothing is
    known of it, and it stays while there is room.
    """
    known = [turns.get(str(message.id)) for message in exchange if is_said(message)]
    seqs = [turn.seq for turn in known if turn is not None]
    if thread.thread_id and not thread.is_shared:
        return all(seq <= learnt for seq in seqs)
    return bool(seqs) and len(seqs) == len(known) and all(seq <= learnt for seq in seqs)


def _tokens(agent: AgentMemory, message: BaseMessage, turns: dict[str, Turn]) -> int:
    turn = turns.get(str(message.id))
    if turn is not None:
        return turn.token_count
    calls = (
        "".join(f"{call['name']}{call['args']}" for call in message.tool_calls)
        if isinstance(message, AIMessage)
        else ""
    )
    return agent.backbone.count_tokens(text_of(message) + calls)


def _kept(exchanges: Sequence[Sequence[BaseMessage]], laid: Layout) -> list[BaseMessage]:
    kept = exchanges[len(exchanges) - len(laid.prompt_turns) :]
    return [message for exchange in kept for message in exchange]

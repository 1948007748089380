"""Responses that go on from earlier ones: the conversation lies in the journal, and the client sends what is new.

The answer's turn has the response's id as its key. A conversation is a session; one that goes on from a response which
is not its newest is a session of its own, whose name says from which turn it goes on. A call that is tried again finds
what it journalled before in the same session, and does not go on from that.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Lock

from locas_agent import ChatAnswer, MemoryHost, Turn, UserKey
from locas_agent.errors import TurnNotFound
from locas_agent.server.journal import JournalledChat, append_answer
from locas_agent.server.protocol.content import Message
from locas_agent.server.protocol.errors import ApiError
from locas_agent.serving.tool_calls import read, unread, write
from locas_storage import TurnDraft

CALLS, RETURNED = "calls", "returned"
"""Trust of turns that hold calls of tools, and of what tools returned: nothing is learnt from them."""
_NEWEST_TURNS = 1000
"""Turns of a journal that are looked through for those of one conversation; no prompt holds as many."""
_MOST_FORKS = 64
_RESPONSE = re.compile(r"resp_[0-9a-f]{32}")
"""Ids of responses; other turns have other keys."""
_FORK = re.compile(r"resp-[0-9a-f]{16}@(\d{1,18})")


class ResponseJournal:
    """Journals conversations that the server holds. May be called from several threads.

    Args:
        memory: whose journals.
    """

    def __init__(self, memory: MemoryHost) -> None:
        self._memory = memory
        self._store = memory.store
        self._under_way: set[str] = set()
        self._lock = Lock()

    @contextmanager
    def one_try_of(self, response_id: str) -> Iterator[None]:
        """Have a response written once at a time in this process.

        Raises:
            ApiError: it is being written for an earlier try of the same call.
        """
        with self._lock:
            if response_id in self._under_way:
                raise ApiError(
                    409,
                    "a call with this Idempotency-Key is being answered: try again in a moment, and read its answer",
                    code="idempotency_key_in_use",
                    headers={"Retry-After": "1"},
                )
            self._under_way.add(response_id)
        try:
            yield
        finally:
            with self._lock:
                self._under_way.remove(response_id)

    def answered_before(
        self, user: UserKey, response_id: str, given: Sequence[Message]
    ) -> tuple[Turn, ChatAnswer] | None:
        """Return the journalled answer to a call that is tried again, and its turn; None if it was not answered.

        Args:
            user: whose.
            response_id: id of the answer.
            given: what the request brings.

        Raises:
            TurnNotFound: what was asked, or the answer, was forgotten.
            ApiError: something else was asked under this id.
        """
        asked = {f"{response_id}.{at}": given[at] for at in _said(given)}
        known = {turn.idempotency_key: turn for turn in self._store.known(user, [response_id, *asked])}
        if any(turn.is_forgotten for turn in known.values()):
            raise TurnNotFound(
                "what was asked with this Idempotency-Key before, or its answer, was forgotten: ask with a new key"
            )
        answer = known.pop(response_id, None)
        if known and any(
            key not in known or (known[key].role, known[key].content) != (message["role"], message["content"])
            for key, message in asked.items()
        ):
            raise ApiError(
                422,
                "something else was asked with this Idempotency-Key before: send each request with a key of its own",
                code="idempotency_key_reused",
            )
        return None if answer is None else (answer, self._answer(user, answer))

    def _answer(self, user: UserKey, turn: Turn) -> ChatAnswer:
        """Return a turn as the answer that it was; nothing is written anew, so it has taken no tokens."""
        calls, text = read(turn.content) if turn.trust == CALLS else ([], turn.content)
        return ChatAnswer(
            text=text,
            calls=tuple(calls),
            finish_reason="tool_calls" if calls else "stop",
            prompt_tokens=0,
            answer_tokens=0,
            revision=None,
            used_memory=False,
            pending_turns=len(self._memory.runtime_of(user).chat.pending_turns(user)),
        )

    def history(
        self, user: UserKey, response_id: str, *, previous: str | None, conversation: str | None
    ) -> tuple[str, list[Turn]]:
        """Return the session in which a conversation goes on, and its turns so far.

        Args:
            user: whose.
            response_id: id of the answer that comes; turns of a former try of the same call are left out.
            previous: id of the response it goes on from.
            conversation: its name; a new conversation begins without either.

        Raises:
            ApiError: the user has no such response.
        """
        if conversation is not None:
            turns = self._store.turns(user, newest=_NEWEST_TURNS)
            return conversation, [
                turn for turn in turns if turn.session == conversation and not _is_of(turn, response_id)
            ]
        fresh = f"resp-{response_id.removeprefix('resp_')[:16]}"
        if previous is None:
            return fresh, []
        found = self._store.known(user, [previous])
        if not found or found[0].is_forgotten:
            raise ApiError(
                400,
                "previous_response_id: this user has no such response; it may have been forgotten, or not stored",
                code="previous_response_not_found",
                param="previous_response_id",
            )
        last = found[0]
        later = self._store.turns(user, after=last.seq, upto=last.seq + _NEWEST_TURNS)
        is_newest = last.session is not None and not any(
            turn.session == last.session and not _is_of(turn, response_id) for turn in later
        )
        session = str(last.session) if is_newest else f"{fresh}@{last.seq}"
        return session, self._upto(user, last)

    def record(
        self,
        user: UserKey,
        response_id: str,
        given: Sequence[Message],
        *,
        session: str,
        history: Sequence[Turn],
        learn: bool,
    ) -> JournalledChat:
        """Journal what a request brings, and return the whole conversation.

        Args:
            user: whose.
            response_id: id of the answer that comes.
            given: what the request brings; system messages and calls of tools are not journalled.
            session: as `history` returned it.
            history: as it returned it.
            learn: whether what is new, and its answer, may be learnt.

        Raises:
            TurnTooLong, InvalidTurn: something new cannot be journalled.
        """
        said = _said(given)
        drafts = [_draft(given[at], session, f"{response_id}.{at}", learn) for at in said]
        turns = dict(zip(said, self._memory.append(user, drafts), strict=True))
        system = [at for at in range(len(given)) if given[at]["role"] == "system"]
        rest = [at for at in range(len(given)) if given[at]["role"] != "system"]
        of: list[Turn | None] = [*([None] * len(system)), *history, *(turns.get(at) for at in rest)]
        return JournalledChat(user, session, response_id, self.shown(given, history), of, learn)

    @staticmethod
    def shown(given: Sequence[Message], history: Sequence[Turn]) -> list[Message]:
        """Return a conversation with what is new in it, system messages first."""
        system = [message for message in given if message["role"] == "system"]
        rest = [message for message in given if message["role"] != "system"]
        return [*system, *(_message(turn) for turn in history), *rest]

    def answered(self, recorded: JournalledChat, answer: ChatAnswer) -> None:
        """Journal an answer under the id of its response, calls of tools with it.

        Raises:
            StorageError: it cannot be stored.
        """
        draft = TurnDraft(
            "assistant",
            answer.text + write(answer.calls),
            session=recorded.session,
            trust=CALLS if any(call.name for call in answer.calls) else "user",
            idempotency_key=recorded.chain,
            learn=recorded.learn,
        )
        append_answer(self._memory, recorded.user, draft)

    def stored(self, user: UserKey, response_id: str) -> tuple[Turn, Message]:
        """Return the turn that holds a response, and the message that it was.

        Raises:
            ApiError: the user has no such response; it may have been forgotten, or not stored.
        """
        found = self._store.known(user, [response_id]) if _RESPONSE.fullmatch(response_id) else []
        if not found or found[0].is_forgotten:
            raise ApiError(
                404,
                "this user has no such response; it may have been forgotten, or not stored",
                code="response_not_found",
                param="response_id",
            )
        return found[0], _message(found[0])

    def _upto(self, user: UserKey, last: Turn) -> list[Turn]:
        """Return a conversation up to one of its turns, through the sessions from which it goes on."""
        turns: list[Turn] = []
        for _ in range(_MOST_FORKS):
            before = self._store.turns(user, upto=last.seq, newest=_NEWEST_TURNS)
            turns = [*(turn for turn in before if turn.session == last.session), *turns]
            fork = _FORK.fullmatch(last.session or "")
            found = self._store.turns(user, after=int(fork[1]) - 1, upto=int(fork[1])) if fork else []
            if not found:
                break
            last = found[0]
        return turns


def _said(given: Sequence[Message]) -> list[int]:
    """Return which messages of a request become turns."""
    return [at for at, message in enumerate(given) if message["role"] != "system" and "tool_calls" not in message]


def _is_of(turn: Turn, response_id: str) -> bool:
    """Tell whether a turn is of a response: what was asked, or the answer."""
    return (turn.idempotency_key or "").partition(".")[0] == response_id


def _draft(message: Message, session: str, key: str, learn: bool) -> TurnDraft:
    is_tool = message["role"] == "tool"
    return TurnDraft(
        message["role"],
        message["content"],
        name=message.get("name") if message["role"] == "user" else None,
        session=session,
        trust=RETURNED if is_tool else "user",
        idempotency_key=key,
        learn=learn,
    )


def _message(turn: Turn) -> Message:
    """Return a turn as the message that it was."""
    if turn.trust != CALLS:
        return {"role": turn.role, "content": turn.content} | ({"name": turn.name} if turn.name else {})
    calls, text = read(turn.content)
    made = [
        {"type": "function", "function": {"name": call.name, "arguments": json.loads(call.arguments)}}
        for call in calls
        if call.name is not None
    ]
    return {"role": turn.role, "content": text + unread(calls)} | ({"tool_calls": made} if made else {})

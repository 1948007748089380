"""`LocasChatMessageHistory`: the turns of one session as a LangChain chat history, for `RunnableWithMessageHistory`. Knows no model.

LangChain marks its base class for removal in version 2; new programs take `LocasMemoryMiddleware`.
"""

from __future__ import annotations

from collections.abc import Sequence

from langchain_core.chat_history import BaseChatMessageHistory
from langchain_core.messages import BaseMessage, HumanMessage

from langchain_locas.messages import from_turns, is_said, role_of, text_of, turn_key
from locas_agent import AgentMemory, Turn


class LocasChatMessageHistory(BaseChatMessageHistory):
    """The transcript of one user's session, in the journal.

    What a person or the assistant said is kept, in words; calls of tools and their results are not. A message that has an id is one turn,
    however often it is added.

    Args:
        user_id: whose.
        session_id: which session.
        memory: where the journal is.
        tenant: the application or customer the user belongs to.
    """

    def __init__(self, user_id: str, session_id: str, *, memory: AgentMemory, tenant: str = "default") -> None:
        self._user = memory.for_user(user_id, tenant=tenant)
        self._session = session_id

    @property
    def messages(self) -> list[BaseMessage]:  # type: ignore[override]  # an attribute there, which it says may be a property
        """The messages, oldest first; read anew each time."""
        return from_turns(self._turns())

    def add_messages(self, messages: Sequence[BaseMessage]) -> None:
        """Journal messages, oldest first."""
        read_before = {turn.key for turn in self._turns()}
        for message in messages:
            if not is_said(message) or message.id in read_before:
                continue
            key = None if message.id is None else turn_key(self._session, message.id)
            name = message.name if isinstance(message, HumanMessage) else None
            self._user.add(role_of(message), text_of(message), name=name, session=self._session, key=key)

    def clear(self) -> None:
        """Forget the session: its text, and what was learnt from it. To begin another conversation, take another session_id instead."""
        if turns := self._turns():
            self._user.forget(turns)

    def _turns(self) -> list[Turn]:
        return [turn for turn in self._user.turns() if turn.session == self._session]

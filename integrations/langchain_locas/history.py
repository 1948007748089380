"""`LocasChatMessageHistory`: the turns of one session as a LangChain chat history, for `RunnableWithMessageHistory`.

LangChain marks its base class for removal in version 2; new programs take `LocasMemoryMiddleware`.
"""

from __future__ import annotations

from collections.abc import Sequence

from langchain_core.chat_history import BaseChatMessageHistory
from langchain_core.messages import BaseMessage

from langchain_locas.keeping import keep
from langchain_locas.messages import from_turns
from locas_agent import MemoryHost, Turn


class LocasChatMessageHistory(BaseChatMessageHistory):
    """The transcript of one user's session, in the journal.

    What a person or the assistant said is kept, in words; calls of tools and their results are not. A message that has
    an id is one turn, however often it is added; after it was forgotten, adding it again says it again.

    `messages` holds all of the session. When that is more than the backbone's context, `ChatLocas` leaves the oldest
    out of the prompt.

    Args:
        user_id: whose.
        session_id: which session.
        memory: where the journal is.
        tenant: the application or customer the user belongs to.
    """

    def __init__(self, user_id: str, session_id: str, *, memory: MemoryHost, tenant: str = "default") -> None:
        self._memory = memory
        self._user = memory.for_user(user_id, tenant=tenant)
        self._session = session_id

    @property
    def messages(self) -> list[BaseMessage]:  # type: ignore[override]  # there it may be one
        """The messages, oldest first; read again each time."""
        return from_turns(self._turns())

    def add_messages(self, messages: Sequence[BaseMessage]) -> None:
        """Journal messages, oldest first: all of them or, where one is refused, none.

        Raises:
            ConfigurationError: a message has no role that is known, or holds something else than text.
            InvalidTurn: text that cannot be stored.
            TurnTooLong: a message does not fit into the backbone's context beside an answer.
        """
        keep(self._memory, self._user.key, self._session, messages)

    def clear(self) -> None:
        """Forget the session: its text, and what was learnt from it.

        To begin another conversation, take another session_id instead.
        """
        if turns := self._turns():
            self._user.forget(turns)

    def _turns(self) -> list[Turn]:
        return [turn for turn in self._user.turns() if turn.session == self._session]

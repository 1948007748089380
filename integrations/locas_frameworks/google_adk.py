"""`LocasMemoryService`: the memory service of Google's Agent Development Kit over the journals of its users."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime

from google.adk.events import Event
from google.adk.memory.base_memory_service import BaseMemoryService, SearchMemoryResponse
from google.adk.memory.memory_entry import MemoryEntry
from google.adk.sessions import Session
from google.genai import types

from locas_agent import FoundTurn, MemoryHost, UserMemory
from locas_agent.errors import ConfigurationError
from locas_frameworks.said import SaidMessage, journal

SOURCE = "adk"


class LocasMemoryService(BaseMemoryService):  # type: ignore[misc]  # a class of a package that CI does not have
    """For `Runner(memory_service=...)`: an application is a tenant, a user of it a user.

    What was said in a session is journalled, each event once however often it is handed over, and learnt like other
    turns; calls of tools and their results are left out.

    Args:
        memory: where the journals are.
        found_turns: memories that a search returns, at most.
        learn: whether what is said may be learnt.
    """

    def __init__(self, memory: MemoryHost, *, found_turns: int = 10, learn: bool = True) -> None:
        self._memory = memory
        self._found_turns = found_turns
        self._learn = learn

    async def add_session_to_memory(self, session: Session) -> None:
        """Journal what was said in a session and is not journalled yet."""
        await self.add_events_to_memory(
            app_name=session.app_name, user_id=session.user_id, events=session.events, session_id=session.id
        )

    async def add_events_to_memory(
        self,
        *,
        app_name: str,
        user_id: str,
        events: Sequence[Event],
        session_id: str | None = None,
        custom_metadata: Mapping[str, object] | None = None,
    ) -> None:
        """Journal what was said in events and is not journalled yet; `custom_metadata` is not kept."""
        await journal(self._user(app_name, user_id), _said(events, session_id), source=SOURCE, learn=self._learn)

    async def add_memory(
        self,
        *,
        app_name: str,
        user_id: str,
        memories: Sequence[MemoryEntry],
        custom_metadata: Mapping[str, object] | None = None,
    ) -> None:
        """Journal memories as what the user said; one that has an id is one turn."""
        said = [
            SaidMessage("user", text, message_id=memory.id, at=_time(memory.timestamp))
            for memory in memories
            if (text := _text(memory.content))
        ]
        await journal(self._user(app_name, user_id), said, source=SOURCE, learn=self._learn)

    async def search_memory(self, *, app_name: str, user_id: str, query: str) -> SearchMemoryResponse:
        """Return what this user and the agents said that shares a word with the query, best first."""
        found = await self._user(app_name, user_id).asearch(query, limit=self._found_turns)
        return SearchMemoryResponse(memories=[_entry(turn) for turn in found])

    async def delete_memory(self, *, app_name: str, user_id: str, memory_id: str | None = None) -> None:
        """Forget one memory, and all that was learnt from it, for good.

        Raises:
            ConfigurationError: the id is none that a search returned.
            TurnNotFound: the user has no such memory; nothing was forgotten.
            UnknownUser: the user has none at all.
        """
        if memory_id is None or not memory_id.isdecimal():
            raise ConfigurationError("memory_id: expected the id of an entry that search_memory returned")
        await self._user(app_name, user_id).aforget(int(memory_id))

    def _user(self, app_name: str, user_id: str) -> UserMemory:
        return self._memory.for_user(user_id, tenant=app_name)


def _said(events: Sequence[Event], session_id: str | None) -> Iterator[SaidMessage]:
    """Yield what was said: whole texts of the user and of agents, no pieces of a stream, no thoughts."""
    for event in events:
        text = "" if event.partial else _text(event.content)
        if text:
            yield SaidMessage(
                "user" if event.author == "user" else "assistant",
                text,
                session=session_id,
                message_id=event.id or None,
                at=datetime.fromtimestamp(event.timestamp, UTC),
            )


def _text(content: types.Content | None) -> str:
    parts = (content.parts or ()) if content is not None else ()
    return "\n".join(part.text.strip() for part in parts if part.text and not part.thought).strip()


def _entry(turn: FoundTurn) -> MemoryEntry:
    role = "user" if turn.role == "user" else "model"
    return MemoryEntry(
        content=types.Content(role=role, parts=[types.Part(text=turn.content)]),
        id=str(turn.seq),
        author=turn.name or turn.role,
        timestamp=turn.local_at.isoformat(),
    )


def _time(text: str | None) -> datetime | None:
    """Return a time that an entry carries; one without a zone, or in words, is none."""
    try:
        at = datetime.fromisoformat(text) if text else None
    except ValueError:
        return None
    return at if at is not None and at.tzinfo is not None else None

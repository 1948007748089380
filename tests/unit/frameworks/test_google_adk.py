"""`LocasMemoryService` against Google's Agent Development Kit.

CI does not install the kit: its range of websockets excludes the one that LangChain brings. There these are skipped.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from locas_agent import AgentMemory
from locas_agent.errors import ConfigurationError, InvalidTurn, TurnNotFound, UnknownUser

pytest.importorskip("google.adk.memory", reason="google-adk is not installed: its memory service is not tested")

from google.adk.events import Event
from google.adk.memory.base_memory_service import BaseMemoryService
from google.adk.memory.memory_entry import MemoryEntry
from google.adk.sessions import Session
from google.genai import types

from locas_frameworks.google_adk import LocasMemoryService

pytestmark = pytest.mark.filterwarnings("ignore")  # the kit's own warnings, of a version that CI does not pin
ASKED: dict[str, Any] = {"app_name": "app", "user_id": "ada"}


def event(text: str | None, *, author: str = "user", number: int, **more: Any) -> Event:
    parts = [types.Part(text=text)] if text is not None else []
    content = types.Content(role="user" if author == "user" else "model", parts=[*parts, *more.pop("parts", [])])
    return Event(id=f"e{number}", author=author, content=content, timestamp=1.7e9 + number, **more)


def session(user: str, *events: Event, app: str = "app") -> Session:
    return Session(id="s1", app_name=app, user_id=user, events=list(events))


async def found(service: LocasMemoryService, query: str, user: str = "ada", app: str = "app") -> list[str]:
    answer = await service.search_memory(app_name=app, user_id=user, query=query)
    return [memory.content.parts[0].text for memory in answer.memories]


TALK = [
    event("My dog is called Rex.", number=1),
    event("Let me thi", author="helper", number=2, partial=True),
    event(
        None,
        author="helper",
        number=3,
        parts=[types.Part(function_call=types.FunctionCall(name="lookup", args={"q": "dog"}))],
    ),
    event("dog thoughts", author="helper", number=4, parts=[]),
    event("Rex is a good dog.", author="helper", number=5),
]
TALK[3].content.parts[0].thought = True


async def test_what_was_said_is_found_once_however_often_the_session_is_added(agent: AgentMemory) -> None:
    service = LocasMemoryService(agent)
    assert isinstance(service, BaseMemoryService)
    await service.add_session_to_memory(session("ada", *TALK[:2]))
    await service.add_session_to_memory(session("ada", *TALK))
    await service.add_events_to_memory(app_name="app", user_id="ada", events=TALK, session_id="s1")
    turns = agent.for_user("ada", tenant="app").turns()
    assert [(turn.role, turn.content) for turn in turns] == [
        ("user", "My dog is called Rex."),
        ("assistant", "Rex is a good dog."),
    ]
    assert turns[0].at.timestamp() == 1.7e9 + 1
    answer = await service.search_memory(query="dog called", **ASKED)
    best = answer.memories[0]
    assert (best.content.parts[0].text, best.author, best.id) == ("My dog is called Rex.", "user", "1")
    assert best.timestamp.startswith("2023-11-14T")


async def test_users_and_applications_are_apart(agent: AgentMemory) -> None:
    service = LocasMemoryService(agent)
    await service.add_session_to_memory(session("ada", *TALK))
    assert await found(service, "dog", user="ben") == []
    assert await found(service, "dog", app="other") == []
    for user in ("", " "):
        with pytest.raises(InvalidTurn):
            await found(service, "dog", user=user)


async def test_what_is_deleted_is_gone_and_stays_so(agent: AgentMemory) -> None:
    service = LocasMemoryService(agent)
    await service.add_session_to_memory(session("ada", *TALK))
    await service.delete_memory(memory_id="1", **ASKED)
    await service.add_session_to_memory(session("ada", *TALK))
    assert await found(service, "dog") == ["Rex is a good dog."]
    for memory_id, error in ((None, ConfigurationError), ("x", ConfigurationError), ("99", TurnNotFound)):
        with pytest.raises(error):
            await service.delete_memory(memory_id=memory_id, **ASKED)
    with pytest.raises(UnknownUser):
        await service.delete_memory(app_name="app", user_id="ben", memory_id="2")


async def test_memories_can_be_given_as_such(agent: AgentMemory) -> None:
    service = LocasMemoryService(agent, learn=False)
    content = types.Content(role="user", parts=[types.Part(text="I row.")])
    entries = [
        MemoryEntry(content=content, id="m1", timestamp="2024-05-03T12:00:00+00:00"),
        MemoryEntry(content=content),
    ]
    for _ in range(2):
        await service.add_memory(memories=entries, **ASKED)
    turns = agent.for_user("ada", tenant="app").turns()
    assert [(turn.role, turn.content, turn.learn) for turn in turns] == [("user", "I row.", False)] * 3
    assert turns[0].at.year == 2024


async def test_what_no_turn_can_hold_keeps_nothing_else_out(agent: AgentMemory) -> None:
    service = LocasMemoryService(agent)
    await service.add_session_to_memory(session("ada", event("word " * 5000, number=1), event("I row.", number=2)))
    assert await found(service, "row") == ["I row."]


async def test_sessions_of_many_at_once_stay_apart(agent: AgentMemory) -> None:
    service = LocasMemoryService(agent)
    users = [f"user{n}" for n in range(5)]
    await asyncio.gather(
        *(service.add_session_to_memory(session(user, event(f"I am {user}.", number=1))) for user in users * 2)
    )
    for user in users:
        assert await found(service, "am", user=user) == [f"I am {user}."]

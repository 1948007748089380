"""Turns as chat messages: a header for each dated session, a name before the words of a named speaker. No model."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone

from locas_agent.conversation.messages import conversation, exchange, session_header, split_sessions, to_message

MORNING = datetime(2024, 5, 3, 9, tzinfo=UTC)


@dataclass(frozen=True)
class Said:
    """What prompting needs of a turn, and nothing else."""

    content: str
    role: str = "user"
    name: str | None = None
    local_at: datetime = MORNING
    session: str | None = None


def test_header_says_the_date_in_words() -> None:
    assert session_header(MORNING) == {"role": "system", "content": "Conversation on 3 May 2024."}


def test_name_stands_before_the_words() -> None:
    assert to_message(Said("Hi.", name="Ines")) == {"role": "user", "content": "Ines: Hi."}
    assert to_message(Said("Hi.", role="tool")) == {"role": "tool", "content": "Hi."}


def test_a_named_session_may_last_for_days_and_one_without_a_name_is_a_day_of_the_speakers() -> None:
    late = MORNING.replace(hour=23)
    next_day = late + timedelta(hours=2)
    assert [len(each) for each in split_sessions([Said("a", local_at=late), Said("b", local_at=next_day)])] == [1, 1]
    west = next_day.astimezone(timezone(timedelta(hours=-4)))  # the same moment, still the third of May there
    assert [len(each) for each in split_sessions([Said("a", local_at=late), Said("b", local_at=west)])] == [2]
    named = [Said("a", session="s", local_at=late), Said("b", session="s", local_at=next_day), Said("c", session="t")]
    assert [len(each) for each in split_sessions(named)] == [2, 1]
    assert split_sessions([Said("a", session="s"), Said("b")]) == [[Said("a", session="s")], [Said("b")]]


def test_each_session_of_a_conversation_has_its_header() -> None:
    turns = [Said("Hi."), Said("Hello.", role="assistant"), Said("Again.", local_at=MORNING + timedelta(days=2))]
    assert [message["content"] for message in conversation(turns)] == [
        "Conversation on 3 May 2024.",
        "Hi.",
        "Hello.",
        "Conversation on 5 May 2024.",
        "Again.",
    ]
    assert conversation([]) == []
    assert exchange("Who?", "I.") == [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "I."}]

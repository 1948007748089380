"""Cutting overflow into chunks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

from locas_agent.conversation.messages import Message
from locas_agent.study.chunking import chunk_turns
from locas_storage import Turn

START = datetime(2024, 5, 3, 12, tzinfo=UTC)


def turn(seq: int, text: str, *, day: int = 0, role: str = "user", name: str | None = None) -> Turn:
    at = START + timedelta(days=day)
    return Turn(
        seq=seq,
        idempotency_key=str(seq),
        role=role,
        content=text,
        name=name,
        session=None,
        at=at,
        trust="user",
        token_count=1,
        created_at=at,
    )


def words(messages: Sequence[Message]) -> int:
    return sum(len(message["content"].split()) for message in messages)


def test_sessions_are_cut_at_their_dates_and_headed_by_them() -> None:
    cut = chunk_turns([turn(1, "one"), turn(2, "two"), turn(3, "three", day=2)], words, max_tokens=50)
    assert [(chunk.from_seq, chunk.to_seq) for chunk in cut] == [(1, 2), (3, 3)]
    assert [chunk.messages[0]["content"] for chunk in cut] == [
        "Conversation on 3 May 2024.",
        "Conversation on 5 May 2024.",
    ]


def test_pieces_fit_and_nothing_is_left_out() -> None:
    said = [turn(seq, f"word{seq} " * 7) for seq in range(1, 10)]
    cut = chunk_turns(said, words, max_tokens=20)
    assert all(words(chunk.messages) <= 20 for chunk in cut)
    assert [message["content"] for chunk in cut for message in chunk.messages[1:]] == [each.content for each in said]


def test_turn_longer_than_a_piece_is_cut_and_kept_whole() -> None:
    text = " ".join(f"w{index}" for index in range(100))
    cut = chunk_turns([turn(1, text)], words, max_tokens=24)
    assert all(words(chunk.messages) <= 24 for chunk in cut)
    assert "".join(message["content"] for chunk in cut for message in chunk.messages[1:]) == text
    assert {chunk.from_seq for chunk in cut} == {1}


def test_speakers_are_named_in_text_and_quote() -> None:
    chunk = chunk_turns([turn(1, "hello", name="Caroline"), turn(2, "hi", role="assistant")], words, max_tokens=50)[0]
    assert [message["content"] for message in chunk.messages[1:]] == ["Caroline: hello", "hi"]
    assert [excerpt.speaker for excerpt in chunk.excerpts] == ["Caroline", "You"]


def test_a_quote_has_the_day_of_its_speaker() -> None:
    late = replace(turn(1, "hello"), at=datetime(2024, 5, 3, 22, tzinfo=UTC), offset_seconds=3 * 3600)
    (chunk,) = chunk_turns([late], words, max_tokens=50)
    assert late.at.date() == date(2024, 5, 3)
    assert chunk.excerpts[0].day == date(2024, 5, 4)

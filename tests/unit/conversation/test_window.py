"""Which turns stand in a prompt."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from locas_agent.conversation.window import first_of_window, lay_out
from locas_storage import Turn

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def turn(seq: int, tokens: int) -> Turn:
    return Turn(
        seq=seq,
        idempotency_key=str(seq),
        role="user",
        content="x",
        name=None,
        session=None,
        at=NOW,
        trust="user",
        token_count=tokens,
        created_at=NOW,
    )


def turns(*tokens: int) -> list[Turn]:
    return [turn(index + 1, count) for index, count in enumerate(tokens)]


def test_window_holds_the_newest_turns_that_fit() -> None:
    layout = lay_out(turns(10, 10, 10, 10), consolidated_seq=0, window_tokens=25, room_tokens=100)
    assert [t.seq for t in layout.window] == [3, 4]
    assert [t.seq for t in layout.overflow] == [1, 2]
    assert (layout.pending_turns, layout.unseen_turns) == (2, 0)


def test_learnt_turns_leave_the_prompt_and_are_not_pending() -> None:
    layout = lay_out(turns(10, 10, 10, 10), consolidated_seq=2, window_tokens=15, room_tokens=100)
    assert [t.seq for t in layout.prompt_turns] == [3, 4]
    assert layout.pending_turns == 1


def test_overflow_beyond_the_context_is_counted_not_dropped_silently() -> None:
    layout = lay_out(turns(10, 10, 10, 10), consolidated_seq=0, window_tokens=10, room_tokens=25)
    assert [t.seq for t in layout.prompt_turns] == [3, 4]
    assert (layout.pending_turns, layout.unseen_turns) == (3, 2)


def test_newest_turn_is_in_the_window_even_when_it_is_larger() -> None:
    assert first_of_window(turns(5, 500), 100) == 1
    assert lay_out([], consolidated_seq=0, window_tokens=10, room_tokens=10).prompt_turns == ()


@given(
    st.lists(st.integers(1, 50), min_size=1, max_size=30), st.integers(0, 30), st.integers(1, 200), st.integers(60, 400)
)
def test_every_turn_is_learnt_shown_or_counted(tokens: list[int], learnt: int, window_tokens: int, room: int) -> None:
    learnt = min(learnt, len(tokens))
    layout = lay_out(turns(*tokens), consolidated_seq=learnt, window_tokens=window_tokens, room_tokens=room)
    shown = {t.seq for t in layout.prompt_turns}
    hidden = [seq for seq in range(1, len(tokens) + 1) if seq not in shown and seq > learnt]
    assert len(hidden) == layout.unseen_turns
    assert sum(t.token_count for t in layout.prompt_turns) <= max(room, tokens[-1])
    assert sorted(shown) == list(range(min(shown), len(tokens) + 1))

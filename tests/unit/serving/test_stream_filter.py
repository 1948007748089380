"""Answers under way and the calls in them: text in pieces of any cut, read the same. No model."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from locas_agent.results import ToolCall
from locas_agent.serving.stream_filter import StreamFilter
from locas_agent.serving.tool_calls import read

CALL = '<tool_call>\n{"name": "add", "arguments": {"first": 3}}\n</tool_call>'


def written(
    pieces: list[str], *, stop: list[str] | None = None, has_tools: bool = False
) -> tuple[str, list[ToolCall], bool]:
    writing = StreamFilter(stop or [], has_tools=has_tools)
    shown = ""
    for piece in pieces:
        shown += writing.feed(piece)
        if writing.is_stopped:
            break
    last, calls = writing.finish()
    return shown + last, calls, writing.is_stopped


@given(
    text=st.text("ab \n<tool_call>", max_size=40),
    cuts=st.lists(st.integers(0, 40), max_size=6),
    stop=st.lists(st.text("ab ", min_size=1, max_size=3), max_size=2),
)
def test_the_cut_of_the_pieces_changes_nothing(text: str, cuts: list[int], stop: list[str]) -> None:
    places = [0, *sorted(cut for cut in cuts if cut <= len(text)), len(text)]
    pieces = [text[start:end] for start, end in pairwise(places)]
    ends = [at for word in stop if (at := text.lstrip().find(word)) >= 0]
    expected = text.lstrip()[: min(ends)] if ends else text
    shown, calls, is_stopped = written(pieces, stop=stop)
    assert shown == expected.strip()
    assert calls == []
    assert is_stopped == bool(ends)


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_text_before_a_call_is_shown_and_the_call_is_not(size: int) -> None:
    text = f"Let me see. {CALL}\n{CALL}"
    shown, calls, _ = written([text[at : at + size] for at in range(0, len(text), size)], has_tools=True)
    assert shown == "Let me see."
    assert calls == [ToolCall("add", '{"first": 3}')] * 2


def test_without_tools_a_call_is_text() -> None:
    assert written([CALL])[0] == CALL


def test_text_around_calls_is_kept() -> None:
    assert read(f"one {CALL} two {CALL} three") == ([ToolCall("add", '{"first": 3}')] * 2, "one  two  three")
    assert written([f"{CALL} and done"], has_tools=True)[0] == "and done"

"""Calls in the text of an answer: read, and kept as written where they are none. No model."""

from __future__ import annotations

import json

import pytest

from locas_agent.results import ToolCall
from locas_agent.serving.tool_calls import read


@pytest.mark.parametrize(
    "body",
    ["{", "[]", '{"name": 3, "arguments": {}}', '{"name": "add"}', '{"name": "add", "arguments": "3"}', ""],
    ids=repr,
)
def test_what_is_no_call_is_kept_as_it_was_written(body: str) -> None:
    assert read(f"<tool_call>{body}</tool_call>") == ([ToolCall(None, f"<tool_call>{body}")], "")
    assert read(f"<tool_call>{body}") == ([ToolCall(None, f"<tool_call>{body}")], "")  # cut off by the length


def test_arguments_keep_their_letters() -> None:
    (call,), _ = read('<tool_call>{"name": "add", "arguments": {"name": "你好"}}</tool_call>')
    assert call.arguments == '{"name": "你好"}'
    assert json.loads(call.arguments) == {"name": "你好"}

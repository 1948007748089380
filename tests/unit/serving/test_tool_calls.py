"""Calls in the text of an answer: read, and kept as written where they are none. No model."""

from __future__ import annotations

import json

import pytest

from locas_agent.results import ToolCall
from locas_agent.serving.tool_calls import read, write


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


def test_calls_that_were_written_are_read_again_beside_one_that_could_not_be_read() -> None:
    made = [
        ToolCall(None, '<tool_call>{"name": "add", "arguments"'),
        ToolCall("add", '{"first": 1}'),
        ToolCall("say", '{"text": "<tool_call>你好</tool_call>"}'),
    ]
    calls, around = read("Well. " + write(made))
    assert (calls, around) == ([*made[1:], made[0]], "Well.")

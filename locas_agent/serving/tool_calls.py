"""Tool calls in the text of an answer: what a template must write, what an answer must begin with, what is read.

The form is the one Qwen and Hermes templates use: `<tool_call>{"name": ..., "arguments": {...}}</tool_call>`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from locas_agent.backbone import Backbone
from locas_agent.backbone.detokenizer import clean
from locas_agent.errors import BackboneError, ConfigurationError
from locas_agent.inference.generation import AllowedTokens
from locas_agent.results import ToolCall

OPEN, CLOSE = "<tool_call>", "</tool_call>"
_ESCAPED_CLOSE = CLOSE.replace("<", "\\u003c")
"""The end of a call within one, where it is no end; JSON reads the same of both."""

_PROBE = {"name": "probe", "arguments": {"part": 1}}
_PROBE_TOOL = {
    "type": "function",
    "function": {"name": "probe", "description": "", "parameters": {"type": "object", "properties": {}}},
}
_ASKED: dict[str, Any] = {"role": "user", "content": "?"}
_CALLING: dict[str, Any] = {
    "role": "assistant",
    "content": "",
    "tool_calls": [{"type": "function", "function": _PROBE}],
}


def can_call_tools(backbone: Backbone) -> bool:
    """Tell whether the chat template shows tools and writes calls in the form that is read here, by trying both."""
    try:
        shown = backbone.encode_chat([_ASKED], tools=[_PROBE_TOOL])
        written = backbone.encode_chat([_ASKED, _CALLING], generation_prompt=False)
        bare = backbone.encode_chat([_ASKED])
    except BackboneError:
        return False
    calls, _ = read(backbone.decode(written))
    return shown != bare and ToolCall("probe", json.dumps(_PROBE["arguments"])) in calls


def require_tools(backbone: Backbone) -> None:
    """Refuse a backbone that would never see the tools.

    Raises:
        ConfigurationError: its chat template shows no tools, or writes calls in another form.
    """
    if not can_call_tools(backbone):
        raise ConfigurationError(
            f"the chat template of {backbone.name!r} cannot call tools: expected one that shows `tools` and writes "
            "calls as "
            f'{OPEN}{{"name": ..., "arguments": ...}}{CLOSE}, as those of Qwen3 do; bind none, or choose such a '
            "backbone"
        )


def names_of(tools: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Return the names of tools.

    Raises:
        ConfigurationError: one of them is no JSON schema of a function.
    """
    try:
        return tuple(str(tool["function"]["name"]) for tool in tools)
    except (KeyError, TypeError):
        raise ConfigurationError(
            'tools: expected JSON schemas such as {"type": "function", "function": {"name": ..., "parameters": {...}}}'
        ) from None


def must_call(tool_choice: object, tools: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Return the names of the tools of which the answer has to call one; none where the backbone may choose.

    Args:
        tool_choice: None, False or "auto"; True, "any" or "required"; the name of a tool, or that name as OpenAI writes
            it.
        tools: those that are bound.

    Raises:
        ConfigurationError: it is none of these, or names a tool that is not bound.
    """
    names = names_of(tools)
    if isinstance(tool_choice, Mapping):
        tool_choice = tool_choice.get("function", {}).get("name")
    elif tool_choice in (None, False, "auto"):
        return ()
    elif tool_choice in (True, "any", "required"):
        return names
    if tool_choice not in names:
        raise ConfigurationError(
            f"tool_choice is {tool_choice!r}: expected 'auto', 'any' or one of the bound tools, "
            f"{', '.join(names) or 'none'}"
        )
    return (str(tool_choice),)


def begins_with_call(backbone: Backbone, names: Sequence[str]) -> AllowedTokens:
    """Let an answer begin with nothing but a call of one of these tools.

    Name and arguments are the backbone's from there on.
    """
    beginnings = [backbone.encode(f'{OPEN}\n{{"name": {json.dumps(name)}, "arguments":') for name in names]

    def allowed(ids: Sequence[int]) -> Sequence[int] | None:
        at = len(ids)
        fitting = [beginning for beginning in beginnings if beginning[:at] == list(ids)[: len(beginning)]]
        if any(len(beginning) <= at for beginning in fitting):
            return None
        return sorted({beginning[at] for beginning in fitting})

    return allowed


def read(text: str) -> tuple[list[ToolCall], str]:
    """Return the calls in a text, and the text around them.

    What is no call of the expected form is kept as it was written.
    """
    calls: list[ToolCall] = []
    around, is_open, rest = text.partition(OPEN)
    while is_open:
        body, _, rest = rest.partition(CLOSE)
        calls.append(_call(body.strip()))
        between, is_open, rest = rest.partition(OPEN)
        around += between
    return calls, around.strip()


def write(calls: Sequence[ToolCall]) -> str:
    """Return calls as a text of which `read` makes the same ones.

    What could not be read stands last: its end is in doubt, and nothing may follow it that could be taken for a part of
    it.
    """
    made = [
        f'{{"name": {json.dumps(call.name)}, "arguments": {call.arguments}}}' for call in calls if call.name is not None
    ]
    named = "".join(f"{OPEN}{one.replace(CLOSE, _ESCAPED_CLOSE)}{CLOSE}" for one in made)
    return named + unread(calls)


def unread(calls: Sequence[ToolCall]) -> str:
    """Return the calls that could not be read, as they were written."""
    return "".join(call.arguments for call in calls if call.name is None)


def _call(body: str) -> ToolCall:
    try:
        written = json.loads(body)
    except json.JSONDecodeError:
        return ToolCall(None, OPEN + body)
    if (
        not isinstance(written, dict)
        or not isinstance(written.get("name"), str)
        or not isinstance(written.get("arguments"), dict)
    ):
        return ToolCall(None, OPEN + body)
    return ToolCall(clean(written["name"]), clean(json.dumps(written["arguments"], ensure_ascii=False)))


def held(role: str, text: str) -> str:
    """Return what a message says as a turn can hold it.

    What a tool returned or a model wrote may be bytes that are no text, and nobody could say it again in other words.
    What a person says is taken as it is, or refused.
    """
    return clean(text) if role in ("assistant", "tool") else text

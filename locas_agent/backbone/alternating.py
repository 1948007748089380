"""Chat messages for a template that takes only a user and an assistant in turn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_TURNS = ("user", "assistant")


def alternating(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, str]] | None:
    """Return the same texts as a user and an assistant in turn, the user first.

    None where that cannot be said this way.

    What a system message says stands before the next user's text. Messages of one role in a row become one. Calls of
    tools and their results cannot be said this way.
    """
    folded: list[dict[str, str]] = []
    for message in messages:
        role, text = message.get("role"), message.get("content")
        if not isinstance(text, str) or role not in (*_TURNS, "system") or message.get("tool_calls"):
            return None
        spoken_by = "user" if role == "system" else str(role)
        if not folded and spoken_by == "assistant":
            folded.append({"role": "user", "content": ""})
        if folded and folded[-1]["role"] == spoken_by:
            before = folded[-1]["content"]
            folded[-1]["content"] = f"{before}\n{text}" if before else text
        else:
            folded.append({"role": spoken_by, "content": text})
    return folded

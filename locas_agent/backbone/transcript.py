"""Chats for a model without a chat template: a transcript, in which each message is a line.

So the answer of such a model ends where its line does. It takes texts, and no tokenizer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_WITHIN = "\n  "
"""Before each further line of a message: none of them can pass for another speaker's."""


def transcript(messages: Sequence[Mapping[str, Any]], *, generation_prompt: bool) -> str:
    r"""Write messages as "Role: text" and a line break each.

    Spaces around a text are left out. Its own line breaks are kept, and the lines after the first are set in.

    Args:
        messages: dicts with "role" and "content"; one without text, such as a call of tools, is its role alone.
        generation_prompt: end with the beginning of the assistant's line.
    """
    lines = [f"{str(message['role']).capitalize()}: {_set_in(message.get('content'))}".rstrip() for message in messages]
    return "".join(f"{line}\n" for line in lines) + ("Assistant:" if generation_prompt else "")


def _set_in(text: object) -> str:
    lines = str(text).strip().splitlines() if text is not None else []
    return _WITHIN.join(lines)

"""A decoding constraint that writes tool calls from a script.

A random backbone cannot choose a tool, so the tests do it for it.

What is real: template, tokens, forward, memory, decoding token by token, parsing. What is not: that the backbone wanted
the call. Of a prompt that shows tools and ends with a user's message the script makes a call whose arguments stand in
that message; any other answer is the backbone's own, letters only.
"""

from __future__ import annotations

import json
import re
import string
from collections.abc import Iterator, Sequence
from typing import Any

from locas_agent.inference import Engine
from locas_agent.inference.generation import AllowedTokens

_MESSAGE = re.compile(r"<\|im_start\|>(\w+)\n(.*?)<\|im_end\|>", re.DOTALL)
_LETTERS = string.ascii_letters + " "
_WORDS = 12


class ScriptedEngine(Engine):
    """An engine whose streamed answers follow the script."""

    def stream(self, prompt: Sequence[int], *, allowed: AllowedTokens | None = None, **options: Any) -> Iterator[int]:
        """Answer under the script."""
        yield from super().stream(prompt, allowed=self.scripted(prompt, allowed), **options)

    def scripted(self, prompt: Sequence[int], allowed: AllowedTokens | None) -> AllowedTokens:
        """Return the script of a prompt; where the caller constrains the answer too, it keeps to that."""
        script = self._script(prompt, allowed)
        letters = [self.backbone.encode(letter)[0] for letter in _LETTERS]
        ends = sorted(self.backbone.stop_ids)

        def written(ids: Sequence[int]) -> Sequence[int]:
            if script is None:
                return letters if len(ids) < _WORDS else ends
            return [script[len(ids)]] if len(ids) < len(script) else ends

        return written

    def _script(self, prompt: Sequence[int], allowed: AllowedTokens | None) -> list[int] | None:
        messages = _MESSAGE.findall(self.backbone.tokenizer.decode(list(prompt)))
        tools = (
            [json.loads(line) for line in messages[0][1].splitlines()[1:]]
            if messages[0][1].startswith("Tools:\n")
            else []
        )
        role, text = messages[-1]
        if not tools or role != "user":
            assert allowed is None, "a call is forced where the script has none"
            return None
        tools.sort(key=lambda tool: tool["function"]["name"] not in text)
        scripts = [self.backbone.encode(_call(tool["function"], text)) for tool in tools]
        return next(script for script in scripts if allowed is None or _keeps_to(allowed, script))


def _keeps_to(allowed: AllowedTokens, script: Sequence[int]) -> bool:
    steps = ((allowed(script[:at]), token) for at, token in enumerate(script))
    return all(ids is None or token in ids for ids, token in steps)


def _call(function: dict[str, Any], text: str) -> str:
    properties = function["parameters"].get("properties", {})
    arguments = {name: _value(schema, text) for name, schema in properties.items()}
    written = json.dumps({"name": function["name"], "arguments": arguments}, ensure_ascii=False)
    return f"<tool_call>\n{written}\n</tool_call>"


def _value(schema: dict[str, Any], text: str) -> object:
    number, quoted = re.search(r"-?\d+", text), re.search(r"'([^']+)'", text)
    match schema.get("type"):
        case "integer" | "number":
            return int(number[0]) if number else 1
        case "array":
            return [int(each) for each in re.findall(r"\d+", text)]
        case _:
            return quoted[1] if quoted else "words"

"""`LocasMemoryBlock`: a memory block of LlamaIndex's `Memory` over the journal of one user.

What leaves LlamaIndex's short-term memory is our overflow: it is journalled, and learnt like other turns.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llama_index.core.llms import ChatMessage
from llama_index.core.memory import BaseMemoryBlock
from pydantic import Field

from locas_agent import FoundTurn, UserMemory
from locas_frameworks.said import SaidMessage, journal

SOURCE = "llama-index"
_ROLES = ("user", "assistant")
_CHARS_PER_TOKEN = 4
"""By which a number of tokens to be cut is guessed; LlamaIndex takes it for a hint."""


class LocasMemoryBlock(BaseMemoryBlock[str]):
    """What one user said in earlier conversations, for `Memory.from_defaults(memory_blocks=[...])`.

    Before each answer the turns that fit the newest message are looked up and put into the prompt, best first. Where
    the language model is this project's own, it has the memory anyway: `found_turns=0` then puts nothing there.
    """

    name: str = Field("what_was_said_before", description="Name of the block in the prompt.")
    description: str | None = Field("What the user and the assistant said in earlier conversations.")
    priority: int = Field(1, description="0 is never cut; blocks of a greater number are cut first.")
    memory: UserMemory = Field(exclude=True, repr=False, description="Whose, as `AgentMemory.for_user` returns it.")
    found_turns: int = Field(5, ge=0, description="Turns that are looked up, at most.")
    learn: bool = Field(True, description="Whether what overflows may be learnt.")

    async def _aget(self, messages: list[ChatMessage] | None = None, **block_kwargs: Any) -> str:
        """Return the turns that fit the newest message of the user, a line each."""
        asked = next((_text(message) for message in reversed(messages or []) if message.role.value == "user"), "")
        if not self.found_turns or not asked:
            return ""
        return "\n".join(_line(turn) for turn in await self.memory.asearch(asked, limit=self.found_turns))

    async def _aput(self, messages: list[ChatMessage]) -> None:
        """Journal what a person or the assistant said; calls of tools and their results are left out."""
        said = (_said(message) for message in messages if message.role.value in _ROLES and _text(message))
        await journal(self.memory, said, source=SOURCE, learn=self.learn)

    async def atruncate(self, content: str, tokens_to_truncate: int) -> str | None:
        """Leave out the lines that fit least, until about so many tokens are gone; None where none is left."""
        lines = content.splitlines()
        too_many = tokens_to_truncate * _CHARS_PER_TOKEN
        while lines and too_many > 0:
            too_many -= len(lines.pop()) + 1
        return "\n".join(lines) or None


def _text(message: ChatMessage) -> str:
    return (message.content or "").strip()


def _said(message: ChatMessage) -> SaidMessage:
    session = message.additional_kwargs.get("session_id")
    return SaidMessage(message.role.value, _text(message), session=session if isinstance(session, str) else None)


def _line(turn: FoundTurn) -> str:
    words: Sequence[str] = turn.content.split()
    return f"{turn.local_at:%Y-%m-%d}, {turn.name or turn.role}: {' '.join(words)}"

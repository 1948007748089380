"""Memory tools for agents: search the journal of the calling user, and forget turns of it.

The model never says whose.
"""

from __future__ import annotations

from collections.abc import Callable

from langchain_core.runnables import RunnableConfig
from langchain_core.tools import BaseTool, StructuredTool

from langchain_locas.identity import caller, running
from locas_agent import FoundTurn, MemoryHost, UserMemory
from locas_agent.errors import TurnNotFound, UnknownUser

FOUND_TURNS = 5
"""Turns that one search returns."""


def memory_tools(memory: MemoryHost, *, tenant: str = "default") -> list[BaseTool]:
    """Return `search_memory` and `forget_memory`, bound to the user who calls.

    The user of the run's context or of `configurable`.

    Forgetting cannot be undone. An agent that reads what strangers wrote should ask a person first
    (`HumanInTheLoopMiddleware`).

    Args:
        memory: where the journals are.
        tenant: the application or customer the users belong to.
    """

    def calling(config: RunnableConfig) -> UserMemory:
        return memory.for_user(caller(running(), config), tenant=tenant)

    def search_memory(query: str, config: RunnableConfig) -> str:
        """Search what this user and you said in earlier conversations.

        Returns the turns that fit best, with their numbers.

        Args:
            query: words to look for.
            config: of the call; the model does not see it.
        """
        found = calling(config).search(query, limit=FOUND_TURNS)
        return "\n".join(_line(turn) for turn in found) or "Nothing was found."

    def forget_memory(turns: list[int], config: RunnableConfig) -> str:
        """Forget turns of earlier conversations for good, when this user asks for it.

        Look for their numbers with search_memory first.

        Args:
            turns: numbers of the turns.
            config: of the call; the model does not see it.
        """
        try:
            receipt = calling(config).forget(turns)
        except (TurnNotFound, UnknownUser):
            return f"Nothing was forgotten: there is no turn of one of the numbers {', '.join(map(str, turns))}."
        return f"Forgotten: {', '.join(map(str, receipt.turns)) or 'nothing, these turns were forgotten before'}."

    tools: list[Callable[..., str]] = [search_memory, forget_memory]
    return [StructuredTool.from_function(tool, parse_docstring=True) for tool in tools]


def _line(turn: FoundTurn) -> str:
    said = " ".join(turn.content.split())
    return f"turn {turn.seq}, {turn.local_at:%Y-%m-%d}, {turn.name or turn.role}: {said}"

"""`MemoryHost`: what servers and adapters take, one `AgentMemory` or a `Fleet` of several."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from locas_agent.agent import AgentMemory
from locas_agent.aio import Crews
from locas_agent.user import UserMemory
from locas_storage import MemoryStore, Turn, TurnDraft, UserKey


@runtime_checkable
class MemoryHost(Protocol):
    """Users of one store, each with an agent on whose backbone the user's memory is.

    What hangs on a backbone, such as tokens, the context and settings, is asked of `runtime_of` the user, each time:
    a user may be moved to another backbone between two calls.
    """

    @property
    def agents(self) -> Sequence[AgentMemory]:
        """All agents; users without a memory are on the first."""
        ...

    @property
    def store(self) -> MemoryStore:
        """The one store of all agents."""
        ...

    @property
    def crews(self) -> Crews:
        """The threads of async twins."""
        ...

    def for_user(self, user: str, *, tenant: str = "default") -> UserMemory:
        """Return the handle of one user."""
        ...

    def users(self, *, tenant: str | None = None) -> list[UserKey]:
        """Return everyone who has ever said something, of one tenant or of all."""
        ...

    def runtime_of(self, key: UserKey) -> AgentMemory:
        """Return the agent on whose backbone a user's memory is; one read of the store where there are several.

        Raises:
            IncompatibleMemory: it belongs to a backbone of which there is no agent.
        """
        ...

    def append(self, key: UserKey, drafts: Sequence[TurnDraft]) -> list[Turn]:
        """Journal turns with the token counts of the user's backbone.

        Raises:
            TurnTooLong: a turn does not fit into that backbone's context beside an answer; nothing was written.
        """
        ...

"""`Fleet`: several agents on one store, each on a backbone of its own, and each user on the one whose memory it is.

While users are moved to another backbone some are on the old one and some on the new. A handle of a fleet finds out at
each call where its user is, so it may be held across the move. Servers and adapters take a `MemoryHost`, one agent or a
fleet; `Learning` consolidates beside them.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from threading import Event, Thread
from types import TracebackType
from typing import Protocol, Self, runtime_checkable

from locas_agent.agent import AgentMemory
from locas_agent.aio import Crews
from locas_agent.errors import ConfigurationError, IncompatibleMemory
from locas_agent.results import Reply
from locas_agent.serving.replies import ReplyRequest, Sampling
from locas_agent.user import UserMemory
from locas_storage import MemoryStore, Turn, TurnDraft, UserKey, new_item_id

logger = logging.getLogger(__name__)

_LEAVE_SECONDS = 30.0
"""Time that a consolidation in progress has to be given back."""


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


class Fleet:
    """Agents by the fingerprint of their backbones, and the way from a user to the right one.

    Args:
        agents: on one and the same store; users without a memory are on the first.

    Raises:
        ConfigurationError: there is no agent, two are of one backbone, or their stores differ.
    """

    def __init__(self, agents: Sequence[AgentMemory]) -> None:
        self._agents = {agent.backbone.fingerprint: agent for agent in agents}  # in the order in which they were given
        if not agents or len(self._agents) < len(agents):
            raise ConfigurationError(
                f"a fleet has one agent for each backbone: got {len(agents)} agents of {len(self._agents)} backbones"
            )
        self._first = agents[0]
        if any(agent.store is not self._first.store for agent in agents):
            raise ConfigurationError("agents of a fleet share one store: open it once, and give it to each of them")
        self._crews = Crews()

    @property
    def crews(self) -> Crews:
        """The threads of the async twins of its handles."""
        return self._crews

    @property
    def agents(self) -> tuple[AgentMemory, ...]:
        """All agents; users without a memory are on the first."""
        return tuple(self._agents.values())

    @property
    def store(self) -> MemoryStore:
        """The store of all agents."""
        return self._first.store

    def for_user(self, user: str, *, tenant: str = "default") -> UserMemory:
        """Return the handle of one user; cheap, and nothing is read or written until a verb is called.

        Every verb goes to the agent on whose backbone the user's memory is by then. `reply` follows a user who is moved
        during the call; any other verb may raise `IncompatibleMemory` then, and does what was asked when it is called
        again.
        """
        return UserMemory(self, UserKey(tenant, user))

    def users(self, *, tenant: str | None = None) -> list[UserKey]:
        """Return everyone who has ever said something, of one tenant or of all."""
        return self._first.users(tenant=tenant)

    def runtime_of(self, key: UserKey) -> AgentMemory:
        """Return the agent on whose backbone a user's memory is.

        Raises:
            IncompatibleMemory: it belongs to a backbone of which the fleet has no agent.
        """
        head = self._first.store.revision(key)
        if head is None or not head.fingerprint:
            return self._first
        if head.fingerprint not in self._agents:
            known = ", ".join(one[:12] for one in self._agents)
            raise IncompatibleMemory(
                f"the memory of user #{key.short_hash} belongs to the backbone with fingerprint "
                f"{head.fingerprint[:12]}, the fleet has {known}: add an agent of that backbone, or upgrade the user"
            )
        return self._agents[head.fingerprint]

    def append(self, key: UserKey, drafts: Sequence[TurnDraft]) -> list[Turn]:
        """Journal turns where the user's memory is; see `MemoryHost.append`."""
        return self.runtime_of(key).append(key, drafts)

    def answer(self, asked: Sequence[ReplyRequest], sampling: Sampling) -> list[Reply]:
        """Answer each user where the user's memory is; see `UserMemory.reply`."""
        return [self._answer(one, sampling) for one in asked]

    def _answer(self, asked: ReplyRequest, sampling: Sampling) -> Reply:
        """Answer, once more where the user was moved after the question was journalled: under a key it is one turn."""
        keyed = replace(asked, idempotency_key=asked.idempotency_key or new_item_id())
        home = self.runtime_of(asked.user)
        try:
            return home.answer([keyed], sampling)[0]
        except IncompatibleMemory:
            moved = self.runtime_of(asked.user)
            if moved is home:
                raise
            return moved.answer([keyed], sampling)[0]

    def close(self) -> None:
        """Close every agent, and the store with them."""
        self._crews.close()
        for agent in self._agents.values():
            agent.close()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    def __repr__(self) -> str:
        """Name the backbones, never a user."""
        return f"Fleet({[agent.backbone.name for agent in self._agents.values()]})"


class Learning:
    """Threads that consolidate what is due while a server serves: each what belongs on the backbone of its agent.

    Args:
        agents: those that learn.
    """

    def __init__(self, agents: Sequence[AgentMemory]) -> None:
        self._stop = Event()
        self._threads = [
            Thread(target=self._work, args=(agent,), name="locas-learning", daemon=True) for agent in agents
        ]

    def _work(self, memory: AgentMemory) -> None:
        while not self._stop.is_set():
            try:
                memory.work(stop=self._stop, once=False)
            except Exception as error:  # noqa: BLE001  whatever it is, answering goes on, and learning is tried again
                logger.warning("learning stopped", extra={"action": "learn", "reason": type(error).__name__})
                self._stop.wait(10.0)

    def __enter__(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def __exit__(self, *_: object) -> None:
        """Have what is in progress given back, and end."""
        self._stop.set()
        until = time.monotonic() + _LEAVE_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))

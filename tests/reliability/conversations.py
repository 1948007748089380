"""Users talk through `AgentMemory.reply_many` while their memories move; each is to be answered with its own."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from locas_agent import AgentMemory, LocasConfig
from locas_agent.backbone import Backbone
from locas_agent.inference.generation import Generation
from locas_agent.memory import LocasMemory
from locas_agent.memory.serialization import from_bytes, to_bytes
from locas_storage import MemoryStore, TurnDraft, UserKey
from locas_storage.conformance.samples import draft
from tests.conftest import MakeMemory
from tests.reliability.answer_attribution import strangers

CONFIG = LocasConfig.model_validate({"policy": {"automatic": False}, "window": {"window_tokens": 16}})
NEW_TOKENS = 16


class Conversations:
    """Users on one agent.

    Attributes:
        steps: decode steps so far.
        replies: answers so far.
        with_memory: those of them given with a memory.
        moved: how often a memory moved between two batches.
    """

    def __init__(
        self, backbone: Backbone, store: MemoryStore, make_memory: MakeMemory, *, users: int, seed: int = 0
    ) -> None:
        self._agent = AgentMemory(backbone=backbone, store=store, config=CONFIG)
        self._make_memory = make_memory
        self._users = [UserKey("default", f"user {number}") for number in range(users)]
        self._rng = random.Random(seed)
        self._heard: list[tuple[Sequence[Sequence[int]], list[Generation]]] = []
        self._listen()
        self.steps = self.replies = self.with_memory = self.moved = 0
        for key in self._users:
            store.append(key, [TurnDraft("user", "Hello.")])
            self._learn(key)

    def round(self) -> list[UserKey]:
        """Move some memories, answer users in one batch; return those whose answer is not that of their own memory."""
        for key in self._rng.sample(self._users, len(self._users) // 3):
            self._move(key)
        asked = self._rng.sample(self._users, self._rng.randint(2, len(self._users)))
        handles = [self._agent.for_user(key.user) for key in asked]
        said = self._agent.reply_many([(handle, "Who am I?") for handle in handles], max_new_tokens=NEW_TOKENS)
        ((prompts, made),) = self._heard
        self._heard.clear()
        self.steps += max(len(generation.ids) for generation in made)
        self.replies += len(said)
        self.with_memory += sum(reply.used_memory for reply in said)
        # Read from the store again, past the agent's cache.
        mine = [self._memory(key) for key in asked]
        return [asked[row] for row in strangers(self._agent.engine, prompts, made, mine)]

    def _memory(self, key: UserKey) -> LocasMemory | None:
        store = self._agent.store
        revision = store.revision(key)
        return (
            from_bytes(store.payload(key, revision.number)) if revision is not None and revision.has_payload else None
        )

    def _move(self, key: UserKey) -> None:
        """Change a user's current memory behind the agent's back."""
        store = self._agent.store
        state = store.state(key)
        assert state is not None
        self.moved += 1
        kept = [revision.number for revision in store.revisions(key) if revision.is_kept]
        what = self._rng.randrange(8)
        if what == 0 and kept:
            store.rollback(key, self._rng.choice(kept))
        elif what == 1 and kept:
            store.rollback(key, 0)
        elif what == 2 and state.turns:
            store.forget(key, [self._rng.randint(1, state.turns)])
        elif what == 3 and self._rng.random() < 0.3:
            store.erase(key)
            store.reinstate(key)
        else:
            self._learn(key)

    def _learn(self, key: UserKey) -> None:
        """Save a new memory over all turns that no memory covers."""
        state = self._agent.store.state(key)
        assert state is not None
        if state.turns > state.consolidated_seq:
            memory = self._make_memory(self._rng.randrange(1 << 30), width=self._rng.randint(1, 5))
            span = (state.head, state.consolidated_seq + 1, state.turns)
            self._agent.store.commit(key, draft(*span, to_bytes(memory), fingerprint=self._agent.backbone.fingerprint))

    def _listen(self) -> None:
        generate = self._agent.engine.generate

        def heard(prompts: Sequence[Sequence[int]], **more: Any) -> list[Generation]:
            made = generate(prompts, **more)
            self._heard.append((prompts, made))
            return made

        self._agent.engine.generate = heard  # type: ignore[method-assign, assignment]

"""One round of consolidation: from what waits in the store to revisions in the store, many users side by side.

It is told whose turns to learn, up to which one, and under which lease.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from locas_agent.backbone import Backbone
from locas_agent.config import LocasConfig
from locas_agent.consolidation.learner import Learner, Outcome, Task
from locas_agent.conversation import window
from locas_agent.memory.serialization import to_bytes
from locas_agent.memory_cache import LoadedMemories
from locas_agent.results import Consolidation
from locas_agent.study.codec import from_record, to_draft
from locas_agent.types import CODE_VERSION, Progress
from locas_storage import Lease, MemoryStore, Revision, RevisionDraft, StorageError, Turn, UserKey, UserState

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Order:
    """Whose turns are to be learnt.

    Attributes:
        key: whose.
        upto: the last turn to learn; None learns the overflow.
        flush: without `upto`, learn the turns that are still in the window too.
        lease: under which it is learnt; whatever is written ends the lease's job with it.
    """

    key: UserKey
    upto: int | None = None
    flush: bool = False
    lease: Lease | None = None


@dataclass(frozen=True, slots=True)
class _Matter:
    """What one order found.

    Counters read before the turns, so that a forgetting in between is noticed at the commit.
    """

    order: Order
    state: UserState | None
    head: Revision | None
    turns: tuple[Turn, ...]

    @property
    def to_seq(self) -> int:
        """The last turn of the span; forgotten ones at its end belong to it."""
        if self.order.upto is not None:
            return self.order.upto
        return self.turns[-1].seq if self.turns else 0


class Rounds:
    """Learns what waits, and commits each admitted memory in one transaction of its own."""

    def __init__(
        self, backbone: Backbone, store: MemoryStore, learner: Learner, memories: LoadedMemories, config: LocasConfig
    ) -> None:
        self._backbone = backbone
        self._store = store
        self._learner = learner
        self._memories = memories
        self._config = config

    def run(
        self, orders: Sequence[Order], *, progress: Progress | None = None, seed: int | None = None
    ) -> list[Consolidation | StorageError]:
        """Learn several users' turns; each is admitted or refused by itself.

        Args:
            orders: a user may stand in it once.
            progress: told of the stages; what it raises ends the round, and nothing is written.
            seed: overrides `training.seed`.

        Returns:
            For each order what became of it, or the store's refusal to write it: the others are written all the same.
        """
        matters = [self._look(order) for order in orders]
        busy = [at for at, matter in enumerate(matters) if matter.turns]
        tasks = [self.task(matters[at].order.key, matters[at].head, matters[at].turns) for at in busy]
        outcomes = dict(
            zip(busy, self._learner.learn(tasks, seed=seed, progress=progress) if tasks else [], strict=True)
        )
        return [self._written(matter, outcomes.get(at)) for at, matter in enumerate(matters)]

    def task(self, key: UserKey, head: Revision | None, turns: Sequence[Turn]) -> Task:
        """Return what the learner is given.

        The turns in pieces, the study items in force, the memory that learnt them.
        """
        earlier = tuple(from_record(record) for record in self._store.study_items(key))
        heard = self._learner.heard(turns)
        return Task(self._learner.pieces(heard), earlier, self._memories.of(key, head), len(turns) - len(heard))

    def _look(self, order: Order) -> _Matter:
        self._store.expire(order.key)
        state = self._store.state(order.key)
        if state is None:
            return _Matter(order, None, None, ())
        head = self._store.revision(order.key, state.head) if state.head else None
        turns = self._store.turns(order.key, after=state.consolidated_seq, upto=order.upto)
        if order.upto is None and not order.flush:
            turns = window.overflow(turns, self._config.window.window_tokens)
        return _Matter(order, state, head, tuple(turns))

    def _written(self, matter: _Matter, outcome: Outcome | None) -> Consolidation | StorageError:
        try:
            return self._write(matter, outcome)
        except StorageError as error:
            return error

    def _write(self, matter: _Matter, outcome: Outcome | None) -> Consolidation:
        key, lease, count = matter.order.key, matter.order.lease, len(matter.turns)
        if outcome is None or matter.state is None:
            if lease is not None:
                self._store.queue.complete(lease, matter.to_seq)
            return Consolidation("nothing", "no overflow", "every turn is learnt or still in the window", None, 0)
        admission = outcome.admission
        if not admission.admitted:
            facts = self._refusal(matter, outcome)
            if lease is not None:
                self._store.queue.complete(lease, matter.to_seq, refusal=facts)
            else:
                self._store.record(key, "refuse", facts)
            logger.info(
                "consolidation refused",
                extra={"action": "refuse", "reason": admission.reason, "detail": admission.detail, "turns": count},
            )
            return Consolidation("refused", admission.reason, admission.detail, None, count, outcome.metrics)
        revision = self._store.commit(key, self._draft(matter, matter.state, outcome), lease=lease)
        logger.info(
            "revision saved",
            extra={"action": "commit", "revision": revision.number, "detail": admission.detail, "turns": count},
        )
        return Consolidation("admitted", admission.reason, admission.detail, revision, count, outcome.metrics)

    @staticmethod
    def _refusal(matter: _Matter, outcome: Outcome) -> dict[str, Any]:
        tokens = sum(turn.token_count for turn in matter.turns)
        return {
            "to_seq": matter.to_seq,
            "tokens": tokens,
            "reason": outcome.admission.reason,
            "figures": outcome.metrics.as_json(),
        }

    def _draft(self, matter: _Matter, state: UserState, outcome: Outcome) -> RevisionDraft:
        return RevisionDraft(
            parent=state.head,
            fingerprint=self._backbone.fingerprint,
            config_hash=self._config.digest(),
            code_version=CODE_VERSION,
            seed=outcome.metrics.seed or 0,
            from_seq=state.consolidated_seq + 1,
            to_seq=matter.to_seq,
            payload=to_bytes(outcome.memory, dtype=self._config.memory.stored_as),
            metrics=outcome.metrics.model_copy(update={"config": self._config.model_dump(mode="json")}),
            new_items=tuple(to_draft(item) for item in outcome.study_set.items),
            retired_items=tuple(sorted(outcome.study_set.retired)),
            fence=state.fence,
        )

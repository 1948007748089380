"""One round of consolidation: from what waits in the store to revisions in the store, many users side by side.

It is told whose turns to learn, up to which one, and under which lease.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from locas_agent.backbone import Backbone
from locas_agent.config import LocasConfig
from locas_agent.consolidation.learner import Outcome, Task
from locas_agent.conversation import window
from locas_agent.memory.serialization import to_bytes
from locas_agent.memory_cache import MemoryCache
from locas_agent.results import Consolidation
from locas_agent.study.chunking import Chunk
from locas_agent.study.codec import from_record, to_draft
from locas_agent.types import CODE_VERSION, Progress
from locas_storage import (
    Lease,
    MemoryStore,
    Revision,
    RevisionDraft,
    StorageError,
    Turn,
    UserKey,
    UserState,
    tracing,
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ConsolidationRequest:
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
class _Waiting:
    """What one request found.

    Counters read before the turns, so that a forgetting in between is noticed at the commit.
    """

    request: ConsolidationRequest
    state: UserState | None
    head: Revision | None
    turns: tuple[Turn, ...]

    @property
    def to_seq(self) -> int:
        """The last turn of the span; forgotten ones at its end belong to it."""
        if self.request.upto is not None:
            return self.request.upto
        return self.turns[-1].seq if self.turns else 0


class TurnLearner(Protocol):
    """What a runner needs of `Learner`."""

    def heard(self, turns: Sequence[Turn]) -> list[Turn]: ...  # noqa: D102
    def chunks(self, turns: Sequence[Turn]) -> tuple[Chunk, ...]: ...  # noqa: D102
    def learn(  # noqa: D102
        self, tasks: Sequence[Task], *, seed: int | None = None, progress: Progress | None = None
    ) -> Sequence[Outcome]: ...


class ConsolidationRunner:
    """Learns what waits, and commits each admitted memory in one transaction of its own.

    Attributes:
        learner: makes memories of turns; may be replaced.
    """

    def __init__(
        self,
        backbone: Backbone,
        store: MemoryStore,
        learner: TurnLearner,
        memories: MemoryCache,
        config: LocasConfig,
    ) -> None:
        self._backbone = backbone
        self._store = store
        self.learner = learner
        self._memories = memories
        self._config = config

    @property
    def fingerprint(self) -> str:
        """Of the backbone whose memories are made."""
        return self._backbone.fingerprint

    def run(
        self, requests: Sequence[ConsolidationRequest], *, progress: Progress | None = None, seed: int | None = None
    ) -> list[Consolidation | StorageError]:
        """Learn several users' turns; each is admitted or refused by itself.

        Args:
            requests: a user may stand in it once.
            progress: told of the stages; what it raises ends the round, and nothing is written.
            seed: overrides `training.seed`.

        Returns:
            For each request what became of it, or the store's refusal to write it: the others are written all the same.
        """
        with tracing.span("locas.consolidate", {"locas.users": len(requests)}) as traced:
            results = self._run(requests, progress=progress, seed=seed)
            done = [result for result in results if isinstance(result, Consolidation)]
            traced.note(
                {
                    "locas.turns": sum(result.turns for result in done),
                    "locas.admitted": sum(result.status == "admitted" for result in done),
                    "locas.refused": sum(result.status == "refused" for result in done),
                    "locas.not_written": len(results) - len(done),
                }
            )
        return results

    def _run(
        self, requests: Sequence[ConsolidationRequest], *, progress: Progress | None, seed: int | None
    ) -> list[Consolidation | StorageError]:
        waiting = [self._look(request) for request in requests]
        busy = [at for at, found in enumerate(waiting) if found.turns]
        tasks = [self.task(waiting[at].request.key, waiting[at].head, waiting[at].turns) for at in busy]
        outcomes = dict(
            zip(busy, self.learner.learn(tasks, seed=seed, progress=progress) if tasks else [], strict=True)
        )
        return [self._written(found, outcomes.get(at)) for at, found in enumerate(waiting)]

    def task(self, key: UserKey, head: Revision | None, turns: Sequence[Turn]) -> Task:
        """Return what the learner is given.

        The turns in chunks, the study items in force, the memory that learnt them.
        """
        earlier = tuple(from_record(record) for record in self._store.study_items(key))
        heard = self.learner.heard(turns)
        return Task(
            self.learner.chunks(heard),
            earlier,
            self._memories.of(key, head),
            len(turns) - len(heard),
            self._told(key, {item.turn_seq for item in earlier}),
        )

    def _told(self, key: UserKey, seqs: set[int]) -> dict[int, str]:
        """Texts of turns that are learnt already, by their number; not of those that were forgotten since."""
        turns = self._store.turns(key, after=min(seqs) - 1, upto=max(seqs)) if seqs else []
        return {turn.seq: turn.content for turn in turns if turn.seq in seqs}

    def _look(self, request: ConsolidationRequest) -> _Waiting:
        self._store.expire(request.key)
        state = self._store.state(request.key)
        if state is None:
            return _Waiting(request, None, None, ())
        head = self._store.revision(request.key, state.head) if state.head else None
        turns = self._store.turns(request.key, after=state.consolidated_seq, upto=request.upto)
        if request.upto is None and not request.flush:
            turns = window.overflow(turns, self._config.window.window_tokens)
        return _Waiting(request, state, head, tuple(turns))

    def _written(self, found: _Waiting, outcome: Outcome | None) -> Consolidation | StorageError:
        try:
            return self._write(found, outcome)
        except StorageError as error:
            return error

    def _write(self, found: _Waiting, outcome: Outcome | None) -> Consolidation:
        key, lease, count = found.request.key, found.request.lease, len(found.turns)
        if outcome is None or found.state is None:
            if lease is not None:
                self._store.queue.complete(lease, found.to_seq)
            return Consolidation("nothing", "no overflow", "every turn is learnt or still in the window", None, 0)
        admission = outcome.admission
        if not admission.admitted:
            facts = self._refusal(found, outcome)
            if lease is not None:
                self._store.queue.complete(lease, found.to_seq, refusal=facts)
            else:
                self._store.record(key, "refuse", facts)
            logger.info(
                "consolidation refused",
                extra={"action": "refuse", "reason": admission.reason, "detail": admission.detail, "turns": count},
            )
            return Consolidation("refused", admission.reason, admission.detail, None, count, outcome.metrics)
        revision = self._store.commit(key, self._draft(found, found.state, outcome), lease=lease)
        logger.info(
            "revision saved",
            extra={"action": "commit", "revision": revision.number, "detail": admission.detail, "turns": count},
        )
        return Consolidation("admitted", admission.reason, admission.detail, revision, count, outcome.metrics)

    @staticmethod
    def _refusal(found: _Waiting, outcome: Outcome) -> dict[str, Any]:
        tokens = sum(turn.token_count for turn in found.turns)
        return {
            "to_seq": found.to_seq,
            "tokens": tokens,
            "reason": outcome.admission.reason,
            "figures": outcome.metrics.as_json(),
        }

    def _draft(self, found: _Waiting, state: UserState, outcome: Outcome) -> RevisionDraft:
        return RevisionDraft(
            parent=state.head,
            fingerprint=self._backbone.fingerprint,
            config_hash=self._config.digest(),
            code_version=CODE_VERSION,
            seed=outcome.metrics.seed or 0,
            from_seq=state.consolidated_seq + 1,
            to_seq=found.to_seq,
            payload=to_bytes(outcome.memory, dtype=self._config.memory.stored_as),
            metrics=outcome.metrics.model_copy(update={"config": self._config.model_dump(mode="json")}),
            new_items=tuple(to_draft(item) for item in outcome.study_set.items),
            retired_items=tuple(sorted(outcome.study_set.retired)),
            fence=state.fence,
        )

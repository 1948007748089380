"""Moving users to another backbone, or to another shape of memory: learnt anew, compared, cut over one by one.

A user is learnt anew from the journal in a copy beside the store (`staging.py`), with the stops at which the current
memory learnt. Until the cut over, one transaction, nothing is written: the current memory serves, turns go on being
journalled, and whoever is killed leaves every user either where they were or moved. A memory that moved meanwhile is
caught up with, not begun again, unless turns were forgotten. Who has no memory because the admission gate refused what
was tried is learnt too, up to the last turn that was tried: the next backbone may read what the former could not.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from threading import Event

from locas_agent.config import LocasConfig
from locas_agent.consolidation.pending import refusals
from locas_agent.consolidation.runner import ConsolidationRequest, ConsolidationRunner, TurnLearner
from locas_agent.consolidation.staging import StagedUser, drafts, staging_store
from locas_agent.conversation.messages import question
from locas_agent.errors import RevisionConflict, RevisionNotFound, StorageError, UnknownUser, UserErased
from locas_agent.inference import Engine
from locas_agent.memory import LocasMemory, MemoryBatch
from locas_agent.memory.serialization import from_bytes
from locas_agent.memory_cache import MemoryCache
from locas_agent.results import UserUpgrade
from locas_agent.study.items import PROBE, QUESTION
from locas_agent.study.matching import same_answer
from locas_agent.types import Progress
from locas_storage import IMPORTED, InMemoryStore, MemoryStore, Revision, StudyItem, Turn, UserKey, UserState
from locas_storage.rules import lineage

logger = logging.getLogger(__name__)

TRIES = 8
"""Times that one user is caught up with before the next run has to; each takes as long as what was learnt meanwhile."""
ASKED_AT_ONCE = 64
"""Questions asked in one batch."""


class _Stopped(Exception):
    """Raised out of a round in progress; no error, somebody asked for it."""


@dataclass(slots=True)
class _Moving:
    """A user who is being moved: what was found, and the copy that is learnt."""

    state: UserState
    head: Revision | None
    """None: no memory yet, what was tried was refused."""
    turns: list[Turn]
    stops: list[int]
    staged: StagedUser
    asked_seq: int = 0
    """The last turn that was to be learnt anew so far, whether that was refused or not."""
    said: str = ""
    """What the last refusal said."""

    @property
    def key(self) -> UserKey:
        return self.state.key


@dataclass(frozen=True)
class Upgrade:
    """Moves users of a store to one backbone with one configuration.

    Attributes:
        store: where the users are.
        engine: of the backbone they move to.
        learner: on that backbone.
        config: of the new memories.
        former: engines of backbones that users may come from.
        users_at_once: users learnt side by side.
        stop: when it is set, the call ends; who was not moved is as before.
        progress: told of the stages of each round, and of "users".
    """

    store: MemoryStore
    engine: Engine
    learner: TurnLearner
    config: LocasConfig
    former: Sequence[Engine] = ()
    users_at_once: int = 8
    stop: Event = field(default_factory=Event)
    progress: Progress | None = None

    def run(self, keys: Sequence[UserKey]) -> list[UserUpgrade]:
        """Move users; who is there already is passed over.

        Returns:
            What became of each, in the order they were given.
        """
        done: dict[UserKey, UserUpgrade] = {}
        for start in range(0, len(keys), self.users_at_once):
            batch = keys[start : start + self.users_at_once]
            done |= {key: UserUpgrade(key, "stopped", "stopped") for key in keys[start:]}
            if self.stop.is_set():
                break
            for result in self._together(batch):
                done[result.key] = result
                logger.info(
                    "user upgraded",
                    extra={"action": "upgrade", "user": result.key.short_hash, "reason": result.reason},
                )
            if self.progress is not None:
                self.progress("users", min(start + self.users_at_once, len(keys)), len(keys))
        return [done[key] for key in keys]

    def undo(self, keys: Sequence[UserKey]) -> list[UserUpgrade]:
        """Take users who are on this backbone, with these settings, back to the memory that they had before.

        Each in one transaction, a rollback: what was learnt since waits to be learnt again. Who is elsewhere is passed
        over, so the call may be repeated.
        """
        return [self._back(key) for key in keys]

    def _back(self, key: UserKey) -> UserUpgrade:
        head = self.store.revision(key)
        if head is None or not self._is_here(head):
            return UserUpgrade(key, "there", "not here")
        revisions = self.store.revisions(key)
        earlier = [one.number for one in revisions if one.has_payload and not self._is_here(one)]
        if not earlier and revisions[0].restores == 0:  # moved here without one: back to none, on any backbone
            earlier = [0]
        if not earlier:
            return UserUpgrade(key, "kept", "none kept", "no memory of before is kept")
        try:
            return UserUpgrade(key, "moved", "back", revision=self.store.rollback(key, earlier[-1]).number)
        except StorageError as error:  # forgotten, pruned or erased between the two calls
            return UserUpgrade(key, "failed", type(error).__name__, str(error))

    def _together(self, keys: Sequence[UserKey]) -> list[UserUpgrade]:
        """Move some users side by side; one that breaks the round is found by moving them one by one."""
        settled: list[UserUpgrade] = []
        try:
            self._move(keys, settled)
        except _Stopped:
            pass
        except Exception as error:  # noqa: BLE001  one user must not end the run; only the error's name is kept
            name = type(error).__name__
            logger.warning("upgrade failed", extra={"action": "upgrade", "reason": name, "users": len(keys)})
            left = [key for key in keys if key not in {one.key for one in settled}]
            if len(keys) == 1:
                return [*settled, *(UserUpgrade(key, "failed", name) for key in left)]
            return settled + [result for key in left for result in self._together([key])]
        found = {one.key for one in settled}
        return settled + [UserUpgrade(key, "stopped", "stopped") for key in keys if key not in found]

    def _move(self, keys: Sequence[UserKey], settled: list[UserUpgrade]) -> None:
        """Move users, adding what becomes of each as soon as it is certain."""
        waiting = [(key, StagedUser.of(key), 0) for key in keys]
        for _ in range(TRIES):
            found = [self._look(key, staged, asked_seq) for key, staged, asked_seq in waiting]
            settled += [one for one in found if isinstance(one, UserUpgrade)]
            moving = [one for one in found if isinstance(one, _Moving)]
            staging = staging_store([one.staged for one in moving])
            self._learn(moving, staging)
            waiting = []
            for one in moving:
                self._watch("compare", 0, 1)
                result = self._settle(one, staging)
                if result is None:  # the memory moved meanwhile
                    waiting.append((one.key, one.staged, one.asked_seq))
                else:
                    settled.append(result)
            if not waiting:
                return
        settled += [
            UserUpgrade(key, "kept", "moving", "the memory moved each time; run again when the user is quiet")
            for key, _, _ in waiting
        ]

    def _look(self, key: UserKey, staged: StagedUser, asked_seq: int) -> UserUpgrade | _Moving:
        """Read a user, and copy what is new; begin the copy again if turns of it are gone."""
        self.store.expire(key)
        state, head = self.store.state(key), self.store.revision(key)
        if head is not None and not head.fingerprint:
            head = None  # taken back: any backbone may make the next
        if head is not None and (said := self._stays(key, head)) is not None:
            return said
        stops = [] if state is None else self._stops(state, head)
        if state is None or (head is None and not stops):
            return UserUpgrade(key, "nothing", "no memory", "there is no memory yet, any backbone may make one")
        upto = max([state.consolidated_seq, *stops])
        turns = self.store.turns(key, upto=upto)
        if any(turn.trust == IMPORTED for turn in turns):
            return UserUpgrade(
                key, "kept", "imported", "the memory began with an imported one, which no journal tells; import it anew"
            )
        if not staged.still_holds(turns):
            staged, asked_seq = StagedUser.of(key), 0
        staged.extend(turns, upto)
        return _Moving(state, head, turns, [stop for stop in stops if stop > asked_seq], staged, asked_seq)

    def _stays(self, key: UserKey, head: Revision) -> UserUpgrade | None:
        """Say why a memory is left where it is, before anything is learnt; None if it may be moved."""
        if self._is_here(head):
            return UserUpgrade(key, "there", "moved before", revision=head.number)
        if not head.has_payload or self._engine_of(head) is not None:
            return None
        return UserUpgrade(
            key,
            "kept",
            "unknown backbone",
            f"the memory belongs to the backbone with fingerprint {head.fingerprint[:12]}, which is not at hand to "
            "compare with; name it",
        )

    def _stops(self, state: UserState, head: Revision | None) -> list[int]:
        """Return the last turns of the consolidations that made a memory; without one, of those that were refused."""
        if head is None:
            return sorted({refused["to_seq"] for refused in refusals(self.store, state)})
        line = lineage.learnt_line(self.store.revisions(state.key), head.number)
        return sorted(({one.to_seq for one in line} | {state.consolidated_seq}) - {0})

    def _learn(self, moving: Sequence[_Moving], staging: InMemoryStore) -> None:
        """Learn each up to all stops, those that have a stop left side by side."""
        backbone = self.engine.backbone
        runner = ConsolidationRunner(backbone, staging, self.learner, MemoryCache(backbone, staging), self.config)
        while under_way := [one for one in moving if one.stops]:
            requests = [ConsolidationRequest(one.key, upto=one.stops.pop(0)) for one in under_way]
            for one, request, result in zip(
                under_way, requests, runner.run(requests, progress=self._watch), strict=True
            ):
                if isinstance(result, StorageError):
                    raise result
                one.asked_seq = request.upto or 0
                one.said = result.detail if result.status == "refused" else ""

    def _settle(self, one: _Moving, staging: InMemoryStore) -> UserUpgrade | None:
        """Compare both memories and cut over if the new one recalls as much; None if the old one moved meanwhile."""
        if one.staged.learnt_seq < max(one.state.consolidated_seq, one.head is None):
            return UserUpgrade(one.key, "kept", "not learnt", one.said)
        try:
            made = self._compared(one, staging)
            if made.status == "kept":
                return made
            revision = self.store.cut_over(
                one.key,
                drafts(staging, one.key),
                fingerprint=self.engine.backbone.fingerprint,
                fence=one.state.fence,
            )
        except (RevisionConflict, RevisionNotFound):  # not found: what it saw was forgotten
            return None
        except (UnknownUser, UserErased) as error:
            return UserUpgrade(one.key, "nothing", type(error).__name__)
        return replace(made, revision=revision.number)

    def _compared(self, one: _Moving, staging: InMemoryStore) -> UserUpgrade:
        """Ask both memories what either was asked in study, each on its backbone; keep who would recall less."""
        studied = [*self.store.study_items(one.key), *staging.study_items(one.key)]
        items = [item for item in studied if item.kind in (QUESTION, PROBE)]
        head, new = one.head, staging.revision(one.key)
        before = after = None
        if head is not None and head.has_payload and (old := self._engine_of(head)) is not None:
            tokens = self.config.window.max_new_tokens
            before = recall(old, _memory(self.store, one.key, head, old), items, tokens)
            after = recall(self.engine, _memory(staging, one.key, new, self.engine), items, tokens)
        made = UserUpgrade(one.key, "moved", "moved", "", before, after, len(items))
        lost, most = (before or 0.0) - (after or 0.0), self.config.admission.max_old_loss
        if lost <= most:
            return made
        detail = f"recall would fall by {lost:.3f}, at most {most} is allowed (admission.max_old_loss)"
        return replace(made, status="kept", reason="recalls less", detail=detail)

    def _is_here(self, revision: Revision) -> bool:
        """Tell whether a revision belongs to this backbone and, as far as it says so, has the settings' shape."""
        if revision.fingerprint != self.engine.backbone.fingerprint:
            return False
        shape = (revision.metrics.config or {}).get("memory")
        wanted = self.config.memory.model_dump(mode="json", include={"width", "layers"})
        return shape is None or {name: shape.get(name) for name in wanted} == wanted

    def _engine_of(self, revision: Revision) -> Engine | None:
        return next(
            (one for one in (*self.former, self.engine) if one.backbone.fingerprint == revision.fingerprint), None
        )

    def _watch(self, stage: str, done: int, total: int) -> None:
        if self.stop.is_set():
            raise _Stopped
        if self.progress is not None:
            self.progress(stage, done, total)


def recall(engine: Engine, memory: LocasMemory | None, items: Sequence[StudyItem], max_new_tokens: int) -> float | None:
    """Return how many study questions a memory answers by itself, on its own backbone, 0 to 1; None without any.

    Backbones word one answer differently: an answer counts that agrees with the item's, by its words. Held-out wordings
    and trained ones weigh the same where there are both, as for the admission gate.

    Args:
        engine: of the memory's backbone.
        memory: None is the bare backbone.
        items: questions and probes, of any backbone.
        max_new_tokens: longest answer, in tokens.
    """
    hits: dict[bool, list[bool]] = {}
    for start in range(0, len(items), ASKED_AT_ONCE):
        chunk = items[start : start + ASKED_AT_ONCE]
        for item, said in zip(chunk, _answers(engine, memory, chunk, max_new_tokens), strict=True):
            hits.setdefault(item.kind == PROBE, []).append(same_answer(item.answer, said))
    shares = [sum(group) / len(group) for group in hits.values()]
    return sum(shares) / len(shares) if shares else None


def _answers(engine: Engine, memory: LocasMemory | None, items: Sequence[StudyItem], max_new_tokens: int) -> list[str]:
    """Return what a memory answers to some questions; nothing to one that its backbone cannot take in."""
    prompts = [engine.backbone.encode_chat(question(item.question)) for item in items]
    fitting = [at for at, prompt in enumerate(prompts) if len(prompt) < engine.backbone.context_tokens]
    said = [""] * len(items)
    if fitting:
        batch = None if memory is None else MemoryBatch.of([memory], engine.backbone, rows_per_memory=len(fitting))
        made = engine.generate([prompts[at] for at in fitting], memory=batch, max_new_tokens=max_new_tokens)
        for at, answer in zip(fitting, made, strict=True):
            said[at] = engine.backbone.decode(answer.ids)
    return said


def _memory(store: MemoryStore, key: UserKey, revision: Revision | None, engine: Engine) -> LocasMemory | None:
    if revision is None or not revision.has_payload:
        return None
    return from_bytes(store.payload(key, revision.number), expect_fingerprint=engine.backbone.fingerprint)

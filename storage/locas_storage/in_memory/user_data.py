"""Owns `UserData`: everything of one user of an `InMemoryStore`, and what one change does to it."""

import datetime as dt
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from locas_storage.records.bounds import new_item_id
from locas_storage.records.jobs import Job, Lease
from locas_storage.records.metrics import ConsolidationMetrics
from locas_storage.records.receipts import CorrectedTurn, Receipt
from locas_storage.records.revisions import Revision, RevisionDraft, StudyItem
from locas_storage.records.turns import IMPORTED, AuditAction, AuditEntry, Turn, TurnDraft, UserState
from locas_storage.rules import commit, lineage


@dataclass(slots=True)
class OpenJob:
    """The one open job of a user."""

    job_id: str
    to_seq: int
    stops: tuple[int, ...]
    run_after: dt.datetime
    attempts: int = 0
    lease: Lease | None = None
    lease_until: dt.datetime | None = None
    reason: str | None = None

    def is_due(self, now: dt.datetime) -> bool:
        """Tell whether it may be claimed."""
        return self.run_after <= now if self.lease_until is None else self.lease_until <= now

    def put_back(self, *, run_after: dt.datetime | None = None) -> None:
        """Make it claimable by anybody."""
        self.lease = self.lease_until = None
        self.run_after = run_after or self.run_after


@dataclass(slots=True)
class UserData:
    """What belongs to one user."""

    state: UserState
    turns: list[Turn] = field(default_factory=list)
    by_key: dict[str, Turn] = field(default_factory=dict)
    revisions: list[Revision] = field(default_factory=list)
    payloads: dict[str, bytes] = field(default_factory=dict)
    items: dict[str, StudyItem] = field(default_factory=dict)
    in_force: dict[int, frozenset[str]] = field(default_factory=lambda: {0: frozenset()})
    """Per revision, the study items in force at it."""
    audit: list[tuple[AuditEntry, str]] = field(default_factory=list)
    is_erased: bool = False
    job: OpenJob | None = None
    dead: Job | None = None
    """The last dead letter."""

    def shown_turns(self) -> list[Turn]:
        """Return the turns that may be read."""
        now = utc_now()
        return [
            turn for turn in self.turns if not turn.is_forgotten and (turn.expires_at is None or turn.expires_at > now)
        ]

    def add(self, draft: TurnDraft, *, idempotency_key: str, now: dt.datetime) -> Turn:
        """Add a turn to the journal."""
        added = commit.new_turn(draft, seq=self.state.next_seq, idempotency_key=idempotency_key, created_at=now)
        self.by_key[idempotency_key] = added
        self.turns.append(added)
        self.state = replace(self.state, next_seq=added.seq + 1)
        return added

    def expired(self) -> list[int]:
        """Return the turns whose time is over."""
        now = utc_now()
        return [turn.seq for turn in self.turns if turn.expires_at is not None and turn.expires_at <= now]

    def holds(self, lease: Lease) -> bool:
        """Tell whether a lease is the one that holds the open job."""
        return (
            self.job is not None
            and self.job.lease is not None
            and (self.job.job_id, self.job.lease.fence) == (lease.job_id, lease.fence)
        )

    def revision(self, number: int) -> Revision:
        """Return one revision."""
        if not 0 < number <= len(self.revisions):
            raise commit.not_found(self.state.key, number)
        return self.revisions[number - 1]

    def make_current(self, revision: Revision, in_force: frozenset[str]) -> None:
        """Add a revision as the current one, with the study items that are in force at it."""
        before = self.in_force[self.state.head]
        for item_id in before - in_force:
            self.items[item_id] = replace(self.items[item_id], retired_rev=revision.number)
        for item_id in in_force - before:
            self.items[item_id] = replace(self.items[item_id], retired_rev=None)
        self.in_force[revision.number] = in_force
        self.revisions.append(revision)
        self.state = replace(
            self.state, head=revision.number, consolidated_seq=revision.to_seq, fence=self.state.fence + 1
        )

    def is_learnt_on(self, backbone: str | None) -> bool:
        """Tell whether the current revision belongs to a backbone, or to none; to any where None is asked for."""
        current = self.revision(self.state.head).fingerprint if self.state.head else ""
        return backbone is None or current in ("", backbone)

    def check_items(self, drafts: Sequence[RevisionDraft]) -> None:
        """Refuse new study items under ids that are in use."""
        taken = sum(item.item_id in self.items for draft in drafts for item in draft.new_items)
        if taken:
            raise commit.stale_items(taken, "new under an id that is in use")

    def learn(self, draft: RevisionDraft) -> Revision:
        """Make a draft that was checked the current revision."""
        digest = hashlib.sha256(draft.payload).hexdigest()
        number = len(self.revisions) + 1
        span = self.turns[draft.from_seq - 1 : draft.to_seq]
        saved = Revision(
            number=number,
            parent=draft.parent,
            restores=None,
            fingerprint=draft.fingerprint,
            config_hash=draft.config_hash,
            code_version=draft.code_version,
            seed=draft.seed,
            from_seq=draft.from_seq,
            to_seq=draft.to_seq,
            turns_sha256=commit.turns_digest(hashlib.sha256(turn.content.encode()).digest() for turn in span),
            payload_sha256=digest,
            payload_bytes=len(draft.payload),
            metrics=draft.metrics,
            state="live",
            created_at=utc_now(),
        )
        self.payloads[digest] = draft.payload
        for item in draft.new_items:
            self.items[item.item_id] = commit.kept_item(item, number)
        added = {item.item_id for item in draft.new_items}
        self.make_current(saved, (self.in_force[draft.parent] | added) - set(draft.retired_items))
        return saved

    def raise_fence(self) -> None:
        """Overtake callers that read the counters before."""
        self.state = replace(self.state, fence=self.state.fence + 1)

    def prune(self, keep: int) -> None:
        """Give up all payloads but the newest, and those of imported memories."""
        newest_first = [
            one.payload_sha256 for one in reversed(self.revisions) if one.payload_sha256 is not None and one.is_kept
        ]
        imported = {turn.seq for turn in self.turns if turn.trust == IMPORTED}
        alone = {one.payload_sha256 for one in self.revisions if one.from_seq == one.to_seq and one.to_seq in imported}
        ends = lineage.line_heads(
            (one.number, one.restores, one.payload_sha256 if one.is_kept else None) for one in self.revisions
        )
        gone = commit.beyond_kept(newest_first, keep) - alone - ends
        self.revisions = [replace(one, state="pruned") if one.payload_sha256 in gone else one for one in self.revisions]
        for digest in gone:
            del self.payloads[digest]

    def record(self, action: AuditAction, facts: Mapping[str, Any]) -> tuple[AuditEntry, str]:
        """Add a line to the audit trail, and return it with its digest."""
        entry = AuditEntry(len(self.audit) + 1, action, facts, utc_now())
        previous = self.audit[-1][1] if self.audit else commit.FIRST_PREVIOUS
        self.audit.append((entry, commit.audit_digest(self.state.key, previous, entry)))
        return self.audit[-1]

    def enqueue(self, to_seq: int, stops: Sequence[int] = ()) -> None:
        """Ask for turns to be learnt; see `JobQueue.enqueue`."""
        to_seq = min(to_seq, self.state.next_seq - 1)
        if to_seq <= self.state.consolidated_seq:
            return
        if self.job is None:
            self.job = OpenJob(new_item_id(), to_seq, tuple(stops), utc_now())
        self.job.to_seq = max(self.job.to_seq, to_seq)

    def pending_tokens(self, to_seq: int) -> int:
        """Return the tokens of the turns that are not learnt up to a number."""
        return sum(turn.token_count for turn in self.turns if self.state.consolidated_seq < turn.seq <= to_seq)

    def complete(self, lease: Lease, to_seq: int) -> None:
        """End the job of a held lease; see `JobQueue.complete`."""
        assert self.job is not None
        if to_seq < lease.to_seq:
            return
        asked, self.job = self.job.to_seq, None
        if asked > lease.to_seq:
            self.enqueue(asked)

    def mark_dead(self, reason: str) -> None:
        """Make the open job a dead letter."""
        job = self.job
        assert job is not None
        self.dead = Job(self.state.key, job.job_id, "dead", job.to_seq, bool(job.stops), job.attempts, reason)
        self.job = None
        tokens = self.pending_tokens(job.to_seq)
        self.record("refuse", {"reason": reason, "to_seq": job.to_seq, "tokens": tokens, "attempts": job.attempts})

    def forget(self, seqs: Sequence[int], why: str) -> Receipt:
        """Remove turns and what was learnt from them; see `MemoryStore.forget`."""
        removed = [seq for seq in seqs if not self.turns[seq - 1].is_forgotten]
        for seq in removed:
            old = self.turns[seq - 1]
            bare: dict[str, Any] = {
                "content": "",
                "name": None,
                "session": None,
                "at": old.created_at,
                "trust": "user",
                "token_count": 0,
                "expires_at": None,
                "offset_seconds": 0,
                "learn": True,
            }
            self.turns[seq - 1] = self.by_key[old.idempotency_key] = replace(old, **bare, is_forgotten=True)
        open_stops, asked = (self.job.stops, self.job.to_seq) if self.job is not None else ((), 0)
        plan = lineage.plan(self.revisions, self.state.head, removed, open_stops)
        gone_items = {item.item_id for item in self.items.values() if item.added_rev in plan.purged}
        self.items = {item_id: item for item_id, item in self.items.items() if item_id not in gone_items}
        self.in_force = {number: ids - gone_items for number, ids in self.in_force.items()}
        gone: Mapping[str, bytes] = {}
        rebuild = 0
        if removed:
            gone = self._purge(plan)
            self.job = None
            waiting = tuple(stop for stop in plan.stops if stop > self.state.consolidated_seq)
            self.enqueue(max([asked, *waiting]), waiting)
            rebuild = waiting[-1] if waiting else 0
        return self._receipt("forget", why, removed, plan.purged, len(gone_items), gone, self.state.head, rebuild)

    def correct(self, seq: int, draft: TurnDraft) -> CorrectedTurn:
        """Replace a turn; see `MemoryStore.correct`."""
        old = self.turns[seq - 1]
        if old not in self.shown_turns():
            raise lineage.not_correctable(self.state.key, seq)
        receipt = self.forget([seq], "corrected")
        left = self.turns[seq - 1] = replace(self.turns[seq - 1], idempotency_key=new_item_id())
        self.by_key[left.idempotency_key] = left
        return CorrectedTurn.of(self.add(draft, idempotency_key=old.idempotency_key, now=utc_now()), receipt)

    def erase(self) -> Receipt:
        """Remove everything but the audit trail; see `MemoryStore.erase`."""
        turns, numbers, n_items = range(1, self.state.next_seq), [one.number for one in self.revisions], len(self.items)
        gone, why = self.payloads, "again" if self.is_erased else "asked"
        self.turns, self.by_key, self.revisions, self.payloads, self.items = [], {}, [], {}, {}
        self.in_force, self.job, self.dead, self.is_erased = {0: frozenset()}, None, None, True
        fence, epoch = self.state.fence + 1, self.state.epoch + 1
        self.state = replace(self.state, next_seq=1, head=0, consolidated_seq=0, fence=fence, epoch=epoch)
        return self._receipt("erase", why, turns, numbers, n_items, gone, 0, 0)

    def _purge(self, plan: lineage.ForgetPlan) -> dict[str, bytes]:
        """Make the base of a plan current, purge what saw the turns, and return the payloads that are gone."""
        if plan.base is None:
            self.raise_fence()
        else:
            base = self.revision(plan.base) if plan.base else None
            made = commit.restoring(
                base,
                number=len(self.revisions) + 1,
                parent=self.state.head,
                created_at=utc_now(),
                fingerprint=self.revision(self.state.head).fingerprint,
            )
            self.make_current(made, self.in_force[plan.base])
        bare: dict[str, Any] = {
            "state": lineage.ERASED,
            "payload_sha256": None,
            "payload_bytes": 0,
            "turns_sha256": "",
            "metrics": ConsolidationMetrics(),
        }
        self.revisions = [replace(one, **bare) if one.number in plan.purged else one for one in self.revisions]
        named = {one.payload_sha256 for one in self.revisions if one.is_kept}
        gone = {digest: stored for digest, stored in self.payloads.items() if digest not in named}
        self.payloads = {digest: stored for digest, stored in self.payloads.items() if digest in named}
        return gone

    def _receipt(
        self,
        action: Literal["forget", "erase"],
        why: str,
        turns: Sequence[int],
        purged: Sequence[int],
        n_items: int,
        gone: Mapping[str, bytes],
        head: int,
        rebuild: int,
    ) -> Receipt:
        facts = {
            "why": why,
            "turns": len(turns),
            "revisions": list(purged),
            "study_items": n_items,
            "payloads": len(gone),
            "head": head,
            "rebuild_to_seq": rebuild,
        }
        entry, digest = self.record(action, facts)
        return Receipt(
            action=action,
            turns=tuple(turns),
            revisions=tuple(purged),
            study_items=n_items,
            payloads=tuple(sorted(gone)),
            payload_bytes=sum(map(len, gone.values())),
            head=head,
            rebuild_to_seq=rebuild,
            audit_sha256=digest,
            at=entry.created_at,
            is_overwritten=True,
        )


def utc_now() -> dt.datetime:
    """Return the time by this process's clock, the only one there is."""
    return dt.datetime.now(dt.UTC)

"""Owns `InMemoryStore`: the contract over dictionaries, for tests and trials.

Knows nothing of SQL; nothing outlives the process.
"""

import datetime as dt
import hashlib
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from locas_storage import rules
from locas_storage.records import (
    AuditEntry,
    Revision,
    RevisionDraft,
    StudyItem,
    Turn,
    TurnDraft,
    UserKey,
    UserState,
    new_item_id,
    plain_json,
)


@dataclass(slots=True)
class _Shelf:
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

    def revision(self, number: int) -> Revision:
        if not 0 < number <= len(self.revisions):
            raise rules.not_found(self.state.key, number)
        return self.revisions[number - 1]

    def make_current(self, revision: Revision, in_force: frozenset[str]) -> None:
        before = self.in_force[self.state.head]
        for item_id in before - in_force:
            self.items[item_id] = replace(self.items[item_id], retired_rev=revision.number)
        for item_id in in_force - before:
            self.items[item_id] = replace(self.items[item_id], retired_rev=None)
        self.in_force[revision.number] = in_force
        self.revisions.append(revision)
        self.state = replace(self.state, head=revision.number, consolidated_seq=revision.to_seq, fence=self.state.fence + 1)

    def record(self, action: str, facts: Mapping[str, Any]) -> None:
        entry = AuditEntry(len(self.audit) + 1, action, facts, _now())
        previous = self.audit[-1][1] if self.audit else rules.FIRST_PREVIOUS
        self.audit.append((entry, rules.audit_digest(self.state.key, previous, entry)))


class InMemoryStore:
    """A `MemoryStore` in this process's memory."""

    def __init__(self) -> None:
        self._shelves: dict[UserKey, _Shelf] = {}
        self._lock = threading.RLock()

    def append(self, key: UserKey, drafts: Sequence[TurnDraft]) -> list[Turn]:
        """See `MemoryStore.append`."""
        if not drafts:
            return []
        with self._lock:
            now = _now()
            shelf = self._shelves.setdefault(key, _Shelf(UserState(key, 1, 0, 0, 0, 0, now)))
            answered = []
            for draft in drafts:
                idem_key = draft.key or new_item_id()
                if idem_key not in shelf.by_key:
                    added = rules.new_turn(draft, seq=shelf.state.next_seq, key=idem_key, created_at=now)
                    shelf.by_key[idem_key] = added
                    shelf.turns.append(added)
                    shelf.state = replace(shelf.state, next_seq=added.seq + 1)
                answered.append(shelf.by_key[idem_key])
            return answered

    def turns(self, key: UserKey, *, after: int = 0, upto: int | None = None, newest: int | None = None) -> list[Turn]:
        """See `MemoryStore.turns`."""
        rules.check_newest(newest)
        with self._lock:
            shelf = self._shelves.get(key)
            found = [turn for turn in shelf.turns if turn.seq > after and (upto is None or turn.seq <= upto)] if shelf else []
            return found if newest is None else found[max(0, len(found) - newest) :]

    def state(self, key: UserKey) -> UserState | None:
        """See `MemoryStore.state`."""
        with self._lock:
            shelf = self._shelves.get(key)
            return shelf.state if shelf else None

    def users(self, tenant: str | None = None) -> list[UserKey]:
        """See `MemoryStore.users`."""
        rules.check_tenant(tenant)
        with self._lock:
            found = [key for key in self._shelves if tenant is None or key.tenant == tenant]
        return sorted(found, key=lambda key: (key.tenant, key.user))

    def study_items(self, key: UserKey, *, with_retired: bool = False) -> list[StudyItem]:
        """See `MemoryStore.study_items`."""
        with self._lock:
            shelf = self._shelves.get(key)
            return [item for item in shelf.items.values() if with_retired or item.retired_rev is None] if shelf else []

    def commit(self, key: UserKey, draft: RevisionDraft) -> Revision:
        """See `MemoryStore.commit`."""
        with self._lock:
            shelf = self._of(key)
            rules.check_follows(draft, shelf.state)
            in_force = shelf.in_force[shelf.state.head]
            taken = sum(item.item_id in shelf.items for item in draft.new_items)
            if taken:
                raise rules.stale_items(taken, "new under an id that is in use")
            lacking = len(set(draft.retired_items) - in_force)
            if lacking:
                raise rules.stale_items(lacking, "to be retired but not in force")
            digest = hashlib.sha256(draft.payload).hexdigest()
            number = len(shelf.revisions) + 1
            span = shelf.turns[draft.from_seq - 1 : draft.to_seq]
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
                turns_sha256=rules.turns_digest(hashlib.sha256(turn.content.encode()).digest() for turn in span),
                payload_sha256=digest,
                payload_bytes=len(draft.payload),
                metrics=draft.metrics,
                state="live",
                created_at=_now(),
            )
            shelf.payloads[digest] = draft.payload
            for item in draft.new_items:
                shelf.items[item.item_id] = rules.kept_item(item, number)
            added = {item.item_id for item in draft.new_items}
            shelf.make_current(saved, (in_force | added) - set(draft.retired_items))
            return saved

    def revisions(self, key: UserKey) -> list[Revision]:
        """See `MemoryStore.revisions`."""
        with self._lock:
            shelf = self._shelves.get(key)
            return list(shelf.revisions) if shelf else []

    def revision(self, key: UserKey, number: int | None = None) -> Revision | None:
        """See `MemoryStore.revision`."""
        with self._lock:
            shelf = self._shelves.get(key)
            if number is not None:
                if shelf is None:
                    raise rules.not_found(key, number)
                return shelf.revision(number)
            return shelf.revision(shelf.state.head) if shelf and shelf.state.head else None

    def payload(self, key: UserKey, number: int) -> bytes:
        """See `MemoryStore.payload`."""
        with self._lock:
            saved = self.revision(key, number)
            assert saved is not None
            if saved.payload_sha256 is None:
                raise rules.no_payload(key, number)
            data = self._shelves[key].payloads[saved.payload_sha256]
            return rules.checked(f"payload of revision {number}", data, size=saved.payload_bytes, sha256=saved.payload_sha256)

    def rollback(self, key: UserKey, number: int) -> Revision:
        """See `MemoryStore.rollback`."""
        with self._lock:
            shelf = self._of(key)
            head = shelf.state.head
            restored = None if number == 0 and head else shelf.revision(number)
            if restored is not None and number == head:
                return restored
            made = rules.restoring(restored, number=len(shelf.revisions) + 1, parent=head, created_at=_now())
            facts = rules.revert_facts(shelf.state, number, made.number)
            shelf.make_current(made, shelf.in_force[number])
            shelf.record("revert", facts)
            return made

    def record(self, key: UserKey, action: str, facts: Mapping[str, Any]) -> None:
        """See `MemoryStore.record`."""
        rules.check_action(action)
        plain = plain_json("facts", facts)
        with self._lock:
            self._of(key).record(action, plain)

    def audit(self, key: UserKey) -> list[AuditEntry]:
        """See `MemoryStore.audit`."""
        with self._lock:
            shelf = self._shelves.get(key)
            entries = list(shelf.audit) if shelf else []
        rules.check_audit(key, entries)
        return [entry for entry, _ in entries]

    def close(self) -> None:
        """Do nothing: there is no connection to let go of."""

    def _of(self, key: UserKey) -> _Shelf:
        shelf = self._shelves.get(key)
        rules.require_user(shelf.state if shelf else None, key)
        assert shelf is not None
        return shelf


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)

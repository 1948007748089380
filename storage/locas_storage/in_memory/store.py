"""Owns `InMemoryStore`: the contract over dictionaries, for tests and trials.

Knows nothing of SQL; nothing outlives the process.
"""

import hashlib
import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from locas_storage.in_memory.queue import InMemoryQueue
from locas_storage.in_memory.user_data import Shelf, utc_now
from locas_storage.records.bounds import check_query, new_item_id, plain_json
from locas_storage.records.jobs import Lease
from locas_storage.records.receipts import CorrectedTurn, Receipt
from locas_storage.records.revisions import Revision, RevisionDraft, StudyItem
from locas_storage.records.turns import AuditEntry, FoundTurn, Turn, TurnDraft, UserKey, UserState
from locas_storage.rules import commit, lineage, queue, ranking


class InMemoryStore:
    """A `MemoryStore` in this process's memory.

    Args:
        keep_payloads: how many different payloads of a user are kept, the newest; revisions beyond them are pruned.

    Raises:
        InvalidRevision: `keep_payloads` is less than 1.
    """

    def __init__(self, *, keep_payloads: int = commit.KEEP_PAYLOADS) -> None:
        commit.check_keep(keep_payloads)
        self._keep_payloads = keep_payloads
        self._shelves: dict[UserKey, Shelf] = {}
        self._lock = threading.RLock()
        self.queue = InMemoryQueue(self._shelves, self._of, self._lock)

    def append(self, key: UserKey, drafts: Sequence[TurnDraft], *, enqueue: int | None = None) -> list[Turn]:
        """See `MemoryStore.append`."""
        if not drafts:
            return []
        with self._lock:
            now = utc_now()
            self._shelves.setdefault(key, Shelf(UserState(key, 1, 0, 0, 0, 0, now)))
            shelf = self._of(key)
            answered = []
            for draft in drafts:
                idem_key = draft.key or new_item_id()
                if idem_key not in shelf.by_key:
                    shelf.add(draft, key=idem_key, now=now)
                answered.append(shelf.by_key[idem_key])
            if enqueue is not None:
                shelf.ask(enqueue)
            return answered

    def turns(self, key: UserKey, *, after: int = 0, upto: int | None = None, newest: int | None = None) -> list[Turn]:
        """See `MemoryStore.turns`."""
        commit.check_newest(newest)
        with self._lock:
            shelf = self._shelves.get(key)
            found = (
                [turn for turn in shelf.shown_turns() if turn.seq > after and (upto is None or turn.seq <= upto)]
                if shelf
                else []
            )
            return found if newest is None else found[max(0, len(found) - newest) :]

    def known(self, key: UserKey, idem_keys: Iterable[str]) -> list[Turn]:
        """See `MemoryStore.known`."""
        with self._lock:
            shelf = self._shelves.get(key)
            found = (
                [shelf.by_key[one] for one in commit.possible_keys(idem_keys) if one in shelf.by_key] if shelf else []
            )
        return sorted(found, key=lambda one: one.seq)

    def search(self, key: UserKey, text: str, *, limit: int = 10) -> list[FoundTurn]:
        """See `MemoryStore.search`."""
        check_query(text, limit)
        wanted = ranking.query_words(text)
        with self._lock:
            state, found = self.state(key), ranking.sharing(self.turns(key), wanted)
        return ranking.rank(wanted, found, turns=state.turns, limit=limit) if state else []

    def state(self, key: UserKey) -> UserState | None:
        """See `MemoryStore.state`."""
        with self._lock:
            shelf = self._shelves.get(key)
            return shelf.state if shelf and not shelf.is_erased else None

    def users(self, tenant: str | None = None) -> list[UserKey]:
        """See `MemoryStore.users`."""
        commit.check_tenant(tenant)
        with self._lock:
            found = [
                key for key, shelf in self._shelves.items() if not shelf.is_erased and tenant in (None, key.tenant)
            ]
        return sorted(found, key=lambda key: (key.tenant, key.user))

    def study_items(self, key: UserKey, *, with_retired: bool = False) -> list[StudyItem]:
        """See `MemoryStore.study_items`."""
        with self._lock:
            shelf = self._shelves.get(key)
            return [item for item in shelf.items.values() if with_retired or item.retired_rev is None] if shelf else []

    def commit(self, key: UserKey, draft: RevisionDraft, *, lease: Lease | None = None) -> Revision:
        """See `MemoryStore.commit`."""
        with self._lock:
            shelf = self._of(key)
            if lease is not None and not shelf.holds(lease):
                raise queue.lost(lease)
            commit.check_follows(draft, shelf.state)
            in_force = shelf.in_force[shelf.state.head]
            taken = sum(item.item_id in shelf.items for item in draft.new_items)
            if taken:
                raise commit.stale_items(taken, "new under an id that is in use")
            lacking = len(set(draft.retired_items) - in_force)
            if lacking:
                raise commit.stale_items(lacking, "to be retired but not in force")
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
                turns_sha256=commit.turns_digest(hashlib.sha256(turn.content.encode()).digest() for turn in span),
                payload_sha256=digest,
                payload_bytes=len(draft.payload),
                metrics=draft.metrics,
                state="live",
                created_at=utc_now(),
            )
            shelf.payloads[digest] = draft.payload
            for item in draft.new_items:
                shelf.items[item.item_id] = commit.kept_item(item, number)
            added = {item.item_id for item in draft.new_items}
            shelf.make_current(saved, (in_force | added) - set(draft.retired_items))
            shelf.prune(self._keep_payloads)
            if lease is not None:
                shelf.settle(lease, draft.to_seq)
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
                    raise commit.not_found(key, number)
                return shelf.revision(number)
            return shelf.revision(shelf.state.head) if shelf and shelf.state.head else None

    def payload(self, key: UserKey, number: int) -> bytes:
        """See `MemoryStore.payload`."""
        with self._lock:
            saved = self.revision(key, number)
            assert saved is not None
            if saved.payload_sha256 is None or not saved.is_kept:
                raise commit.no_payload(key, number)
            data = self._shelves[key].payloads[saved.payload_sha256]
            return commit.checked(
                f"payload of revision {number}", data, size=saved.payload_bytes, sha256=saved.payload_sha256
            )

    def rollback(self, key: UserKey, number: int) -> Revision:
        """See `MemoryStore.rollback`."""
        with self._lock:
            shelf = self._of(key)
            head = shelf.state.head
            restored = None if number == 0 and head else shelf.revision(number)
            if restored is not None and number == head:
                return restored
            if restored is not None:
                commit.require_kept(restored, key)
            made = commit.restoring(restored, number=len(shelf.revisions) + 1, parent=head, created_at=utc_now())
            facts = commit.revert_facts(shelf.state, number, made.number)
            shelf.make_current(made, shelf.in_force[number])
            shelf.record("revert", facts)
            return made

    def forget(self, key: UserKey, turns: Iterable[int]) -> Receipt:
        """See `MemoryStore.forget`."""
        with self._lock:
            shelf = self._of(key)
            return shelf.forget(lineage.check_forgettable(key, turns, shelf.state), "asked")

    def correct(self, key: UserKey, turn: int, draft: TurnDraft) -> CorrectedTurn:
        """See `MemoryStore.correct`."""
        with self._lock:
            shelf = self._of(key)
            (seq,) = lineage.check_forgettable(key, [turn], shelf.state)
            return shelf.correct(seq, draft)

    def erase(self, key: UserKey) -> Receipt:
        """See `MemoryStore.erase`."""
        with self._lock:
            return self._shelf(key).erase()

    def begin_again(self, key: UserKey) -> None:
        """See `MemoryStore.begin_again`."""
        with self._lock:
            self._shelf(key).is_erased = False

    def expire(self, key: UserKey | None = None) -> dict[UserKey, Receipt]:
        """See `MemoryStore.expire`."""
        with self._lock:
            due = {whose: shelf.expired() for whose, shelf in self._shelves.items() if key in (None, whose)}
            return {whose: self._shelves[whose].forget(seqs, "expired") for whose, seqs in due.items() if seqs}

    def record(self, key: UserKey, action: str, facts: Mapping[str, Any]) -> None:
        """See `MemoryStore.record`."""
        commit.check_action(action)
        plain = plain_json("facts", facts)
        with self._lock:
            self._of(key).record(action, plain)

    def audit(self, key: UserKey) -> list[AuditEntry]:
        """See `MemoryStore.audit`."""
        with self._lock:
            shelf = self._shelves.get(key)
            entries = list(shelf.audit) if shelf else []
        commit.check_audit(key, entries)
        return [entry for entry, _ in entries]

    def close(self) -> None:
        """Do nothing: there is no connection to let go of."""

    def _of(self, key: UserKey) -> Shelf:
        shelf = self._shelf(key)
        if shelf.is_erased:
            raise commit.erased(key)
        return shelf

    def _shelf(self, key: UserKey) -> Shelf:
        """Return what belongs to a user, a tombstone included."""
        shelf = self._shelves.get(key)
        commit.require_user(shelf.state if shelf else None, key)
        assert shelf is not None
        return shelf

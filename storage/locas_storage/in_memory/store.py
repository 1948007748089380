"""`InMemoryStore`: the contract over dictionaries, for tests, trials, and stores that keep a user in one piece."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from locas_storage.in_memory.api_keys import InMemoryApiKeys
from locas_storage.in_memory.queue import InMemoryQueue
from locas_storage.in_memory.user_data import UserData, utc_now
from locas_storage.in_memory.users import Save, Users
from locas_storage.records.bounds import check_query, new_item_id, plain_json
from locas_storage.records.jobs import Lease
from locas_storage.records.receipts import CorrectedTurn, Receipt
from locas_storage.records.revisions import Revision, RevisionDraft, StudyItem
from locas_storage.records.turns import AuditEntry, FoundTurn, Turn, TurnDraft, UserKey, UserState
from locas_storage.rules import commit, lineage, queue, ranking


class InMemoryStore:
    """A `MemoryStore` in this process's memory. One process may use it, from several threads.

    With `kept` and `save` it is a store for any place that can hold one user in one piece, such as a file or an object
    of a bucket: give what was saved, and save what changes. API keys are no user's and stay in this process.

    Args:
        keep_payloads: how many different payloads of a user are kept, the newest, beside the last one of each line;
            other revisions are pruned.
        kept: everything of each user that an earlier process saved.
        save: called with everything of a user after each change, before the call that made it returns. What it raises
            is raised by the call; the change then stands in this process, and is saved with the next one.

    Raises:
        InvalidRevision: `keep_payloads` is less than 1.
    """

    def __init__(
        self,
        *,
        keep_payloads: int = commit.KEEP_PAYLOADS,
        kept: Iterable[UserData] = (),
        save: Save | None = None,
    ) -> None:
        commit.check_keep(keep_payloads)
        self._keep_payloads = keep_payloads
        self._users = Users(kept, save)
        self.queue = InMemoryQueue(self._users)
        self.api_keys = InMemoryApiKeys()

    def append(self, key: UserKey, drafts: Sequence[TurnDraft], *, enqueue: int | None = None) -> list[Turn]:
        """See `MemoryStore.append`."""
        if not drafts:
            return []
        with self._users.changing(key):
            now = utc_now()
            self._users.of.setdefault(key, UserData(UserState(key, 1, 0, 0, 0, 0, now)))
            data = self._users.living(key)
            answered = []
            for draft in drafts:
                idem_key = draft.idempotency_key or new_item_id()
                if idem_key not in data.by_key:
                    data.add(draft, idempotency_key=idem_key, now=now)
                answered.append(data.by_key[idem_key])
            if enqueue is not None:
                data.enqueue(enqueue)
            return answered

    def turns(self, key: UserKey, *, after: int = 0, upto: int | None = None, newest: int | None = None) -> list[Turn]:
        """See `MemoryStore.turns`."""
        commit.check_newest(newest)
        with self._users.lock:
            data = self._users.of.get(key)
            found = (
                [turn for turn in data.shown_turns() if turn.seq > after and (upto is None or turn.seq <= upto)]
                if data
                else []
            )
            return found if newest is None else found[max(0, len(found) - newest) :]

    def known(self, key: UserKey, idem_keys: Iterable[str]) -> list[Turn]:
        """See `MemoryStore.known`."""
        with self._users.lock:
            data = self._users.of.get(key)
            found = [data.by_key[one] for one in commit.possible_keys(idem_keys) if one in data.by_key] if data else []
        return sorted(found, key=lambda one: one.seq)

    def search(self, key: UserKey, text: str, *, limit: int = 10) -> list[FoundTurn]:
        """See `MemoryStore.search`."""
        check_query(text, limit)
        wanted = ranking.query_words(text)
        with self._users.lock:
            state, found = self.state(key), ranking.sharing(self.turns(key), wanted)
        return ranking.rank(wanted, found, turns=state.turns, limit=limit) if state else []

    def state(self, key: UserKey) -> UserState | None:
        """See `MemoryStore.state`."""
        with self._users.lock:
            data = self._users.of.get(key)
            return data.state if data and not data.is_erased else None

    def users(self, tenant: str | None = None) -> list[UserKey]:
        """See `MemoryStore.users`."""
        commit.check_tenant(tenant)
        with self._users.lock:
            found = [key for key, data in self._users.of.items() if not data.is_erased and tenant in (None, key.tenant)]
        return sorted(found, key=lambda key: (key.tenant, key.user))

    def study_items(self, key: UserKey, *, with_retired: bool = False) -> list[StudyItem]:
        """See `MemoryStore.study_items`."""
        with self._users.lock:
            data = self._users.of.get(key)
            return [item for item in data.items.values() if with_retired or item.retired_rev is None] if data else []

    def commit(self, key: UserKey, draft: RevisionDraft, *, lease: Lease | None = None) -> Revision:
        """See `MemoryStore.commit`."""
        with self._users.changing(key):
            data = self._users.living(key)
            if lease is not None and not data.holds(lease):
                raise queue.lost(lease)
            commit.check_follows(draft, data.state)
            data.check_items([draft])
            lacking = len(set(draft.retired_items) - data.in_force[data.state.head])
            if lacking:
                raise commit.stale_items(lacking, "to be retired but not in force")
            saved = data.learn(draft)
            data.prune(self._keep_payloads)
            if lease is not None:
                data.complete(lease, draft.to_seq)
            return saved

    def revisions(self, key: UserKey) -> list[Revision]:
        """See `MemoryStore.revisions`."""
        with self._users.lock:
            data = self._users.of.get(key)
            return list(data.revisions) if data else []

    def revision(self, key: UserKey, number: int | None = None) -> Revision | None:
        """See `MemoryStore.revision`."""
        with self._users.lock:
            data = self._users.of.get(key)
            if number is not None:
                if data is None:
                    raise commit.not_found(key, number)
                return data.revision(number)
            return data.revision(data.state.head) if data and data.state.head else None

    def payload(self, key: UserKey, number: int) -> bytes:
        """See `MemoryStore.payload`."""
        with self._users.lock:
            saved = self.revision(key, number)
            assert saved is not None
            if saved.payload_sha256 is None or not saved.is_kept:
                raise commit.no_payload(key, number)
            stored = self._users.of[key].payloads[saved.payload_sha256]
            return commit.checked(
                f"payload of revision {number}", stored, size=saved.payload_bytes, sha256=saved.payload_sha256
            )

    def rollback(self, key: UserKey, number: int) -> Revision:
        """See `MemoryStore.rollback`."""
        with self._users.changing(key):
            data = self._users.living(key)
            head = data.state.head
            restored = None if number == 0 and head else data.revision(number)
            if restored is not None and number == head:
                return restored
            if restored is not None:
                commit.require_kept(restored, key)
            made = commit.restoring(restored, number=len(data.revisions) + 1, parent=head, created_at=utc_now())
            facts = commit.revert_facts(data.state, number, made.number)
            data.make_current(made, data.in_force[number])
            data.record("revert", facts)
            return made

    def cut_over(self, key: UserKey, drafts: Sequence[RevisionDraft], *, fingerprint: str, fence: int) -> Revision:
        """See `MemoryStore.cut_over`."""
        with self._users.changing(key):
            data = self._users.living(key)
            state = data.state
            commit.check_unmoved(state, fence)
            following = commit.renumbered(drafts, state, fingerprint)
            data.check_items(following)
            if data.job is not None and data.job.lease is not None:
                data.job.attempts -= 1
                data.job.put_back()
            number = len(data.revisions) + 1
            made = commit.restoring(
                None, number=number, parent=state.head, created_at=utc_now(), fingerprint=fingerprint
            )
            data.make_current(made, frozenset())
            for draft in following:
                made = data.learn(draft)
            data.record("revert", commit.cut_over_facts(state, number, fingerprint))
            data.prune(self._keep_payloads)
            return made

    def forget(self, key: UserKey, turns: Iterable[int]) -> Receipt:
        """See `MemoryStore.forget`."""
        with self._users.changing(key):
            data = self._users.living(key)
            return data.forget(lineage.check_forgettable(key, turns, data.state), "asked")

    def correct(self, key: UserKey, turn: int, draft: TurnDraft) -> CorrectedTurn:
        """See `MemoryStore.correct`."""
        with self._users.changing(key):
            data = self._users.living(key)
            (seq,) = lineage.check_forgettable(key, [turn], data.state)
            return data.correct(seq, draft)

    def erase(self, key: UserKey) -> Receipt:
        """See `MemoryStore.erase`."""
        with self._users.changing(key):
            receipt = self._users.known(key).erase()
            self.api_keys.drop(key)
            return receipt

    def reinstate(self, key: UserKey) -> None:
        """See `MemoryStore.reinstate`."""
        with self._users.changing(key):
            self._users.known(key).is_erased = False

    def expire(self, key: UserKey | None = None) -> dict[UserKey, Receipt]:
        """See `MemoryStore.expire`."""
        with self._users.lock:
            due = {whose: data.expired() for whose, data in self._users.of.items() if key in (None, whose)}
            made = {whose: self._users.of[whose].forget(seqs, "expired") for whose, seqs in due.items() if seqs}
            for whose in made:
                self._users.changed(whose)
            return made

    def record(self, key: UserKey, action: str, facts: Mapping[str, Any]) -> None:
        """See `MemoryStore.record`."""
        known = commit.check_action(action)
        plain = plain_json("facts", facts)
        with self._users.changing(key):
            self._users.living(key).record(known, plain)

    def audit(self, key: UserKey) -> list[AuditEntry]:
        """See `MemoryStore.audit`."""
        with self._users.lock:
            data = self._users.of.get(key)
            entries = list(data.audit) if data else []
        commit.check_audit(key, entries)
        return [entry for entry, _ in entries]

    def close(self) -> None:
        """Do nothing: there is no connection to close."""

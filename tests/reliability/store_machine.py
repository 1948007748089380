"""The stateful run.

Hypothesis draws calls, stores and the model of `store_model.py` do them, and both must say the same.

Two stores on one database take turns, as two processes would.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from locas_storage import Lease, LocasError, MemoryStore, SqlMemoryStore, TurnDraft, UserKey, add_key, new_item_id
from locas_storage.conformance.samples import draft, item
from locas_storage.rules.queue import MAX_ATTEMPTS
from tests.reliability.store_model import Person, Said

R = TypeVar("R")

LONG_AGO = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
FAR_SECONDS = 3600.0
WORDS = ("alpha", "beta", "gamma")
PAYLOADS = (b"one", b"two", b"three", b"a large one", b"another large one")
INLINE_BYTES = 5

people = st.integers(0, 2)
numbers = st.integers(0, 12)
sayings = st.lists(
    st.builds(
        Said,
        st.sampled_from("abcdef"),
        st.sampled_from([*WORDS, "alpha beta", "beta gamma"]),
        st.sampled_from([False] * 4 + [True]),
    ),
    min_size=1,
    max_size=3,
)

_tenants = count(1)


@dataclass
class Ground:
    """Where a run takes place.

    Attributes:
        stores: on one database, used in turn.
        is_encrypted: whether content is.
        key_file: of the stores' keys.
        files: the folder of large payloads, if any.
        calls: of a store so far, reads included.
    """

    stores: Sequence[MemoryStore]
    is_encrypted: bool = False
    key_file: Path | None = None
    files: Path | None = None
    calls: int = 0


class StoreMachine(RuleBasedStateMachine):
    """Three users, two of one tenant and one of the same name in another."""

    def __init__(self, ground: Ground) -> None:
        super().__init__()
        self._ground = ground
        run = next(_tenants)
        self._tenants = (f"first {run}", f"second {run}")
        self._keys = [
            UserKey(self._tenants[0], "ada"),
            UserKey(self._tenants[0], "ben"),
            UserKey(self._tenants[1], "ada"),
        ]
        self._people = [Person(ground.is_encrypted) for _ in self._keys]
        self._leases: list[tuple[int, Lease]] = []

    @property
    def _store(self) -> MemoryStore:
        self._ground.calls += 1
        return self._ground.stores[self._ground.calls % len(self._ground.stores)]

    def _both(self, who: int, act: Callable[[], R], model: Callable[[], Any]) -> tuple[R, Any] | None:
        """Do one call in both; return what each gave, None where both refused it for the same reason."""
        try:
            expected = model()
        except LocasError as refusal:
            try:
                act()
            except LocasError as error:
                assert type(error) is type(refusal), (error, refusal)  # noqa: PT017  compared with the model's
            else:
                raise AssertionError(f"the store did what the model refuses with {type(refusal).__name__}") from None
            made = None
        else:
            made = (act(), expected)
        self._compare(who)
        return made

    # Journal
    # ------------------------------------------------------------------------------------------------------------

    @rule(who=people, said=sayings, enqueue=st.none() | numbers)
    def append(self, who: int, said: list[Said], enqueue: int | None) -> None:
        drafts = [
            TurnDraft(
                "user", one.text, idempotency_key=one.key, token_count=1, expires_at=LONG_AGO if one.is_over else None
            )
            for one in said
        ]
        made = self._both(
            who,
            lambda: self._store.append(self._keys[who], drafts, enqueue=enqueue),
            lambda: self._people[who].append(said, enqueue),
        )
        if made is not None:
            assert [(turn.seq, turn.content) for turn in made[0]] == made[1]

    @rule(who=people, word=st.sampled_from([*WORDS, "nothing"]))
    def search(self, who: int, word: str) -> None:
        found = self._store.search(self._keys[who], word.upper(), limit=100)
        assert {turn.seq for turn in found} == self._people[who].sharing(word)

    @rule(who=people, after=numbers, upto=numbers, newest=st.none() | st.integers(0, 4))
    def some_turns(self, who: int, after: int, upto: int, newest: int | None) -> None:
        expected = [one for one in self._people[who].shown if after < one[0] <= upto]
        expected = expected if newest is None else expected[max(0, len(expected) - newest) :]
        assert _turns(self._store, self._keys[who], after=after, upto=upto, newest=newest) == expected

    # Revisions
    # ----------------------------------------------------------------------------------------------------------

    @rule(
        who=people,
        wrong=st.sampled_from([""] * 6 + ["parent", "from", "to", "fence", "new", "retired"]),
        more=st.integers(0, 3),
        n_new=st.integers(0, 2),
        retires=st.booleans(),
        payload=st.sampled_from(PAYLOADS),
        knows_fence=st.booleans(),
        under=st.none() | numbers,
    )
    def commit(
        self,
        who: int,
        wrong: str,
        more: int,
        n_new: int,
        retires: bool,
        payload: bytes,
        knows_fence: bool,
        under: int | None,
    ) -> None:
        person = self._people[who]
        parent, from_seq = person.head.number + (wrong == "parent"), person.head.to_seq + 1 + (wrong == "from")
        to_seq = max(from_seq, len(person.turns) + 1 if wrong == "to" else min(from_seq + more, len(person.turns)))
        new = [new_item_id() for _ in range(n_new)] + (sorted(person.items)[:1] if wrong == "new" else [])
        retired = (sorted(person.head.items)[:1] if retires else []) + ([new_item_id()] if wrong == "retired" else [])
        retired = [one for one in retired if one not in new]
        fence = person.fence + (wrong == "fence") if knows_fence or wrong == "fence" else None
        lease = self._lease(under, who)
        items = tuple(replace_id(one, from_seq) for one in new)
        made = draft(parent, from_seq, to_seq, payload, new_items=items, retired_items=tuple(retired), fence=fence)
        self._both(
            who,
            lambda: self._store.commit(self._keys[who], made, lease=lease).number,
            lambda: person.commit(
                parent=parent,
                from_seq=from_seq,
                to_seq=to_seq,
                payload=payload,
                new=new,
                retired=retired,
                fence=fence,
                lease=None if lease is None else (lease.fence, lease.to_seq),
            ),
        )

    @rule(who=people, number=numbers)
    def rollback(self, who: int, number: int) -> None:
        self._both(
            who,
            lambda: self._store.rollback(self._keys[who], number).number,
            lambda: self._people[who].rollback(number),
        )

    @rule(who=people, number=numbers)
    def payload(self, who: int, number: int) -> None:
        made = self._both(
            who, lambda: self._store.payload(self._keys[who], number), lambda: self._people[who].payload(number)
        )
        assert made is None or made[0] == made[1]

    # Taking away
    # --------------------------------------------------------------------------------------------------------

    @rule(who=people, seqs=st.lists(st.integers(1, 8), min_size=1, max_size=3))
    def forget(self, who: int, seqs: list[int]) -> None:
        made = self._both(
            who, lambda: list(self._store.forget(self._keys[who], seqs).turns), lambda: self._people[who].forget(seqs)
        )
        assert made is None or made[0] == made[1]

    @rule(who=people, begins_again=st.sampled_from([True, True, False]))
    def erase(self, who: int, begins_again: bool) -> None:
        self._both(who, lambda: self._store.erase(self._keys[who]), self._people[who].erase)
        if begins_again:
            self.reinstate(who)

    @rule(who=people)
    def reinstate(self, who: int) -> None:
        self._both(who, lambda: self._store.reinstate(self._keys[who]), self._people[who].reinstate)

    @rule(who=people, everyone=st.booleans())
    def expire(self, who: int, everyone: bool) -> None:
        made = self._store.expire(None if everyone else self._keys[who])
        chosen = range(3) if everyone else [who]
        expected = {self._keys[one]: over for one in chosen if (over := self._people[one].expire())}
        assert {key: list(receipt.turns) for key, receipt in made.items()} == expected
        for one in chosen:
            self._compare(one)

    # Queue
    # --------------------------------------------------------------------------------------------------------------

    @rule(who=people, to_seq=numbers)
    def ask(self, who: int, to_seq: int) -> None:
        self._both(
            who, lambda: self._store.queue.enqueue(self._keys[who], to_seq), lambda: self._people[who].ask(to_seq)
        )

    @rule(who=people, runs_out=st.booleans())
    def claim(self, who: int, runs_out: bool) -> None:
        made = self._store.queue.claim("worker", lease_seconds=0 if runs_out else FAR_SECONDS, key=self._keys[who])
        expected = self._people[who].claim(runs_out=runs_out)
        assert [(lease.fence, lease.to_seq, lease.stops) for lease in made] == ([expected] if expected else [])
        self._leases += [(who, lease) for lease in made]
        self._compare(who)

    @precondition(lambda self: not any(person.job and person.job.attempts >= MAX_ATTEMPTS for person in self._people))
    @rule(limit=st.integers(1, 3), runs_out=st.booleans())
    def claim_some(self, limit: int, runs_out: bool) -> None:
        """Which of several come first is the clock's business; how many and which kinds is not."""
        due = [who for who, person in enumerate(self._people) if person.is_due]
        rebuilds = {who for who in due if (job := self._people[who].job) is not None and job.stops}
        made = self._store.queue.claim("worker", limit=limit, lease_seconds=0 if runs_out else FAR_SECONDS)
        claimed = [self._keys.index(lease.key) for lease in made]
        assert set(claimed) <= set(due)
        assert len(claimed) == len(set(claimed)) <= limit
        assert (
            len(claimed) == 1
            if rebuilds & set(claimed)
            else len(claimed) == min(limit, len(due)) or (rebuilds and claimed)
        )
        for who, lease in zip(claimed, made, strict=True):
            assert self._people[who].claim(runs_out=runs_out) == (lease.fence, lease.to_seq, lease.stops)
            self._leases.append((who, lease))
            self._compare(who)

    @precondition(lambda self: self._leases)
    @rule(which=numbers, runs_out=st.booleans())
    def heartbeat(self, which: int, runs_out: bool) -> None:
        who, lease = self._any_lease(which)
        seconds = 0 if runs_out else FAR_SECONDS
        self._both(
            who,
            lambda: self._store.queue.heartbeat(lease, lease_seconds=seconds),
            lambda: self._people[who].heartbeat(lease.fence, runs_out=runs_out),
        )

    @precondition(lambda self: self._leases)
    @rule(which=numbers, to_seq=numbers, is_refused=st.booleans())
    def settle(self, which: int, to_seq: int, is_refused: bool) -> None:
        who, lease = self._any_lease(which)
        refusal = {"reason": "test"} if is_refused else None

        def model() -> None:
            self._people[who].require()
            self._people[who].settle((lease.fence, lease.to_seq), to_seq, is_refused=is_refused)

        self._both(who, lambda: self._store.queue.complete(lease, to_seq, refusal=refusal), model)

    @precondition(lambda self: self._leases)
    @rule(which=numbers, is_due=st.booleans())
    def fail(self, which: int, is_due: bool) -> None:
        who, lease = self._any_lease(which)

        def model() -> None:
            self._people[who].require()
            self._people[who].fail(lease.fence, "TestError", is_due=is_due)

        self._both(
            who, lambda: self._store.queue.fail(lease, "TestError", retry_seconds=0 if is_due else FAR_SECONDS), model
        )

    @precondition(lambda self: self._leases)
    @rule(which=numbers)
    def release(self, which: int) -> None:
        who, lease = self._any_lease(which)

        def model() -> None:
            self._people[who].require()
            self._people[who].release(lease.fence)

        self._both(who, lambda: self._store.queue.release(lease), model)

    # Upkeep
    # -------------------------------------------------------------------------------------------------------------

    @precondition(lambda self: self._ground.key_file is not None)
    @rule()
    def rotate_keys(self) -> None:
        assert self._ground.key_file is not None
        add_key(self._ground.key_file)
        store = self._store
        assert isinstance(store, SqlMemoryStore)
        assert store.rotate_keys() == sum(person.is_standing and person.turns != [] for person in self._people)
        for who in range(3):
            self._compare(who)

    @precondition(lambda self: self._ground.files is not None)
    @rule(leaves_one=st.booleans())
    def collect(self, leaves_one: bool) -> None:
        """A crash may leave a file without a row."""
        assert self._ground.files is not None
        if leaves_one:
            folder = self._ground.files / self._keys[0].digest
            folder.mkdir(parents=True, exist_ok=True)
            (folder / ("0" * 64)).write_bytes(b"left over")
        store = self._store
        assert isinstance(store, SqlMemoryStore)
        assert store.collect(grace_seconds=0) == leaves_one
        self._compare_files()

    # Comparing
    # ----------------------------------------------------------------------------------------------------------

    def _compare(self, who: int) -> None:
        store, key, person = self._store, self._keys[who], self._people[who]
        state = store.state(key)
        found = (
            None if state is None else (state.next_seq, state.head, state.consolidated_seq, state.fence, state.epoch)
        )
        assert found == person.counters
        assert _turns(store, key) == person.shown
        revisions = [
            (one.number, one.parent, one.restores, one.from_seq, one.to_seq, one.state, one.has_payload)
            for one in store.revisions(key)
        ]
        assert revisions == [
            (one.number, one.parent, one.restores, one.from_seq, one.to_seq, one.state, one.payload is not None)
            for one in person.saved
        ]
        assert {one.item_id for one in store.study_items(key)} == person.head.items
        assert {one.item_id for one in store.study_items(key, with_retired=True)} == set(person.items)
        jobs = [job for job in store.queue.jobs(key.tenant) if job.key == key]
        waiting = [(job.state, job.to_seq, job.is_rebuild, job.attempts, job.reason) for job in jobs]
        assert sorted(waiting, key=str) == sorted(person.in_queue, key=str)
        assert [entry.action for entry in store.audit(key)] == person.audit

    def _compare_files(self) -> None:
        if self._ground.files is None:
            return
        for key, person in zip(self._keys, self._people, strict=True):
            folder = self._ground.files / key.digest
            there = list(folder.iterdir()) if folder.exists() else []
            assert len(there) == sum(len(payload) > INLINE_BYTES for _, payload in person.blobs)

    def _lease(self, which: int | None, who: int) -> Lease | None:
        mine = [lease for whose, lease in self._leases if whose == who]
        return mine[-1 - which % len(mine)] if which is not None and mine else None

    def _any_lease(self, which: int) -> tuple[int, Lease]:
        return self._leases[-1 - which % len(self._leases)]  # the newest first: most of the others are lost

    def teardown(self) -> None:
        """Compare all once more, check every invariant, and leave nothing to the next run."""
        store = self._store
        assert {key for tenant in self._tenants for key in store.users(tenant)} == {
            key for key, person in zip(self._keys, self._people, strict=True) if person.is_standing
        }
        for who in range(3):
            self._compare(who)
        self._compare_files()
        if isinstance(store, SqlMemoryStore):
            assert [fault for tenant in self._tenants for fault in store.verify(tenant=tenant).faults] == []
        for key, person in zip(self._keys, self._people, strict=True):
            if person.exists:
                store.erase(key)


def replace_id(item_id: str, seq: int) -> Any:
    """Return a study item of a given id about one turn."""
    made = item(seq, seq)
    object.__setattr__(made, "item_id", item_id)
    return made


def _turns(store: MemoryStore, key: UserKey, **cut: Any) -> list[tuple[int, str, str]]:
    found: Iterable[Any] = store.turns(key, **cut)
    return [(turn.seq, turn.idempotency_key, turn.content) for turn in found]

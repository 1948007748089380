"""What every store promises, over a file, a database in memory and dictionaries.

Knows nothing of how a store keeps it.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import threading
import unicodedata

import pytest
from storage_samples import ADA, draft, item, say

from locas_storage import (
    InvalidRevision,
    InvalidTurn,
    MemoryStore,
    RevisionConflict,
    RevisionNotFound,
    TurnDraft,
    UnknownUser,
    UserKey,
)

BEN = UserKey("default", "ben")
HOSTILE = [
    "a'b",
    'a"b',
    "a%",
    "a_",
    "A",
    "a",
    "a ",
    " a",
    "a;--",
    "../a",
    unicodedata.normalize("NFC", "å"),
    unicodedata.normalize("NFD", "å"),
    "a\u200b",
    "😀",
    "a\n",
]


def in_force(store: MemoryStore) -> set[str]:
    return {kept.item_id for kept in store.study_items(ADA)}


def test_store_keeps_the_protocol(store: MemoryStore) -> None:
    assert isinstance(store, MemoryStore)


def test_unknown_user_reads_as_empty(store: MemoryStore) -> None:
    assert store.turns(ADA) == []
    assert store.state(ADA) is None
    assert store.users() == []
    assert store.study_items(ADA) == []
    assert store.revisions(ADA) == []
    assert store.revision(ADA) is None
    assert store.audit(ADA) == []


def test_changing_an_unknown_user_is_refused(store: MemoryStore) -> None:
    with pytest.raises(UnknownUser):
        store.commit(ADA, draft(0, 1, 1))
    with pytest.raises(UnknownUser):
        store.rollback(ADA, 0)
    with pytest.raises(UnknownUser):
        store.record(ADA, "refuse", {})
    assert store.append(ADA, []) == []
    assert store.users() == []


def test_turns_come_back_as_they_went_in(store: MemoryStore) -> None:
    said = dt.datetime(2021, 3, 4, 5, 6, 7, 890123, tzinfo=dt.timezone(dt.timedelta(hours=-7)))
    before = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=2)
    first, second = store.append(
        ADA,
        [TurnDraft("tool", "résumé 😀\r\n", name="Ada", session="s1", at=said, key="k1", trust="web", token_count=4), TurnDraft("assistant", "")],
    )
    assert (first.seq, second.seq) == (1, 2)
    assert (first.role, first.content, first.name, first.session, first.key, first.trust, first.token_count) == (
        "tool",
        "résumé 😀\r\n",
        "Ada",
        "s1",
        "k1",
        "web",
        4,
    )
    assert first.at == said
    assert first.at.utcoffset() == dt.timedelta(0)
    assert second.at == second.created_at
    assert before < second.created_at < dt.datetime.now(dt.UTC) + dt.timedelta(seconds=2)
    assert second.key != ""
    assert store.turns(ADA) == [first, second]
    state = store.state(ADA)
    assert state is not None
    assert (state.turns, state.next_seq, state.head, state.consolidated_seq) == (2, 3, 0, 0)


def test_turns_are_cut_by_number_and_by_newest(store: MemoryStore) -> None:
    say(store, 6)
    assert [turn.seq for turn in store.turns(ADA, after=2)] == [3, 4, 5, 6]
    assert [turn.seq for turn in store.turns(ADA, after=1, upto=4)] == [2, 3, 4]
    assert [turn.seq for turn in store.turns(ADA, newest=2)] == [5, 6]
    assert [turn.seq for turn in store.turns(ADA, upto=4, newest=2)] == [3, 4]
    assert store.turns(ADA, newest=0) == []
    assert len(store.turns(ADA, upto=10**30, newest=10**30)) == 6
    with pytest.raises(InvalidTurn):
        store.turns(ADA, newest=-1)


def test_same_key_is_one_turn(store: MemoryStore) -> None:
    first = store.append(ADA, [TurnDraft("user", "one", key="k"), TurnDraft("user", "two", key="k"), TurnDraft("user", "three")])
    assert [turn.seq for turn in first] == [1, 1, 2]
    again = store.append(ADA, [TurnDraft("assistant", "other", key="k"), TurnDraft("user", "four")])
    assert again[0] == first[0]
    assert [turn.seq for turn in again] == [1, 3]
    assert [turn.content for turn in store.turns(ADA)] == ["one", "three", "four"]
    assert store.append(BEN, [TurnDraft("user", "mine", key="k")])[0].content == "mine"


def test_many_keys_are_looked_up_at_once(store: MemoryStore) -> None:
    drafts = [TurnDraft("user", "x", key=f"k{number}") for number in range(1_200)]
    assert store.append(ADA, drafts) == store.append(ADA, drafts)
    assert len(store.turns(ADA)) == 1_200


def test_hostile_names_never_meet(store: MemoryStore) -> None:
    keys = [UserKey(tenant, user) for tenant in HOSTILE[:4] for user in HOSTILE]
    for key in keys:
        store.append(key, [TurnDraft("user", repr((key.tenant, key.user)), key="same", session=key.user)])
    for key in keys:
        assert [turn.content for turn in store.turns(key)] == [repr((key.tenant, key.user))]
    assert store.users() == sorted(keys, key=lambda key: (key.tenant, key.user))
    assert {key.user for key in store.users("a%")} == set(HOSTILE)
    assert store.users("A%") == []
    with pytest.raises(InvalidTurn):
        store.users("\ud800")


def test_concurrent_appends_leave_no_gap(store: MemoryStore) -> None:
    errors: list[BaseException] = []

    def work(worker: int) -> None:
        try:
            for number in range(5):
                store.append(ADA, [TurnDraft("user", f"{worker}", key=f"{worker}-{number}"), TurnDraft("user", "b")])
                store.turns(ADA, newest=1)
        except BaseException as error:  # noqa: BLE001  a thread must not die unseen
            errors.append(error)

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    turns = store.turns(ADA)
    assert [turn.seq for turn in turns] == list(range(1, 161))
    assert len({turn.key for turn in turns}) == 160


def test_commit_makes_the_next_revision(store: MemoryStore) -> None:
    say(store, 5)
    kept = item(1, 3, "question", "answer")
    first = store.commit(ADA, draft(0, 1, 3, b"bytes", new_items=(kept,), metrics={"loss": float("nan"), "steps": 3, "deep": [{"a": None}]}))
    assert (first.number, first.parent, first.restores, first.from_seq, first.to_seq, first.state) == (1, 0, None, 1, 3, "live")
    assert (first.payload_sha256, first.payload_bytes) == (hashlib.sha256(b"bytes").hexdigest(), 5)
    assert first.metrics == {"loss": "nan", "steps": 3, "deep": [{"a": None}]}
    span = b"".join(hashlib.sha256(turn.content.encode()).digest() for turn in store.turns(ADA, upto=3))
    assert first.turns_sha256 == hashlib.sha256(span).hexdigest()
    second = store.commit(ADA, draft(1, 4, 5, b"more bytes"))
    assert store.revisions(ADA) == [first, second]
    assert store.revision(ADA) == second
    assert store.revision(ADA, 1) == first
    assert store.payload(ADA, 1) == b"bytes"
    assert store.payload(ADA, 2) == b"more bytes"
    state = store.state(ADA)
    assert state is not None
    assert (state.head, state.consolidated_seq, state.fence) == (2, 5, 2)
    (found,) = store.study_items(ADA)
    assert (found.item_id, found.kind, found.from_seq, found.to_seq, found.turn_seq) == (kept.item_id, "question", 1, 3, 1)
    assert (found.question, found.answer, found.teacher, found.added_rev, found.retired_rev) == ("question", "answer", b"\x00\xff", 1, None)


def test_same_payload_may_be_saved_twice(store: MemoryStore) -> None:
    say(store, 2)
    store.commit(ADA, draft(0, 1, 1, b"same"))
    store.commit(ADA, draft(1, 2, 2, b"same"))
    assert store.payload(ADA, 1) == store.payload(ADA, 2) == b"same"


@pytest.mark.parametrize(
    ("parent", "from_seq", "to_seq"),
    [(0, 3, 4), (2, 3, 4), (1, 2, 4), (1, 4, 4), (1, 1, 2), (1, 3, 6), (1, 3, 10**15)],
    ids=["older parent", "later parent", "learnt before", "gap", "all learnt", "beyond the journal", "far beyond"],
)
def test_commit_that_does_not_follow_changes_nothing(store: MemoryStore, parent: int, from_seq: int, to_seq: int) -> None:
    say(store, 5)
    store.commit(ADA, draft(0, 1, 2))
    before = (store.state(ADA), store.revisions(ADA), store.study_items(ADA))
    with pytest.raises(RevisionConflict):
        store.commit(ADA, draft(parent, from_seq, to_seq, new_items=(item(),)))
    assert (store.state(ADA), store.revisions(ADA), store.study_items(ADA)) == before
    assert store.commit(ADA, draft(1, 3, 5)).number == 2


def test_study_items_that_do_not_fit_change_nothing(store: MemoryStore) -> None:
    say(store, 3)
    first = item()
    store.commit(ADA, draft(0, 1, 1, new_items=(first,)))
    before = (store.state(ADA), store.revisions(ADA), store.study_items(ADA, with_retired=True))
    for more in ({"new_items": (first,)}, {"retired_items": ("0" * 32, first.item_id)}, {"new_items": (item(1, 9),)}):
        with pytest.raises(RevisionConflict):
            store.commit(ADA, draft(1, 2, 2, **more))
        assert (store.state(ADA), store.revisions(ADA), store.study_items(ADA, with_retired=True)) == before
    store.commit(ADA, draft(1, 2, 2, retired_items=(first.item_id,)))
    with pytest.raises(RevisionConflict):
        store.commit(ADA, draft(2, 3, 3, retired_items=(first.item_id,)))


def test_study_items_keep_their_order(store: MemoryStore) -> None:
    say(store, 2)
    items = [item(question=f"q{number}") for number in range(9)]
    items.reverse()
    store.commit(ADA, draft(0, 1, 1, new_items=tuple(items[:6])))
    store.commit(ADA, draft(1, 2, 2, new_items=tuple(items[6:]), retired_items=(items[0].item_id,)))
    assert [kept.item_id for kept in store.study_items(ADA)] == [kept.item_id for kept in items[1:]]
    assert [kept.item_id for kept in store.study_items(ADA, with_retired=True)] == [kept.item_id for kept in items]
    assert store.study_items(ADA, with_retired=True)[0].retired_rev == 2


def test_only_one_of_two_racing_commits_is_saved(store: MemoryStore) -> None:
    say(store, 3)
    outcomes: list[str] = []
    barrier = threading.Barrier(8)

    def work(worker: int) -> None:
        barrier.wait()
        try:
            store.commit(ADA, draft(0, 1, 3, f"payload {worker}".encode()))
            outcomes.append("saved")
        except RevisionConflict:
            outcomes.append("refused")

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["refused"] * 7 + ["saved"]
    assert len(store.revisions(ADA)) == 1


def test_unknown_revision_is_an_error(store: MemoryStore) -> None:
    say(store, 1)
    assert store.revision(ADA) is None
    for number in (-1, 0, 1, 10**30):
        with pytest.raises(RevisionNotFound):
            store.revision(ADA, number)
        with pytest.raises(RevisionNotFound):
            store.payload(ADA, number)
        with pytest.raises(RevisionNotFound):
            store.rollback(ADA, number)
    with pytest.raises(RevisionNotFound):
        store.payload(BEN, 1)


def test_rollback_brings_an_older_revision_back(store: MemoryStore) -> None:
    say(store, 6)
    stays, goes, later = item(question="stays"), item(question="goes"), item(question="later")
    first = store.commit(ADA, draft(0, 1, 2, b"first", new_items=(stays, goes)))
    second = store.commit(ADA, draft(1, 3, 4, b"second", new_items=(later,), retired_items=(goes.item_id,)))
    assert in_force(store) == {stays.item_id, later.item_id}

    third = store.rollback(ADA, 1)
    assert (third.number, third.parent, third.restores) == (3, 2, 1)
    assert (third.from_seq, third.to_seq, third.turns_sha256, third.payload_sha256) == (1, 2, first.turns_sha256, first.payload_sha256)
    assert store.payload(ADA, 3) == b"first"
    assert store.revision(ADA) == third
    assert store.revisions(ADA) == [first, second, third]
    assert in_force(store) == {stays.item_id, goes.item_id}
    state = store.state(ADA)
    assert state is not None
    assert (state.head, state.consolidated_seq, state.turns, state.fence) == (3, 2, 6, 3)

    fourth = store.rollback(ADA, 2)  # the rollback itself is rolled back
    assert (fourth.number, fourth.parent, fourth.restores, fourth.to_seq) == (4, 3, 2, 4)
    assert store.payload(ADA, 4) == b"second"
    assert in_force(store) == {stays.item_id, later.item_id}
    assert store.rollback(ADA, 3).restores == 3
    assert in_force(store) == {stays.item_id, goes.item_id}
    assert [entry.action for entry in store.audit(ADA)] == ["revert"] * 3
    assert {"from": 2, "to": 1, "revision": 3}.items() <= store.audit(ADA)[0].facts.items()


def test_learning_goes_on_after_a_rollback(store: MemoryStore) -> None:
    say(store, 6)
    one, two, three = item(question="1"), item(question="2"), item(question="3")
    store.commit(ADA, draft(0, 1, 2, new_items=(one,)))
    store.commit(ADA, draft(1, 3, 4, new_items=(two,), retired_items=(one.item_id,)))
    store.rollback(ADA, 1)
    with pytest.raises(RevisionConflict):  # trained before the rollback
        store.commit(ADA, draft(2, 5, 6))
    store.commit(ADA, draft(3, 3, 6, new_items=(three,), retired_items=(one.item_id,)))
    expected = {1: {one.item_id}, 2: {two.item_id}, 3: {one.item_id}, 4: {three.item_id}}
    assert in_force(store) == expected[4]
    for number in (2, 1, 4, 3, 2, 4):
        store.rollback(ADA, number)
        assert in_force(store) == expected[number]
    assert {kept.item_id for kept in store.study_items(ADA, with_retired=True)} == {one.item_id, two.item_id, three.item_id}


def test_rollback_to_zero_is_no_memory(store: MemoryStore) -> None:
    say(store, 4)
    kept = item()
    store.commit(ADA, draft(0, 1, 3, b"first", new_items=(kept,)))
    empty = store.rollback(ADA, 0)
    assert (empty.number, empty.parent, empty.restores, empty.payload_sha256, empty.payload_bytes) == (2, 1, 0, None, 0)
    assert not empty.has_payload
    assert store.revision(ADA) == empty
    assert in_force(store) == set()
    with pytest.raises(RevisionNotFound):
        store.payload(ADA, 2)
    state = store.state(ADA)
    assert state is not None
    assert (state.head, state.consolidated_seq) == (2, 0)
    assert store.rollback(ADA, 1).number == 3
    assert in_force(store) == {kept.item_id}
    assert store.rollback(ADA, 2).restores == 2
    assert store.commit(ADA, draft(4, 1, 4)).number == 5


def test_rollback_to_the_current_revision_changes_nothing(store: MemoryStore) -> None:
    say(store, 1)
    saved = store.commit(ADA, draft(0, 1, 1))
    state = store.state(ADA)
    assert store.rollback(ADA, 1) == saved
    assert (store.state(ADA), store.revisions(ADA), store.audit(ADA)) == (state, [saved], [])


def test_audit_keeps_what_was_recorded(store: MemoryStore) -> None:
    say(store, 1)
    store.record(ADA, "refuse", {"reason": "drift", "loss": float("inf"), "deltas": (1.0, -0.0, 1e-7)})
    store.record(ADA, "export", {})
    first, second = store.audit(ADA)
    assert (first.seq, first.action, first.facts) == (1, "refuse", {"reason": "drift", "loss": "inf", "deltas": [1.0, 0.0, 1e-7]})
    assert (second.seq, second.action, second.facts) == (2, "export", {})
    assert first.created_at.utcoffset() == dt.timedelta(0)
    assert store.audit(BEN) == []
    with pytest.raises(InvalidRevision):
        store.record(ADA, "gossip", {})
    with pytest.raises(InvalidRevision):
        store.record(ADA, "refuse", {"tensor": object()})


def test_users_do_not_see_each_other(store: MemoryStore) -> None:
    for key in (ADA, BEN, UserKey("other", "ada")):
        say(store, 2, key)
        store.commit(key, draft(0, 1, 2, key.short_hash.encode(), new_items=(item(),)))
        store.record(key, "refuse", {"who": key.short_hash})
    for key in (ADA, BEN, UserKey("other", "ada")):
        assert store.payload(key, 1) == key.short_hash.encode()
        assert len(store.study_items(key)) == 1
        assert [entry.facts["who"] for entry in store.audit(key)] == [key.short_hash]
    store.rollback(BEN, 0)
    state = store.state(ADA)
    assert state is not None
    assert state.head == 1

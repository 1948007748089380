"""Cases about rolling back, and about the audit trail."""

import datetime as dt

import pytest

from locas_storage.conformance.samples import ADA, BEN, draft, item, say
from locas_storage.errors import InvalidRevision, RevisionConflict, RevisionNotFound
from locas_storage.store import MemoryStore


def in_force(store: MemoryStore) -> set[str]:
    return {kept.item_id for kept in store.study_items(ADA)}


def test_rollback_brings_an_older_revision_back(store: MemoryStore) -> None:
    say(store, 6)
    stays, goes, later = item(question="stays"), item(question="goes"), item(question="later")
    first = store.commit(ADA, draft(0, 1, 2, b"first", new_items=(stays, goes)))
    second = store.commit(ADA, draft(1, 3, 4, b"second", new_items=(later,), retired_items=(goes.item_id,)))
    assert in_force(store) == {stays.item_id, later.item_id}

    third = store.rollback(ADA, 1)
    assert (third.number, third.parent, third.restores) == (3, 2, 1)
    assert (third.from_seq, third.to_seq, third.turns_sha256, third.payload_sha256) == (
        1,
        2,
        first.turns_sha256,
        first.payload_sha256,
    )
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
    assert {kept.item_id for kept in store.study_items(ADA, with_retired=True)} == {
        one.item_id,
        two.item_id,
        three.item_id,
    }


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
    assert (first.seq, first.action, first.facts) == (
        1,
        "refuse",
        {"reason": "drift", "loss": "inf", "deltas": [1.0, 0.0, 1e-7]},
    )
    assert (second.seq, second.action, second.facts) == (2, "export", {})
    assert first.created_at.utcoffset() == dt.timedelta(0)
    assert store.audit(BEN) == []
    with pytest.raises(InvalidRevision):
        store.record(ADA, "gossip", {})
    with pytest.raises(InvalidRevision):
        store.record(ADA, "refuse", {"tensor": object()})

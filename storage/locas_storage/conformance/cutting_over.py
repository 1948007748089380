"""Cases about cutting over: a memory learnt anew takes the place of the current one, and the way back."""

from dataclasses import replace

import pytest

from locas_storage.conformance.samples import ADA, BEN, draft, item, say
from locas_storage.errors import InvalidRevision, LeaseLost, RevisionConflict, UnknownUser
from locas_storage.records.revisions import Revision, RevisionDraft
from locas_storage.records.turns import UserState
from locas_storage.store import MemoryStore

OLD, NEW = "f" * 64, "b" * 64
FIRST, SECOND, ANEW = item(question="first"), item(3, 4, question="second"), item(question="anew")


def learn(store: MemoryStore) -> Revision:
    """Let a user say six turns and learn four of them in two revisions; return the second."""
    say(store, 6)
    store.commit(ADA, draft(0, 1, 2, b"old 1", new_items=(FIRST,)))
    retired = (FIRST.item_id,)
    return store.commit(ADA, draft(1, 3, 4, b"old 2", new_items=(SECOND,), retired_items=retired))


def anew() -> list[RevisionDraft]:
    """Return the same four turns learnt on another backbone."""
    more = item(3, 4, question="more")
    return [
        draft(0, 1, 2, b"new 1", fingerprint=NEW, new_items=(ANEW,)),
        draft(1, 3, 4, b"new 2", fingerprint=NEW, new_items=(more,), retired_items=(ANEW.item_id,)),
    ]


def state_of(store: MemoryStore) -> UserState:
    state = store.state(ADA)
    assert state is not None
    return state


def in_force(store: MemoryStore) -> list[str]:
    return [kept.question for kept in store.study_items(ADA)]


def test_cut_over_puts_what_was_learnt_anew_in_the_place_of_the_current_memory(store: MemoryStore) -> None:
    old = learn(store)
    made = store.cut_over(ADA, anew(), fingerprint=NEW, fence=state_of(store).fence)
    assert (made.number, made.fingerprint, made.from_seq, made.to_seq, made.restores) == (5, NEW, 3, 4, None)
    assert store.revision(ADA) == made
    assert store.payload(ADA, 5) == b"new 2"
    assert in_force(store) == ["more"]
    after = store.revisions(ADA)
    assert (after[0].state, after[1]) == ("pruned", old)  # the newest three are kept
    assert [(one.number, one.parent, one.restores, one.to_seq) for one in after[2:]] == [
        (3, 2, 0, 0),
        (4, 3, None, 2),
        (5, 4, None, 4),
    ]
    state = state_of(store)
    assert (state.head, state.consolidated_seq, state.turns) == (5, 4, 6)
    (line,) = store.audit(ADA)
    assert line.action == "revert"
    assert {"from": 2, "to": 0, "revision": 3, "backbone": NEW}.items() <= line.facts.items()

    back = store.rollback(ADA, old.number)
    assert (back.fingerprint, back.to_seq, back.payload_sha256) == (OLD, 4, old.payload_sha256)
    assert store.payload(ADA, back.number) == b"old 2"
    assert in_force(store) == ["second"]
    store.commit(ADA, draft(back.number, 5, 6, b"old 3"))  # learning goes on where it was left


def test_user_without_a_memory_can_be_said_to_belong_to_a_backbone(store: MemoryStore) -> None:
    learn(store)
    store.rollback(ADA, 0)
    made = store.cut_over(ADA, [], fingerprint=NEW, fence=state_of(store).fence)
    assert (made.fingerprint, made.has_payload, made.to_seq, made.restores) == (NEW, False, 0, 0)
    assert store.revision(ADA) == made
    assert in_force(store) == []


def test_cut_over_of_a_user_without_a_memory_and_the_way_back(store: MemoryStore) -> None:
    say(store, 6)
    made = store.cut_over(ADA, anew(), fingerprint=NEW, fence=state_of(store).fence)
    assert (made.number, made.fingerprint, made.to_seq) == (3, NEW, 4)
    assert in_force(store) == ["more"]
    back = store.rollback(ADA, 0)
    assert (back.fingerprint, back.has_payload) == ("", False)
    assert state_of(store).consolidated_seq == 0
    assert in_force(store) == []


def test_cut_over_of_what_moved_meanwhile_changes_nothing(store: MemoryStore) -> None:
    learn(store)
    fence = state_of(store).fence
    store.forget(ADA, [6])
    before = (state_of(store), store.revisions(ADA), store.study_items(ADA))
    with pytest.raises(RevisionConflict):
        store.cut_over(ADA, anew(), fingerprint=NEW, fence=fence)
    assert (state_of(store), store.revisions(ADA), store.study_items(ADA)) == before
    with pytest.raises(UnknownUser):
        store.cut_over(BEN, anew(), fingerprint=NEW, fence=0)


def test_drafts_that_do_not_follow_each_other_change_nothing(store: MemoryStore) -> None:
    learn(store)
    before = (state_of(store), store.revisions(ADA), store.study_items(ADA))
    one, two = anew()
    wrong = [
        [one, replace(two, from_seq=4)],
        [replace(one, parent=2)],
        [one, replace(two, fingerprint=OLD)],
        [one, replace(two, retired_items=(SECOND.item_id,))],
    ]
    for drafts in wrong:
        with pytest.raises(InvalidRevision):
            store.cut_over(ADA, drafts, fingerprint=NEW, fence=before[0].fence)
    for drafts in ([one, replace(two, to_seq=7)], [replace(one, new_items=(FIRST,))]):
        with pytest.raises(RevisionConflict):
            store.cut_over(ADA, drafts, fingerprint=NEW, fence=before[0].fence)
    assert (state_of(store), store.revisions(ADA), store.study_items(ADA)) == before


def test_worker_of_the_former_backbone_is_refused_and_its_job_is_claimed_on_the_new_one(store: MemoryStore) -> None:
    learn(store)
    store.queue.enqueue(ADA, 6)
    (held,) = store.queue.claim("old", backbone=OLD)
    store.cut_over(ADA, anew(), fingerprint=NEW, fence=state_of(store).fence)
    with pytest.raises(LeaseLost):
        store.commit(ADA, draft(5, 5, 6, b"late", fence=held.fence), lease=held)
    assert store.queue.claim("old", backbone=OLD) == []
    (lease,) = store.queue.claim("new", backbone=NEW)
    assert (lease.to_seq, lease.attempt) == (6, 1)
    made = store.commit(ADA, draft(5, 5, 6, b"new 3", fingerprint=NEW, fence=lease.fence), lease=lease)
    assert made.number == 6


def test_jobs_are_claimed_by_backbone(store: MemoryStore) -> None:
    learn(store)
    say(store, 2, BEN)  # of no backbone yet
    for key in (ADA, BEN):
        store.queue.enqueue(key, 6)
    assert [lease.key for lease in store.queue.claim("new", limit=8, lease_seconds=0, backbone=NEW)] == [BEN]
    assert {lease.key for lease in store.queue.claim("old", limit=8, lease_seconds=0, backbone=OLD)} == {ADA, BEN}
    assert {lease.key for lease in store.queue.claim("any", limit=8, lease_seconds=0)} == {ADA, BEN}


def test_forgetting_after_a_cut_over_purges_both_memories_and_learns_again_on_the_new_backbone(
    store: MemoryStore,
) -> None:
    learn(store)
    store.cut_over(ADA, anew(), fingerprint=NEW, fence=state_of(store).fence)
    receipt = store.forget(ADA, [1])
    assert (receipt.revisions, receipt.rebuild_to_seq) == ((1, 2, 4, 5), 4)
    head = store.revision(ADA)
    assert head is not None
    assert (head.number, head.fingerprint, head.has_payload) == (6, NEW, False)
    assert store.queue.claim("old", backbone=OLD) == []
    (lease,) = store.queue.claim("new", backbone=NEW)
    assert lease.stops == (2, 4)
    store.rollback(ADA, 0)  # lets go of the memory: any backbone may learn
    head = store.revision(ADA)
    assert head is not None
    assert head.fingerprint == ""


def test_what_each_memory_ended_with_is_kept(store: MemoryStore) -> None:
    learn(store)
    store.cut_over(ADA, anew(), fingerprint=NEW, fence=state_of(store).fence)
    say(store, 4)
    for number in range(5, 9):
        store.commit(ADA, draft(number, number, number, f"new {number}".encode(), fingerprint=NEW))
    kept = [one.number for one in store.revisions(ADA) if one.has_payload]
    assert kept == [2, 7, 8, 9]  # the newest three, and the last of the former backbone
    assert store.payload(ADA, 2) == b"old 2"
    back = store.rollback(ADA, 2)
    store.commit(ADA, draft(back.number, 5, 5, b"old 3"))
    assert store.payload(ADA, 9) == b"new 8"

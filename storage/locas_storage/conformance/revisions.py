"""Cases about committing revisions and their study items."""

import hashlib
import threading

import pytest

from locas_storage.conformance.samples import ADA, BEN, draft, item, say
from locas_storage.errors import RevisionConflict, RevisionNotFound, UnknownUser
from locas_storage.store import MemoryStore


def test_changing_an_unknown_user_is_refused(store: MemoryStore) -> None:
    with pytest.raises(UnknownUser):
        store.commit(ADA, draft(0, 1, 1))
    with pytest.raises(UnknownUser):
        store.rollback(ADA, 0)
    with pytest.raises(UnknownUser):
        store.record(ADA, "refuse", {})
    assert store.append(ADA, []) == []
    assert store.users() == []


def test_commit_makes_the_next_revision(store: MemoryStore) -> None:
    say(store, 5)
    kept = item(1, 3, "question", "answer")
    first = store.commit(
        ADA,
        draft(
            0, 1, 3, b"bytes", new_items=(kept,), metrics={"last_loss": float("nan"), "steps": 3, "deep": [{"a": None}]}
        ),
    )
    assert (first.number, first.parent, first.restores, first.from_seq, first.to_seq, first.state) == (
        1,
        0,
        None,
        1,
        3,
        "live",
    )
    state = store.state(ADA)
    assert state is not None
    assert first.payload_bytes == 5
    # Plain digests tell who keeps the same: where content is encrypted they are keyed.
    assert (first.payload_sha256 == hashlib.sha256(b"bytes").hexdigest()) is not state.is_encrypted
    assert first.metrics.as_json() == {"last_loss": "nan", "steps": 3, "deep": [{"a": None}]}
    assert (first.metrics.steps, first.metrics.model_extra) == (3, {"deep": [{"a": None}]})
    span = b"".join(hashlib.sha256(turn.content.encode()).digest() for turn in store.turns(ADA, upto=3))
    assert (first.turns_sha256 == hashlib.sha256(span).hexdigest()) is not state.is_encrypted
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
    assert (found.item_id, found.kind, found.from_seq, found.to_seq, found.turn_seq) == (
        kept.item_id,
        "question",
        1,
        3,
        1,
    )
    assert (found.question, found.answer, found.teacher, found.added_rev, found.retired_rev) == (
        "question",
        "answer",
        b"\x00\xff",
        1,
        None,
    )


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
def test_commit_that_does_not_follow_changes_nothing(
    store: MemoryStore, parent: int, from_seq: int, to_seq: int
) -> None:
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

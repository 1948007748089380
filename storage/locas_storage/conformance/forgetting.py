"""Cases about forgetting turns, erasing users, and turns that expire."""

import datetime as dt
import time

import pytest

from locas_storage.conformance.samples import ADA, BEN, draft, item, say
from locas_storage.errors import LeaseLost, RevisionConflict, RevisionNotFound, TurnNotFound, UnknownUser, UserErased
from locas_storage.records.turns import TurnDraft, UserState
from locas_storage.store import MemoryStore


def counters(store: MemoryStore) -> UserState:
    state = store.state(ADA)
    assert state is not None
    return state


def three_consolidations(store: MemoryStore) -> None:
    """Eight turns, of which two each are learnt three times."""
    say(store, 8)
    store.commit(ADA, draft(0, 1, 2, b"first", new_items=(item(1, 2, "one"),)))
    store.commit(ADA, draft(1, 3, 4, b"second", new_items=(item(3, 4, "two"), item(4, 4, "three"))))
    store.commit(ADA, draft(2, 5, 6, b"third", new_items=(item(5, 6, "four"),)))


def test_forgotten_turn_is_gone_at_once_with_all_that_saw_it(store: MemoryStore) -> None:
    three_consolidations(store)
    assert [turn.seq for turn in store.turns(ADA)] == list(range(1, 9))
    before = counters(store)

    receipt = store.forget(ADA, [3])
    assert [turn.seq for turn in store.turns(ADA)] == [1, 2, 4, 5, 6, 7, 8]
    assert "text 2" not in {turn.content for turn in store.turns(ADA)}
    assert 3 not in [found.seq for found in store.search(ADA, "text 2")]
    head = store.revision(ADA)
    assert head is not None
    assert (head.number, head.restores, head.parent, head.to_seq) == (4, 1, 3, 2)
    assert store.payload(ADA, 4) == b"first"
    assert [kept.question for kept in store.study_items(ADA, with_retired=True)] == ["one"]
    after = counters(store)
    assert (after.head, after.consolidated_seq, after.next_seq, after.epoch) == (4, 2, 9, before.epoch)
    assert after.fence > before.fence

    assert (receipt.action, receipt.turns, receipt.revisions, receipt.study_items) == ("forget", (3,), (2, 3), 3)
    assert (len(receipt.payloads), receipt.payload_bytes, receipt.head, receipt.rebuild_to_seq) == (
        2,
        len(b"second" + b"third"),
        4,
        6,
    )
    assert receipt.at.utcoffset() == dt.timedelta(0)
    (line,) = store.audit(ADA)
    assert (line.action, line.facts["turns"], line.facts["revisions"], line.facts["rebuild_to_seq"]) == (
        "forget",
        1,
        [2, 3],
        6,
    )


def test_purged_revisions_keep_their_numbers_and_nothing_else(store: MemoryStore) -> None:
    three_consolidations(store)
    digest = store.revisions(ADA)[1].turns_sha256
    store.forget(ADA, [3])
    purged = [revision for revision in store.revisions(ADA) if revision.state == "erased"]
    assert [(one.number, one.parent, one.from_seq, one.to_seq) for one in purged] == [(2, 1, 3, 4), (3, 2, 5, 6)]
    for one in purged:
        assert (one.payload_sha256, one.payload_bytes, one.metrics.as_json(), one.has_payload) == (None, 0, {}, False)
        assert one.turns_sha256 != digest
        with pytest.raises(RevisionNotFound):
            store.payload(ADA, one.number)
        with pytest.raises(RevisionNotFound):
            store.rollback(ADA, one.number)
    assert store.rollback(ADA, 1).restores == 1  # the clean one can be had


def test_turn_of_the_window_is_forgotten_without_a_new_revision(store: MemoryStore) -> None:
    three_consolidations(store)
    before = counters(store)
    receipt = store.forget(ADA, [7, 8])
    assert (receipt.turns, receipt.revisions, receipt.head, receipt.rebuild_to_seq) == ((7, 8), (), 3, 0)
    assert store.payload(ADA, 3) == b"third"
    assert [turn.seq for turn in store.turns(ADA, newest=2)] == [5, 6]
    assert store.queue.jobs() == []
    with pytest.raises(RevisionConflict):  # whoever read them before may not commit
        store.commit(ADA, draft(3, 7, 8, b"saw it", fence=before.fence))
    assert store.append(ADA, [TurnDraft("user", "next")])[0].seq == 9
    assert store.commit(ADA, draft(3, 7, 9, fence=counters(store).fence)).to_seq == 9


def test_rebuild_is_queued_with_the_former_stops(store: MemoryStore) -> None:
    three_consolidations(store)
    store.forget(ADA, [3])
    (job,) = store.queue.jobs()
    assert (job.state, job.to_seq, job.is_rebuild) == ("ready", 6, True)
    (lease,) = store.queue.claim("worker", limit=8)
    assert (lease.to_seq, lease.stops) == (6, (4, 6))
    store.commit(ADA, draft(4, 3, 4, b"second again", fence=counters(store).fence), lease=lease)
    assert store.queue.jobs()[0].state == "leased"  # the same lease goes on
    store.commit(ADA, draft(5, 5, 6, b"third again", fence=counters(store).fence), lease=lease)
    assert store.queue.jobs() == []
    assert store.payload(ADA, 6) == b"third again"


def test_forgetting_again_keeps_the_stops_of_a_rebuild_that_waits(store: MemoryStore) -> None:
    three_consolidations(store)
    store.queue.enqueue(ADA, 8)
    store.forget(ADA, [5])
    (held,) = store.queue.claim("worker")
    assert (held.to_seq, held.stops) == (8, (6,))
    receipt = store.forget(ADA, [1])
    assert (receipt.revisions, receipt.head, receipt.rebuild_to_seq) == ((1, 2, 4), 5, 6)
    empty = store.revision(ADA)
    assert empty is not None
    assert (empty.restores, empty.has_payload) == (0, False)
    with pytest.raises(LeaseLost):
        store.commit(ADA, draft(5, 1, 2), lease=held)
    (lease,) = store.queue.claim("worker")
    assert (lease.to_seq, lease.stops) == (8, (2, 4, 6))


def test_branch_that_was_rolled_back_is_purged_too(store: MemoryStore) -> None:
    three_consolidations(store)
    store.rollback(ADA, 1)  # 4
    store.commit(ADA, draft(4, 3, 8, b"other branch", new_items=(item(3, 8, "five"),)))
    store.rollback(ADA, 3)  # 6
    receipt = store.forget(ADA, [7])  # only the other branch saw it
    assert (receipt.revisions, receipt.head, receipt.study_items) == ((5,), 6, 1)
    assert store.payload(ADA, 6) == b"third"
    receipt = store.forget(ADA, [2])
    assert receipt.revisions == (1, 2, 3, 4, 6)
    assert receipt.payload_bytes == len(b"first" + b"third")  # the second was pruned before
    (lease,) = store.queue.claim("worker")
    assert lease.stops == (2, 4, 6)  # what led to the current memory; the other branch did not


def test_base_that_was_pruned_is_passed_over(store: MemoryStore) -> None:
    say(store, 10)
    for number in range(5):
        store.commit(
            ADA,
            draft(
                number, 2 * number + 1, 2 * number + 2, new_items=(item(2 * number + 1, 2 * number + 2, str(number)),)
            ),
        )
    assert [revision.state for revision in store.revisions(ADA)] == ["pruned", "pruned", "live", "live", "live"]
    receipt = store.forget(ADA, [5])
    assert (receipt.revisions, receipt.head, receipt.rebuild_to_seq) == ((3, 4, 5), 6, 10)
    head = store.revision(ADA)
    assert head is not None
    assert head.restores == 0  # the first two saw nothing, but their bytes are gone
    assert store.study_items(ADA) == []
    (lease,) = store.queue.claim("worker")
    assert lease.stops == (2, 4, 6, 8, 10)


def test_retired_items_are_in_force_again_when_what_retired_them_is_forgotten(store: MemoryStore) -> None:
    say(store, 4)
    old = item(1, 2, "old")
    store.commit(ADA, draft(0, 1, 2, new_items=(old,)))
    store.commit(ADA, draft(1, 3, 4, new_items=(item(3, 4, "new"),), retired_items=(old.item_id,)))
    assert [kept.question for kept in store.study_items(ADA)] == ["new"]
    store.forget(ADA, [4])
    assert [kept.question for kept in store.study_items(ADA)] == ["old"]


def test_forgotten_key_does_not_come_back(store: MemoryStore) -> None:
    store.append(
        ADA, [TurnDraft("user", "secret", idempotency_key="k1", name="Ada", session="s"), TurnDraft("user", "other")]
    )
    store.forget(ADA, [1])
    (again,) = store.append(ADA, [TurnDraft("user", "secret", idempotency_key="k1")])
    assert (again.seq, again.content, again.is_forgotten, again.name, again.session, again.token_count) == (
        1,
        "",
        True,
        None,
        None,
        0,
    )
    assert [turn.content for turn in store.turns(ADA)] == ["other"]


def test_corrected_turn_is_replaced_and_what_saw_it_is_gone(store: MemoryStore) -> None:
    three_consolidations(store)
    store.search(ADA, "text")  # whatever a search keeps to find turns by is there
    said, before = store.turns(ADA)[2], counters(store)
    new = TurnDraft("user", "other words", name="Ada", session="s", at=said.at, trust="user", token_count=7)
    made = store.correct(ADA, 3, new)
    assert (made.seq, made.role, made.content, made.name, made.session) == (9, "user", "other words", "Ada", "s")
    assert (made.at, made.token_count, made.idempotency_key, made.is_forgotten) == (
        said.at,
        7,
        said.idempotency_key,
        False,
    )
    assert (made.receipt.action, made.receipt.turns, made.receipt.revisions, made.receipt.study_items) == (
        "forget",
        (3,),
        (2, 3),
        3,
    )
    assert (made.receipt.head, made.receipt.rebuild_to_seq) == (4, 6)

    assert [turn.seq for turn in store.turns(ADA)] == [1, 2, 4, 5, 6, 7, 8, 9]
    assert store.turns(ADA)[-1].content == "other words"
    assert [found.seq for found in store.search(ADA, "other words")] == [9]
    assert 3 not in [found.seq for found in store.search(ADA, "text 2")]
    assert store.payload(ADA, 4) == b"first"
    assert [kept.question for kept in store.study_items(ADA, with_retired=True)] == ["one"]
    after = counters(store)
    assert (after.head, after.consolidated_seq, after.next_seq) == (4, 2, 10)
    with pytest.raises(RevisionConflict):  # whoever read the old words before may not commit
        store.commit(ADA, draft(4, 3, 8, b"saw it", fence=before.fence))
    (job,) = store.queue.jobs()
    assert (job.to_seq, job.is_rebuild) == (6, True)
    (line,) = store.audit(ADA)
    assert (line.action, line.facts["why"], line.facts["turns"]) == ("forget", "corrected", 1)
    assert store.commit(ADA, draft(4, 3, 9, fence=after.fence)).to_seq == 9


def test_corrected_turn_is_known_by_its_key(store: MemoryStore) -> None:
    store.append(
        ADA, [TurnDraft("user", "first words", idempotency_key="k1"), TurnDraft("user", "other", idempotency_key="k2")]
    )
    store.append(BEN, [TurnDraft("user", "ben's words", idempotency_key="k1")])
    store.correct(ADA, 1, TurnDraft("user", "second words", idempotency_key="not looked at"))
    (late,) = store.append(ADA, [TurnDraft("user", "first words", idempotency_key="k1")])
    assert (late.seq, late.content, late.is_forgotten) == (3, "second words", False)
    made = store.correct(ADA, 3, TurnDraft("user", "third words"))
    assert (made.seq, made.idempotency_key, made.receipt.turns) == (4, "k1", (3,))
    assert [(turn.seq, turn.content) for turn in store.turns(ADA)] == [(2, "other"), (4, "third words")]
    assert store.append(ADA, [TurnDraft("user", "new", idempotency_key="not looked at")])[0].seq == 5
    assert [turn.content for turn in store.turns(BEN)] == ["ben's words"]


def test_correcting_what_is_not_there_is_refused(store: MemoryStore) -> None:
    three_consolidations(store)
    store.append(ADA, [TurnDraft("user", "over", expires_at=dt.datetime.now(dt.UTC) - dt.timedelta(days=1))])
    store.forget(ADA, [7])
    state, turns, trail = store.state(ADA), store.turns(ADA), store.audit(ADA)
    for seq in (0, 7, 9, 10, -1, 10**30):  # turn 7 is forgotten, the time of turn 9 is over
        with pytest.raises(TurnNotFound):
            store.correct(ADA, seq, TurnDraft("user", "other words"))
    with pytest.raises(UnknownUser):
        store.correct(BEN, 1, TurnDraft("user", "other words"))
    assert (store.state(ADA), store.turns(ADA), store.audit(ADA)) == (state, turns, trail)
    store.erase(ADA)
    with pytest.raises(UserErased):
        store.correct(ADA, 1, TurnDraft("user", "other words"))


def test_forgetting_twice_changes_nothing(store: MemoryStore) -> None:
    three_consolidations(store)
    store.forget(ADA, [3, 3])
    state, revisions, jobs = store.state(ADA), store.revisions(ADA), store.queue.jobs()
    again = store.forget(ADA, [3])
    assert (again.turns, again.revisions, again.study_items, again.payloads) == ((), (), 0, ())
    assert (store.state(ADA), store.revisions(ADA), store.queue.jobs()) == (state, revisions, jobs)


@pytest.mark.parametrize("seqs", [[0], [9], [-1], [3, 10**30]])
def test_forgetting_what_was_never_said_is_refused(store: MemoryStore, seqs: list[int]) -> None:
    three_consolidations(store)
    with pytest.raises(TurnNotFound):
        store.forget(ADA, seqs)
    with pytest.raises(UnknownUser):
        store.forget(BEN, [1])
    assert len(store.turns(ADA)) == 8
    assert store.audit(ADA) == []


def test_erased_user_is_gone_and_others_are_not(store: MemoryStore) -> None:
    three_consolidations(store)
    store.queue.enqueue(ADA, 8)
    say(store, 2, BEN)
    store.commit(BEN, draft(0, 1, 2, b"first"))
    ben = (store.turns(BEN), store.revisions(BEN), store.payload(BEN, 1), store.state(BEN))

    receipt = store.erase(ADA)
    assert (receipt.action, len(receipt.turns), receipt.revisions, receipt.study_items) == ("erase", 8, (1, 2, 3), 4)
    assert (len(receipt.payloads), receipt.payload_bytes, receipt.head) == (3, len(b"first" + b"second" + b"third"), 0)
    assert (store.turns(ADA), store.state(ADA), store.revisions(ADA), store.revision(ADA)) == ([], None, [], None)
    assert (store.study_items(ADA, with_retired=True), store.queue.jobs(), store.search(ADA, "text")) == ([], [], [])
    assert store.users() == [BEN]
    with pytest.raises(RevisionNotFound):
        store.payload(ADA, 1)
    assert [entry.action for entry in store.audit(ADA)] == ["erase"]
    assert ben == (store.turns(BEN), store.revisions(BEN), store.payload(BEN, 1), store.state(BEN))


def test_late_writers_are_refused_after_erasure(store: MemoryStore) -> None:
    three_consolidations(store)
    store.queue.enqueue(ADA, 8)
    (lease,) = store.queue.claim("worker")
    store.erase(ADA)
    for act in (
        lambda: say(store, 1),
        lambda: store.append(ADA, [TurnDraft("user", "late")], enqueue=1),
        lambda: store.commit(ADA, draft(3, 7, 8)),
        lambda: store.rollback(ADA, 1),
        lambda: store.forget(ADA, [1]),
        lambda: store.record(ADA, "refuse", {}),
        lambda: store.queue.enqueue(ADA, 1),
    ):
        with pytest.raises(UserErased):
            act()
    for act in (
        lambda: store.commit(ADA, draft(3, 7, 8), lease=lease),
        lambda: store.queue.complete(lease, 8),
        lambda: store.queue.heartbeat(lease),
    ):
        with pytest.raises((UserErased, LeaseLost)):
            act()
    assert (store.turns(ADA), store.users()) == ([], [])
    assert store.erase(ADA).turns == ()  # asked for again


def test_erased_user_can_begin_again(store: MemoryStore) -> None:
    three_consolidations(store)
    store.queue.enqueue(ADA, 8)
    (lease,) = store.queue.claim("worker")
    before = counters(store)
    store.erase(ADA)
    store.reinstate(ADA)
    after = counters(store)
    assert (after.next_seq, after.head, after.consolidated_seq) == (1, 0, 0)
    assert after.fence > before.fence
    assert after.epoch == before.epoch + 1
    say(store, 8)
    store.queue.enqueue(ADA, 8)
    with pytest.raises(LeaseLost):
        store.commit(ADA, draft(0, 1, 8, b"of the erased"), lease=lease)
    with pytest.raises(RevisionConflict):
        store.commit(ADA, draft(0, 1, 8, b"of the erased", fence=before.fence))
    assert store.commit(ADA, draft(0, 1, 8, b"new", fence=counters(store).fence)).number == 1
    store.reinstate(ADA)  # nothing was erased: nothing changes
    assert store.payload(ADA, 1) == b"new"
    with pytest.raises(UnknownUser):
        store.reinstate(BEN)
    with pytest.raises(UnknownUser):
        store.erase(BEN)


def test_expired_turn_is_not_shown_and_then_forgotten(store: MemoryStore) -> None:
    say(store, 1, BEN)  # a store may first have to make its tables, which takes longer than what ends soon lasts
    now, day = dt.datetime.now(dt.UTC), dt.timedelta(days=1)
    ends = {"stays": now + day, "ends soon": now + dt.timedelta(seconds=1), "ended": now - day, "for ever": None}
    store.append(ADA, [TurnDraft("user", content, expires_at=expires_at) for content, expires_at in ends.items()])
    assert [turn.content for turn in store.turns(ADA)] == ["stays", "ends soon", "for ever"]
    assert store.turns(ADA)[0].expires_at == now + dt.timedelta(days=1)
    store.commit(ADA, draft(0, 1, 4, b"saw them", new_items=(item(1, 4),)))
    time.sleep(1.1)
    assert [turn.content for turn in store.turns(ADA)] == ["stays", "for ever"]
    assert store.search(ADA, "ends soon") == []
    assert store.expire(BEN) == {}
    receipts = store.expire()
    assert set(receipts) == {ADA}
    assert (receipts[ADA].turns, receipts[ADA].revisions, receipts[ADA].rebuild_to_seq) == ((2, 3), (1,), 4)
    assert store.expire() == {}
    assert store.study_items(ADA, with_retired=True) == []
    assert store.audit(ADA)[-1].facts["why"] == "expired"

"""Cases about the queue of consolidations.

Leases that run out at once stand for workers that fell silent.
"""

import threading

import pytest

from locas_storage.conformance.samples import ADA, BEN, draft, item, say
from locas_storage.errors import InvalidRevision, LeaseLost, RevisionConflict, UnknownUser
from locas_storage.records.jobs import Lease
from locas_storage.records.turns import TurnDraft, UserKey
from locas_storage.rules.queue import MAX_ATTEMPTS
from locas_storage.store import JobQueue, MemoryStore


def claim(store: MemoryStore, owner: str = "worker", *, lease_seconds: float = 300.0) -> Lease:
    (lease,) = store.queue.claim(owner, lease_seconds=lease_seconds)
    return lease


def in_queue(store: MemoryStore) -> list[tuple[str, str, int, int]]:
    return [(job.key.user, job.state, job.to_seq, job.attempts) for job in store.queue.jobs()]


def fence(store: MemoryStore) -> int:
    state = store.state(ADA)
    assert state is not None
    return state.fence


def test_queue_keeps_the_protocol(store: MemoryStore) -> None:
    assert isinstance(store.queue, JobQueue)
    assert store.queue.claim("worker") == []
    assert store.queue.jobs() == []


def test_turns_are_asked_for_as_they_are_appended(store: MemoryStore) -> None:
    store.append(ADA, [TurnDraft("user", "one", token_count=3), TurnDraft("user", "two", token_count=4)], enqueue=2)
    assert in_queue(store) == [("ada", "ready", 2, 0)]
    lease = claim(store)
    assert (lease.key, lease.to_seq, lease.pending_tokens, lease.attempt, lease.stops) == (ADA, 2, 7, 1, ())
    assert in_queue(store) == [("ada", "leased", 2, 1)]
    assert store.queue.claim("other") == []


def test_user_has_one_open_job(store: MemoryStore) -> None:
    say(store, 6)
    for to_seq in (3, 5, 4, 99):
        store.queue.enqueue(ADA, to_seq)
    assert in_queue(store) == [("ada", "ready", 6, 0)]  # no more than there are turns
    with pytest.raises(UnknownUser):
        store.queue.enqueue(BEN, 1)
    assert store.queue.jobs("other") == []


def test_learnt_turns_are_not_asked_for(store: MemoryStore) -> None:
    say(store, 3)
    store.commit(ADA, draft(0, 1, 3))
    store.queue.enqueue(ADA, 3)
    assert store.queue.jobs() == []


def test_commit_under_a_lease_ends_the_job(store: MemoryStore) -> None:
    say(store, 3)
    store.queue.enqueue(ADA, 2)
    lease = claim(store)
    saved = store.commit(ADA, draft(0, 1, 2, new_items=(item(),), fence=fence(store)), lease=lease)
    assert saved.number == 1
    assert store.queue.jobs() == []
    with pytest.raises(LeaseLost):
        store.commit(ADA, draft(1, 3, 3), lease=lease)
    assert len(store.revisions(ADA)) == 1


def test_what_is_asked_for_meanwhile_stays_asked_for(store: MemoryStore) -> None:
    say(store, 4)
    store.queue.enqueue(ADA, 2)
    lease = claim(store)
    store.queue.enqueue(ADA, 4)
    store.commit(ADA, draft(0, 1, 2), lease=lease)
    assert in_queue(store) == [("ada", "ready", 4, 0)]
    assert claim(store).to_seq == 4


def test_worker_that_wakes_late_is_refused(store: MemoryStore) -> None:
    say(store, 3)
    store.queue.enqueue(ADA, 3)
    late = claim(store, "late", lease_seconds=0)
    again = claim(store, "late", lease_seconds=300)  # even under the same name
    assert again.fence > late.fence
    for act in (
        lambda: store.queue.heartbeat(late),
        lambda: store.queue.release(late),
        lambda: store.queue.fail(late, "too late"),
        lambda: store.queue.complete(late, 3, refusal={"reason": "drift"}),
        lambda: store.commit(ADA, draft(0, 1, 3, b"stale", new_items=(item(),)), lease=late),
    ):
        with pytest.raises(LeaseLost):
            act()
    assert (store.revisions(ADA), store.study_items(ADA), store.audit(ADA)) == ([], [], [])
    assert in_queue(store) == [("ada", "leased", 3, 2)]
    assert store.commit(ADA, draft(0, 1, 3, fence=fence(store)), lease=again).number == 1


def test_lease_that_ran_out_holds_until_another_claims(store: MemoryStore) -> None:
    say(store, 2)
    store.queue.enqueue(ADA, 2)
    slow = claim(store, lease_seconds=0)
    store.queue.heartbeat(slow, lease_seconds=300)
    assert store.queue.claim("other") == []
    assert store.commit(ADA, draft(0, 1, 2), lease=slow).number == 1


def test_claim_overtakes_a_consolidation_without_a_lease(store: MemoryStore) -> None:
    say(store, 2)
    store.queue.enqueue(ADA, 2)
    read_at = fence(store)
    lease = claim(store)
    with pytest.raises(RevisionConflict):
        store.commit(ADA, draft(0, 1, 2, b"by hand", fence=read_at))
    store.commit(ADA, draft(0, 1, 2, b"by the worker", fence=fence(store)), lease=lease)
    assert store.payload(ADA, 1) == b"by the worker"


def test_consolidation_without_a_lease_overtakes_a_worker(store: MemoryStore) -> None:
    say(store, 2)
    store.queue.enqueue(ADA, 2)
    lease = claim(store)
    store.commit(ADA, draft(0, 1, 2, b"by hand"))
    with pytest.raises(RevisionConflict):
        store.commit(ADA, draft(0, 1, 2, b"by the worker"), lease=lease)
    store.queue.complete(lease, 2)
    assert (store.queue.jobs(), len(store.revisions(ADA))) == ([], 1)


def test_failed_job_is_tried_again_and_dies(store: MemoryStore) -> None:
    store.append(ADA, [TurnDraft("user", "one", token_count=5)], enqueue=1)
    for attempt in range(1, MAX_ATTEMPTS):
        lease = claim(store)
        assert lease.attempt == attempt
        store.queue.fail(lease, "OutOfMemory", retry_seconds=0)
        assert store.queue.jobs()[0].reason == "OutOfMemory"
    store.queue.fail(claim(store), "OutOfMemory", retry_seconds=0)
    assert store.queue.claim("worker") == []
    (dead,) = store.queue.jobs()
    assert (dead.state, dead.reason, dead.attempts, dead.to_seq) == ("dead", "OutOfMemory", MAX_ATTEMPTS, 1)
    (refusal,) = store.audit(ADA)
    assert refusal.action == "refuse"
    assert {
        "reason": "OutOfMemory",
        "to_seq": 1,
        "tokens": 5,
        "attempts": MAX_ATTEMPTS,
    }.items() <= refusal.facts.items()
    store.queue.enqueue(ADA, 1)  # somebody insists
    assert [state for _, state, _, _ in in_queue(store)] == ["dead", "ready"]
    for _ in range(MAX_ATTEMPTS):
        store.queue.fail(claim(store), "Again", retry_seconds=0)
    assert [(job.state, job.reason) for job in store.queue.jobs()] == [("dead", "Again")]  # the last letter is kept


def test_job_whose_workers_fall_silent_dies(store: MemoryStore) -> None:
    say(store, 1)
    store.queue.enqueue(ADA, 1)
    for _ in range(MAX_ATTEMPTS):
        claim(store, lease_seconds=0)
    assert store.queue.claim("worker") == []
    assert [(job.state, job.reason) for job in store.queue.jobs()] == [("dead", "lease expired")]


def test_failed_job_waits(store: MemoryStore) -> None:
    say(store, 1)
    store.queue.enqueue(ADA, 1)
    store.queue.fail(claim(store), "Busy", retry_seconds=60)
    assert store.queue.claim("worker") == []
    assert in_queue(store) == [("ada", "ready", 1, 1)]


def test_released_job_was_never_claimed(store: MemoryStore) -> None:
    say(store, 1)
    store.queue.enqueue(ADA, 1)
    store.queue.release(claim(store))
    assert in_queue(store) == [("ada", "ready", 1, 0)]
    assert claim(store).attempt == 1


def test_refused_turns_are_settled_with_a_line_in_the_audit_trail(store: MemoryStore) -> None:
    say(store, 2)
    store.queue.enqueue(ADA, 2)
    store.queue.complete(claim(store), 2, refusal={"reason": "drift", "loss": float("nan")})
    assert store.queue.jobs() == []
    assert [(entry.action, entry.facts["reason"], entry.facts["loss"]) for entry in store.audit(ADA)] == [
        ("refuse", "drift", "nan")
    ]


@pytest.mark.parametrize("reason", ["", "My dog's name", "x" * 81, "ä", "1st", "a\nb"])
def test_reason_is_a_code(store: MemoryStore, reason: str) -> None:
    say(store, 1)
    store.queue.enqueue(ADA, 1)
    with pytest.raises(InvalidRevision) as caught:
        store.queue.fail(claim(store), reason)
    assert reason not in str(caught.value) or not reason


def test_jobs_of_similar_length_are_claimed_together(store: MemoryStore) -> None:
    lengths = {"a": 1_000, "b": 10_000, "c": 1_900, "d": 600, "e": 1_200}
    for user, tokens in lengths.items():
        store.append(UserKey("default", user), [TurnDraft("user", "x", token_count=tokens)], enqueue=1)
    assert sorted(lease.key.user for lease in store.queue.claim("one", limit=3)) == ["a", "c", "d"]
    assert sorted(lease.key.user for lease in store.queue.claim("two", limit=8)) == ["b"]
    assert [lease.key.user for lease in store.queue.claim("three", limit=8)] == ["e"]
    assert store.queue.claim("four", limit=8) == []
    assert store.queue.claim("four", limit=0) == []


def test_job_of_one_user_can_be_claimed(store: MemoryStore) -> None:
    for key in (ADA, BEN):
        say(store, 1, key)
        store.queue.enqueue(key, 1)
    assert [lease.key for lease in store.queue.claim("worker", limit=5, key=BEN)] == [BEN]
    assert store.queue.claim("worker", limit=5, key=BEN) == []


def test_no_job_is_held_twice(store: MemoryStore) -> None:
    keys = [UserKey("default", f"user {number}") for number in range(12)]
    for key in keys:
        store.append(key, [TurnDraft("user", "x", token_count=5)], enqueue=1)
    held: list[Lease] = []
    errors: list[BaseException] = []
    barrier = threading.Barrier(6)

    def work(worker: int) -> None:
        barrier.wait()
        try:
            while leases := store.queue.claim(f"worker {worker}", limit=2):
                for lease in leases:
                    store.commit(lease.key, draft(0, 1, 1, f"by {worker}".encode()), lease=lease)
                held.extend(leases)
        except BaseException as error:  # noqa: BLE001  a thread must not die unseen
            errors.append(error)

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert sorted(lease.key.user for lease in held) == sorted(key.user for key in keys)
    assert all(len(store.revisions(key)) == 1 for key in keys)
    assert store.queue.jobs() == []


def test_users_of_other_tenants_have_jobs_of_their_own(store: MemoryStore) -> None:
    other = UserKey("other", "ada")
    for key in (ADA, other):
        say(store, 2, key)
        store.queue.enqueue(key, 2)
    (lease,) = store.queue.claim("worker", key=other)
    assert lease.key == other
    assert [job.key for job in store.queue.jobs("other")] == [other]
    with pytest.raises(LeaseLost):
        store.commit(ADA, draft(0, 1, 2), lease=lease)
    assert store.revisions(ADA) == []

"""Cases about which payloads are kept.

The store of the fixture keeps three different payloads.
"""

import pytest

from locas_storage.conformance.samples import ADA, BEN, draft, say
from locas_storage.errors import RevisionNotFound
from locas_storage.records.turns import IMPORTED, TurnDraft
from locas_storage.store import MemoryStore


def commit_each(store: MemoryStore, count: int) -> None:
    """Let a user say and learn one turn after the other, each into a payload of its own."""
    say(store, count)
    for number in range(count):
        store.commit(ADA, draft(number, number + 1, number + 1, f"payload {number + 1}".encode()))


def kept(store: MemoryStore) -> list[int]:
    """Return the numbers of the revisions whose payload is kept, after reading each."""
    numbers = [revision.number for revision in store.revisions(ADA) if revision.has_payload]
    assert [len(store.payload(ADA, number)) for number in numbers] == [
        store.revisions(ADA)[number - 1].payload_bytes for number in numbers
    ]
    return numbers


def test_old_payloads_are_pruned_and_their_rows_stay(store: MemoryStore) -> None:
    commit_each(store, 3)
    before = store.revisions(ADA)
    assert kept(store) == [1, 2, 3]
    say(store, 2)
    store.commit(ADA, draft(3, 4, 4, b"payload 4"))
    store.commit(ADA, draft(4, 5, 5, b"payload 5"))
    assert kept(store) == [3, 4, 5]
    after = store.revisions(ADA)
    assert [revision.state for revision in after] == ["pruned", "pruned", "live", "live", "live"]
    assert not after[0].has_payload
    for old, new in zip(before, after, strict=False):
        assert (old.number, old.parent, old.turns_sha256, old.payload_sha256, old.payload_bytes) == (
            new.number,
            new.parent,
            new.turns_sha256,
            new.payload_sha256,
            new.payload_bytes,
        )
    with pytest.raises(RevisionNotFound):
        store.payload(ADA, 1)


def test_pruned_revision_cannot_be_restored(store: MemoryStore) -> None:
    commit_each(store, 4)
    before = (store.state(ADA), store.revisions(ADA))
    with pytest.raises(RevisionNotFound):
        store.rollback(ADA, 1)
    assert (store.state(ADA), store.revisions(ADA)) == before
    assert store.rollback(ADA, 2).restores == 2
    assert store.rollback(ADA, 0).restores == 0


def test_imported_memory_is_kept_until_its_turn_is_forgotten(store: MemoryStore) -> None:
    store.append(ADA, [TurnDraft("system", "What was said before.", trust=IMPORTED)])
    store.commit(ADA, draft(0, 1, 1, b"learnt elsewhere"))
    say(store, 5)
    for number in range(1, 6):
        store.commit(ADA, draft(number, number + 1, number + 1, f"payload {number + 1}".encode()))
    assert kept(store) == [1, 4, 5, 6]
    store.forget(ADA, [2])
    assert store.payload(ADA, store.revisions(ADA)[-1].number) == b"learnt elsewhere"  # where learning begins again
    store.forget(ADA, [1])
    assert kept(store) == []


def test_rollback_keeps_every_payload(store: MemoryStore) -> None:
    commit_each(store, 3)
    for number in (1, 2, 3, 1, 0, 1):
        store.rollback(ADA, number)
    assert kept(store) == [1, 2, 3, 4, 5, 6, 7, 9]
    say(store, 1)
    store.commit(ADA, draft(9, 2, 4, b"payload 4"))
    # 4, then 1 (restored last) and 3 are the newest three; 2 was current longest ago.
    assert kept(store) == [1, 3, 4, 6, 7, 9, 10]
    assert store.payload(ADA, 9) == store.payload(ADA, 1) == b"payload 1"
    assert {revision.state for revision in store.revisions(ADA) if revision.number in (2, 5)} == {"pruned"}


def test_pruned_payload_may_come_back(store: MemoryStore) -> None:
    commit_each(store, 4)
    say(store, 1)
    store.commit(ADA, draft(4, 5, 5, b"payload 1"))
    assert store.payload(ADA, 5) == b"payload 1"
    assert kept(store) == [3, 4, 5]  # revision 1 stays pruned, though its bytes are here again


def test_pruning_leaves_others_alone(store: MemoryStore) -> None:
    say(store, 1, BEN)
    store.commit(BEN, draft(0, 1, 1, b"payload 1"))
    commit_each(store, 4)
    assert store.payload(BEN, 1) == b"payload 1"

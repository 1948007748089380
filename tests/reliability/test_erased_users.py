"""Users who are erased.

No row, no byte and no probability of what they said is left, late writers are refused, and nobody else notices.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass

import pytest
from sqlalchemy import select

from locas_agent import AgentMemory, Backbone, Explanation
from locas_agent.memory.serialization import to_bytes
from locas_storage import Lease, LeaseLost, RevisionDraft, SqlMemoryStore, TurnDraft, UserErased, UserKey
from locas_storage.conformance.samples import draft, item
from locas_storage.sql.tables import rows
from locas_storage.sql.tables.schema import audit, metadata, subject
from tests.conftest import MakeMemory
from tests.reliability.conftest import Record, Sizes
from tests.reliability.places import DATABASES, Place
from tests.unit.agent.fake_learner import quick_agent

LEAST_CHANGE_NATS = 1e-2
"""What a memory of these tests changes at least, somewhere among a canary's tokens."""
TABLES = [table for table in metadata.sorted_tables if "subject_id" in table.c]


@dataclass(frozen=True)
class Life:
    """A user who said and learnt something.

    Attributes:
        key: who.
        canary: text of a turn, of a study item, and a name.
        payload: of the current revision; it lies in a file.
        lease: of a worker that learns the next turn.
        bare: log-probability of each token of the canary without a memory.
    """

    key: UserKey
    canary: str
    payload: bytes
    lease: Lease
    bare: list[float]


def live(agent: AgentMemory, make_memory: MakeMemory, number: int) -> Life:
    """Say something, learn it, and let a worker begin to learn what is said next."""
    user, store = agent.for_user(f"user {number:02}"), agent.store
    canary = f"my word is zanzibar {hashlib.sha256(user.key.user.encode()).hexdigest()[:16]}"
    user.add("user", canary, name=canary)
    payload = to_bytes(make_memory(number, width=3))
    asked = (item(1, 1, f"What is {canary}?", canary),)
    store.commit(user.key, draft(0, 1, 1, payload, fingerprint=agent.backbone.fingerprint, new_items=asked))
    user.add("user", "and more")
    store.queue.enqueue(user.key, 2)
    (lease,) = store.queue.claim("late", key=user.key)
    explained = user.explain(canary)
    assert change_of(explained) > LEAST_CHANGE_NATS
    return Life(user.key, canary, payload, lease, [token.logprob_without for token in explained.tokens])


def change_of(explained: Explanation) -> float:
    """Return how much the memory changes, at the token where it changes most."""
    return max(abs(token.logprob - token.logprob_without) for token in explained.tokens)


def refusals(store: SqlMemoryStore, life: Life) -> int:
    """Try whatever a late writer may try; return how many ways there are, all of them refused."""
    learnt: RevisionDraft = draft(1, 2, 2, b"late", fence=life.lease.fence)
    late: list[Callable[[], object]] = [
        lambda: store.append(life.key, [TurnDraft("user", life.canary)]),
        lambda: store.append(life.key, [TurnDraft("user", life.canary)], enqueue=2),
        lambda: store.queue.enqueue(life.key, 2),
        lambda: store.commit(life.key, learnt),
        lambda: store.commit(life.key, learnt, lease=life.lease),
        lambda: store.rollback(life.key, 1),
        lambda: store.forget(life.key, [1]),
        lambda: store.record(life.key, "refuse", {"reason": "late"}),
        lambda: store.queue.heartbeat(life.lease),
        lambda: store.queue.complete(life.lease, 2),
        lambda: store.queue.fail(life.lease, "Late"),
        lambda: store.queue.release(life.lease),
    ]
    for call in late:
        with pytest.raises((UserErased, LeaseLost)):
            call()
    return len(late)


def rows_of(store: SqlMemoryStore, key: UserKey) -> dict[str, list[str]]:
    """Return every row of a user, by table."""
    with store.database.read() as connection:
        return {
            table.name: sorted(map(repr, connection.execute(select(table).where(rows.belongs_to(table, key)))))
            for table in TABLES
        }


@pytest.mark.parametrize("database", DATABASES)
def test_nothing_of_an_erased_user_is_left(
    database: str,
    make_place: Callable[[str], Place],
    backbone: Backbone,
    make_memory: MakeMemory,
    sizes: Sizes,
    record: Record,
) -> None:
    place = make_place(database)
    with closing(place.open()) as store:
        agent = quick_agent(backbone, store)
        lives = [live(agent, make_memory, number) for number in range(2 * sizes.erased_users)]
        stay, leave = lives[::2], lives[1::2]
        before = [(rows_of(store, life.key), store.payload(life.key, 1)) for life in stay]
        assert all(place.holds(life.key, [life.payload]) for life in lives)
        refused = 0
        for life in leave:
            user = agent.for_user(life.key.user)
            user.erase()
            left = {name: len(found) for name, found in rows_of(store, life.key).items() if found}
            assert left == {subject.name: 1, audit.name: 1}  # a tombstone, and a line that says so
            assert not place.holds(life.key, [life.canary.encode(), life.payload])
            explained = user.explain(life.canary)
            assert [token.logprob for token in explained.tokens] == life.bare
            refused += refusals(store, life)
            assert {name: len(found) for name, found in rows_of(store, life.key).items() if found} == left
        assert [(rows_of(store, life.key), store.payload(life.key, 1)) for life in stay] == before
        assert all(change_of(agent.for_user(life.key.user).explain(life.canary)) > LEAST_CHANGE_NATS for life in stay)
        assert store.verify().faults == ()
    record(
        f"erased users, {database}",
        erased=len(leave),
        rows_left=0,
        bytes_found=0,
        probabilities_changed=0,
        late_writers=refused,
        accepted=0,
        others_compared=len(stay),
        others_changed=0,
    )

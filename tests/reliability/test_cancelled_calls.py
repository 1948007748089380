"""Calls of the async twins that are cancelled or time out: no connection leaks, no turn is doubled, nobody waits long.

A cancelled call goes on in its thread, which is the promise.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field

import pytest

from locas_agent import AgentMemory, Backbone
from locas_agent.errors import RevisionConflict
from locas_storage import SqlMemoryStore
from tests.reliability.conftest import Record, Sizes
from tests.reliability.places import DATABASES, PATIENCE_SECONDS, Place
from tests.unit.agent.fake_learner import quick_agent

USERS = ("ada", "ben", "cleo", "dan")
AT_ONCE = 12


@dataclass
class Storm:
    """What came of many calls.

    Attributes:
        cancelled: calls whose caller saw `CancelledError` or `TimeoutError`.
        acknowledged: keys of the turns that a caller was told are kept, by user.
        waits: seconds from the cancellation, or from a call that was left alone, until its caller went on.
    """

    cancelled: int = 0
    acknowledged: dict[str, set[str]] = field(default_factory=lambda: {user: set() for user in USERS})
    waits: list[float] = field(default_factory=list)


async def storm(agent: AgentMemory, cancels: int, *, seed: int = 0) -> Storm:
    """Call, and cancel most calls a moment later, until so many were cancelled."""
    told, rng, numbers = Storm(), random.Random(seed), iter(range(1 << 30))

    async def caller() -> None:
        while told.cancelled < cancels:
            user, key = rng.choice(USERS), f"call {next(numbers)}"
            if not await broken_off(user, key):
                continue
            if rng.random() < 0.3:  # what a careful caller does
                started = time.monotonic()
                await agent.for_user(user).aadd("user", f"said in {key}", idempotency_key=key)
                told.waits.append(time.monotonic() - started)
                told.acknowledged[user].add(key)

    async def broken_off(user: str, key: str) -> bool:
        """Call one of the verbs; return whether it was a turn that was cancelled."""
        handle, verb = agent.for_user(user), rng.choice(["add", "add", "add", "recall", "consolidate", "search"])
        calls = {
            "add": lambda: handle.aadd("user", f"said in {key}", idempotency_key=key),
            "recall": lambda: handle.arecall("What did I say?", max_new_tokens=2),
            "consolidate": lambda: handle.aconsolidate(flush=True),
            "search": lambda: handle.asearch("said"),
        }
        patience = rng.random() ** 2 * 0.08
        if rng.random() < 0.5:
            started = time.monotonic() + patience
            call = asyncio.wait_for(calls[verb](), patience)
        else:
            task = asyncio.ensure_future(calls[verb]())
            await asyncio.sleep(patience)
            started = time.monotonic()
            task.cancel()
            call = task  # type: ignore[assignment]
        try:
            await call
        except (asyncio.CancelledError, TimeoutError):
            told.cancelled += 1
            told.waits.append(time.monotonic() - started)
            return verb == "add"
        except RevisionConflict:  # two callers had the same user learn
            return False
        if verb == "add":
            told.acknowledged[user].add(key)
        return False

    await asyncio.gather(*(caller() for _ in range(AT_ONCE)))
    await asyncio.to_thread(agent.crews.close)  # what was cancelled goes on in its thread: wait for it
    return told


@pytest.mark.parametrize("database", DATABASES)
def test_cancelled_calls_leave_nothing_behind(
    database: str, make_place: Callable[[str], Place], backbone: Backbone, sizes: Sizes, record: Record
) -> None:
    place = make_place(database)
    with closing(SqlMemoryStore(place.url)) as store:
        agent = quick_agent(backbone, store)
        told = asyncio.run(storm(agent, sizes.cancels))
        texts = {user: [turn.content for turn in agent.for_user(user).turns()] for user in USERS}
        kept, known = sum(map(len, texts.values())), sum(map(len, told.acknowledged.values()))
        lost = sum(len({f"said in {key}" for key in told.acknowledged[user]} - set(texts[user])) for user in USERS)
        doubled = sum(len(said) - len(set(said)) for said in texts.values())
        leaked = store.database.engine.pool.checkedout()  # type: ignore[attr-defined]
        assert (lost, doubled, leaked) == (0, 0, 0)
        assert told.cancelled >= sizes.cancels
        assert max(told.waits) < sizes.longest_wait_seconds
        assert store.verify().faults == ()
        started = time.monotonic()
        with closing(SqlMemoryStore(place.url)) as other:  # nobody holds the lock of the file or of a row
            for user in USERS:
                quick_agent(backbone, other).for_user(user).add("user", "afterwards")
        assert time.monotonic() - started < sizes.longest_wait_seconds
    place.settle()  # no connection is left at the server
    record(
        f"cancelled calls, {database}",
        cancels=told.cancelled,
        turns=kept,
        kept_though_cancelled=kept - known,
        lost=lost,
        doubled=doubled,
        leaked_connections=leaked,
        longest_wait_seconds=round(max(told.waits), 3),
    )


@pytest.mark.parametrize("database", DATABASES)
def test_call_cancelled_within_the_store_is_kept_once(
    database: str, make_place: Callable[[str], Place], backbone: Backbone
) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def hold(point: str) -> None:
        if point == "append.before_commit":
            begun.set()
            assert go_on.wait(PATIENCE_SECONDS)

    async def cancel(agent: AgentMemory) -> None:
        task = asyncio.ensure_future(agent.for_user("ada").aadd("user", "once", idempotency_key="k"))
        await asyncio.to_thread(begun.wait, PATIENCE_SECONDS)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        go_on.set()
        turn = await agent.for_user("ada").aadd("user", "once", idempotency_key="k")
        assert turn.seq == 1

    with closing(SqlMemoryStore(make_place(database).url, fault_point=hold)) as store:
        agent = quick_agent(backbone, store)
        asyncio.run(cancel(agent))
        assert [turn.content for turn in agent.for_user("ada").turns()] == ["once"]
        assert store.database.engine.pool.checkedout() == 0  # type: ignore[attr-defined]

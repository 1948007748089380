"""Memories kept ready.

Found again, dropped for want of room, and never kept for a user whose memories are let go of.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from contextlib import closing

import pytest
import torch
from torch import Tensor

from locas_agent import memory_cache
from locas_agent.backbone import Backbone
from locas_agent.benchmarks.journals import commit, fill
from locas_agent.memory import LocasMemory, MemoryBatch
from locas_agent.memory.batch import ReadyRows
from locas_agent.memory_cache import CacheInfo, MemoryCache
from locas_storage import InMemoryStore, UserKey
from tests.conftest import MakeMemory

USERS = [UserKey("default", name) for name in ("ada", "bob", "eve")]


@pytest.fixture
def memories(backbone: Backbone, make_memory: MakeMemory) -> Iterator[MemoryCache]:
    """Of three users, each with one revision."""
    with closing(InMemoryStore()) as store:
        for seed, user in enumerate(USERS):
            fill(store, user, backbone, turns=2, words=4, repeats=2)
            commit(store, user, make_memory(seed), to_seq=2)
        yield MemoryCache(backbone, store)


def memory_of(memories: MemoryCache, user: UserKey) -> LocasMemory:
    memory = memories.current(user)[1]
    assert memory is not None
    return memory


def test_memory_is_read_once_and_found_again(memories: MemoryCache) -> None:
    first = memory_of(memories, USERS[0])
    assert memory_of(memories, USERS[0]) is first
    size = first.parameter_count * 8  # fp32 as stored, and fp32 as this backbone takes it
    assert memories.cache_info() == CacheInfo(hits=1, misses=1, evictions=0, memories=1, memory_bytes=size)


def test_least_recently_used_makes_room(memories: MemoryCache, monkeypatch: pytest.MonkeyPatch) -> None:
    size = memory_of(memories, USERS[0]).parameter_count * 8
    monkeypatch.setattr(memory_cache, "LOADED_BYTES", 2 * size)
    memory_of(memories, USERS[1])
    memory_of(memories, USERS[0])
    memory_of(memories, USERS[2])  # bob goes
    assert (memories.cache_info().evictions, memories.cache_info().memory_bytes) == (1, 2 * size)
    memory_of(memories, USERS[0])
    assert memories.cache_info().misses == 3
    memory_of(memories, USERS[1])
    assert memories.cache_info().misses == 4


def test_memory_larger_than_the_room_is_kept_alone(memories: MemoryCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_cache, "LOADED_BYTES", 1)
    for user in USERS:
        memory_of(memories, user)
    assert memories.cache_info().memories == 1


def test_batch_is_what_its_memories_give_alone(
    memories: MemoryCache, backbone: Backbone, make_memory: MakeMemory
) -> None:
    chosen = [memory_of(memories, USERS[0]), None, make_memory(9, width=2), memory_of(memories, USERS[2])]
    expected = MemoryBatch.of(chosen, backbone)
    for _ in range(2):  # the second time from rows that were ready
        batch = memories.batch(chosen)
        assert batch is not None
        assert torch.equal(batch.rows, expected.rows)
    assert memories.batch([None, None]) is None


def test_rows_are_made_ready_once(memories: MemoryCache, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = memory_of(memories, USERS[0])
    memories.batch([memory])
    monkeypatch.setattr(memory_cache, "ready_rows", lambda *_: pytest.fail("made again"))
    memories.batch([memory, memory])


def test_nothing_of_a_user_is_left_who_is_let_go_of(memories: MemoryCache, monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[weakref.ref[Tensor]] = []
    make = memory_cache.ready_rows

    def watched(memory: LocasMemory, backbone: Backbone) -> ReadyRows:
        ready = make(memory, backbone)
        rows.append(weakref.ref(ready.rows))
        return ready

    monkeypatch.setattr(memory_cache, "ready_rows", watched)
    memory = memory_of(memories, USERS[0])
    memories.batch([memory])
    kept = weakref.ref(memory)
    del memory
    gc.collect()
    assert kept() is not None
    assert rows[0]() is not None
    memories.drop(USERS[0])
    gc.collect()
    assert kept() is None
    assert rows[0]() is None
    assert memories.cache_info().memory_bytes == 0

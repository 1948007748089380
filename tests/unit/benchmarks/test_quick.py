"""The quick form of every benchmark: both sides compute what they should, and a side that does not is noticed.

Nothing here looks at time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch

from locas_agent.backbone import Backbone
from locas_agent.benchmarks import append, decode, journals, latency, learn, loading, recall_cost
from locas_agent.benchmarks.bench import Bench
from locas_agent.benchmarks.measuring import Row
from locas_agent.memory import LocasMemory
from locas_agent.memory_cache import MemoryCache
from locas_agent.training.loss.losses import mean_by_user
from locas_storage import Revision, SqlMemoryStore, UserKey


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path, torch.device("cpu"), is_quick=True)


def check(rows: list[Row], *names: str) -> None:
    assert [row.name for row in rows] == list(names)
    for row in rows:
        assert row.ours > 0
        assert row.peer > 0
        assert row.spread[0] <= row.ratio <= row.spread[1]


def test_decode(bench: Bench) -> None:
    check(decode.decode(bench), "decode-base", "decode-peft-equal", "decode-peft-r64", "decode-sequential")


def test_decode_notices_adapters_of_other_users(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    exported = decode.exported

    def mixed_up(backbone: Backbone, memories: Sequence[LocasMemory], names: Sequence[str], folder: Path) -> Any:
        return exported(backbone, [*memories[1:], memories[0]], names, folder)

    monkeypatch.setattr(decode, "exported", mixed_up)
    with pytest.raises(RuntimeError, match="another function"):
        decode.decode(bench)


def test_decode_notices_memories_that_do_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    memories = Bench.memories

    def silent(self: Bench, backbone: Backbone, count: int) -> list[LocasMemory]:
        return [replace(memory, scale=torch.zeros_like(memory.scale)) for memory in memories(self, backbone, count)]

    monkeypatch.setattr(Bench, "memories", silent)
    with pytest.raises(RuntimeError, match="prove nothing"):
        decode.decode(bench)


def test_learn(bench: Bench) -> None:
    check(learn.short(bench), "learn-short", "learn-templora-short")
    check(learn.long(bench), "learn-long", "learn-templora", "step-forward")


def test_learn_notices_users_that_share_a_gradient(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "locas_agent.training.loss.backend.mean_by_user",
        lambda *parts: mean_by_user(*parts) * torch.arange(1.0, parts[-1] + 1) * 1e-3,
    )
    with pytest.raises(RuntimeError, match="those alone"):
        learn.short(bench)


@pytest.mark.slow
def test_recall_cost(bench: Bench) -> None:
    check(recall_cost.recall_cost(bench), "recall-seconds", "bytes")


def test_load(bench: Bench) -> None:
    check(loading.load(bench), "load")


def test_load_notices_another_memory(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    of = MemoryCache.of

    def other(self: MemoryCache, key: UserKey, revision: Revision | None) -> LocasMemory | None:
        memory = of(self, key, revision)
        assert memory is not None
        return replace(memory, scale=memory.scale * 0.9)

    monkeypatch.setattr(MemoryCache, "of", other)
    with pytest.raises(RuntimeError, match="something else"):
        loading.load(bench)


def test_flat(bench: Bench) -> None:
    check(latency.flat(bench), "flat")


def test_flat_notices_other_turns(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    said = count()
    monkeypatch.setattr(latency, "text", lambda _number, *, words: journals.text(next(said), words=words))
    with pytest.raises(RuntimeError, match="differently"):
        latency.flat(bench)


def test_growth(bench: Bench) -> None:
    check(latency.growth(bench), "growth", "growth-kept")


def test_append(bench: Bench) -> None:
    check(append.append(bench), "append")


def test_append_notices_a_lost_turn(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    turns = SqlMemoryStore.turns
    monkeypatch.setattr(SqlMemoryStore, "turns", lambda self, *asked, **options: turns(self, *asked, **options)[1:])
    with pytest.raises(RuntimeError, match="every turn"):
        append.append(bench)

"""64 users, each with a memory of its own, in batches of every composition: no row answers with another's memory."""

from __future__ import annotations

from contextlib import closing

import pytest

from locas_agent import memory_cache
from locas_agent.backbone import Backbone
from locas_agent.inference import Engine
from locas_agent.memory import LocasMemory, MemoryBatch
from locas_storage import SqlMemoryStore
from tests.conftest import MakeMemory
from tests.reliability.answer_attribution import strangers
from tests.reliability.conftest import Record, Sizes
from tests.reliability.conversations import Conversations
from tests.reliability.mixed_batches import PROMPT, USERS, wrong_generations, wrong_rows


@pytest.fixture(scope="module")
def memories(make_memory: MakeMemory) -> list[LocasMemory]:
    """One for each user, of several widths."""
    return [make_memory(seed, width=1 + seed % 5) for seed in range(USERS)]


def test_no_row_of_a_batch_is_anothers(
    engine: Engine, memories: list[LocasMemory], sizes: Sizes, record: Record
) -> None:
    rows, wrong = wrong_rows(engine, memories, sizes.canary_batches)
    assert wrong == 0
    record("canary batches, logits", users=USERS, batches=sizes.canary_batches, rows=rows, rows_of_another=wrong)


def test_no_row_becomes_anothers_while_decoding(
    engine: Engine, memories: list[LocasMemory], sizes: Sizes, record: Record
) -> None:
    rows, wrong = wrong_generations(engine, memories, sizes.decode_steps)
    assert wrong == 0
    record("canary batches, decoding", users=USERS, decode_steps=sizes.decode_steps, rows=rows, rows_of_another=wrong)


def test_another_memory_would_be_noticed(engine: Engine, memories: list[LocasMemory]) -> None:
    made = engine.generate([PROMPT] * 2, memory=MemoryBatch.of(memories[:2], engine.backbone), max_new_tokens=20)
    assert strangers(engine, [PROMPT] * 2, made, memories[:2]) == []
    assert strangers(engine, [PROMPT] * 2, made, [memories[1], memories[0]]) == [0, 1]
    assert strangers(engine, [PROMPT] * 2, made, [None, memories[1]]) == [0]


def test_no_reply_of_a_batch_is_anothers(
    backbone: Backbone, make_memory: MakeMemory, sizes: Sizes, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through the entry object: journals, revisions that move between two batches, and a cache too small for all."""
    monkeypatch.setattr(memory_cache, "LOADED_BYTES", USERS // 3 * 8 * make_memory(0).parameter_count)
    with closing(SqlMemoryStore("sqlite://")) as store:
        talks = Conversations(backbone, store, make_memory, users=USERS)
        while talks.steps < sizes.reply_steps:
            assert talks.round() == []
        assert talks.with_memory > talks.replies // 3
        record(
            "canary batches, reply_many",
            users=USERS,
            decode_steps=talks.steps,
            replies=talks.replies,
            with_memory=talks.with_memory,
            revisions_moved=talks.moved,
            rows_of_another=0,
        )

"""A memory that is less sure of an answer than it has to be leaves it to the bare backbone, row by row."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

from locas_agent.backbone import Backbone
from locas_agent.inference import Engine
from locas_agent.inference.decoding import BatchGeneration
from locas_agent.inference.prefix_cache import PrefixSlot
from locas_agent.inference.requests import GenerationRequest
from locas_agent.inference.running_batch import RunningBatch
from locas_agent.memory import LocasMemory, MemoryBatch
from tests.conftest import MakeMemory, byte_tokenizer
from tests.unit.core.architectures import SUPPORTED, build
from tests.unit.core.greedy import is_greedy
from tests.unit.inference.answers import written

PROMPTS = [list(range(10, 10 + length)) for length in (3, 17, 1, 9, 30, 5)]
SURE, UNSURE = 1e-9, 0.999999
"""How sure a memory has to be: it always is, it never is."""


@pytest.fixture
def memories(make_memory: MakeMemory) -> list[LocasMemory | None]:
    return [make_memory(1), make_memory(2), None, make_memory(3, width=2), make_memory(4), make_memory(5)]


def batch_of(memories: Sequence[LocasMemory | None], on: Backbone, certainties: Sequence[float]) -> MemoryBatch:
    made = MemoryBatch.of(memories, on)
    return MemoryBatch(made.rows, layers=made.layers, certainties=tuple(certainties))


@pytest.mark.parametrize(
    "certainties",
    [
        (SURE, UNSURE, 0.0, UNSURE, SURE, UNSURE),
        (UNSURE,) * 2 + (0.0,) + (UNSURE,) * 3,
        (SURE,) * 6,
    ],
)
def test_unsure_rows_are_answered_by_the_bare_backbone_and_no_others(
    engine: Engine, memories: list[LocasMemory | None], certainties: tuple[float, ...]
) -> None:
    found = engine.generate(PROMPTS, memory=batch_of(memories, engine.backbone, certainties), max_new_tokens=9)
    for prompt, memory, sure, answer in zip(PROMPTS, memories, certainties, found, strict=True):
        own = None if sure == UNSURE or memory is None else MemoryBatch.of([memory], engine.backbone)
        (alone,) = engine.generate([prompt], memory=own, max_new_tokens=9)
        assert is_greedy(engine, prompt, answer.ids, None if sure == UNSURE else memory)
        assert answer.logprobs[0] == pytest.approx(alone.logprobs[0], abs=1e-3)  # tokens may tie, but for rounding


def test_as_much_certainty_as_there_is_is_enough(engine: Engine, make_memory: MakeMemory) -> None:
    memory = make_memory(1)
    plain = MemoryBatch.of([memory], engine.backbone)
    with_memory, bare = (engine.generate([PROMPTS[1]], memory=each, max_new_tokens=6)[0] for each in (plain, None))
    assert with_memory.logprobs != pytest.approx(bare.logprobs, abs=1e-3)
    sure = math.exp(with_memory.logprobs[0])
    for least, expected in ((sure * 0.99, with_memory), (sure * 1.01, bare)):
        batch = batch_of([memory], engine.backbone, [least])
        (found,) = engine.generate([PROMPTS[1]], memory=batch, max_new_tokens=6)
        assert found.ids == expected.ids
        assert found.logprobs == pytest.approx(expected.logprobs, abs=1e-4)
        assert tuple(engine.stream(PROMPTS[1], memory=batch, max_new_tokens=6)) == expected.ids


def test_rows_that_cannot_stand_beside_others_are_answered_too(
    engine: Engine, memories: list[LocasMemory | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a layer keeps a state, rows of two batches are not put together."""
    monkeypatch.setattr(BatchGeneration, "may_be_joined", False)
    certainties = (SURE, UNSURE, 0.0, UNSURE, SURE, UNSURE)
    found = engine.generate(PROMPTS, memory=batch_of(memories, engine.backbone, certainties), max_new_tokens=9)
    for prompt, memory, sure, answer in zip(PROMPTS, memories, certainties, found, strict=True):
        assert len(answer.ids) + answer.stopped >= 1
        assert is_greedy(engine, prompt, answer.ids, None if sure == UNSURE else memory)


@pytest.mark.parametrize("name", sorted(SUPPORTED))
def test_every_architecture_answers_bare_beside_others(name: str, make_memory: MakeMemory) -> None:
    engine = Engine(Backbone(build(name), byte_tokenizer(), name=name))
    memories = [make_memory(seed, on=engine.backbone) for seed in (1, 2, 3)]
    batch = batch_of(memories, engine.backbone, (SURE, UNSURE, SURE))
    found = engine.generate(PROMPTS[:3], memory=batch, max_new_tokens=7)
    for prompt, memory, answer in zip(PROMPTS[:3], [memories[0], None, memories[2]], found, strict=True):
        assert is_greedy(engine, prompt, answer.ids, memory)


def test_in_a_running_batch_rows_join_and_leave_as_before(engine: Engine, memories: list[LocasMemory | None]) -> None:
    certainties = (UNSURE, SURE, 0.0, UNSURE, SURE, UNSURE)
    batch = RunningBatch(engine, max_rows=4, prefill_tokens=16)
    answers = []
    for prompt, memory, sure in zip(PROMPTS, memories, certainties, strict=True):
        own = None if memory is None else batch_of([memory], engine.backbone, [sure])
        answers.append(batch.submit(GenerationRequest(prompt, memory=own, max_new_tokens=10)))
        batch.step()
    while batch.step():
        pass
    for prompt, memory, sure, answer in zip(PROMPTS, memories, certainties, answers, strict=True):
        assert is_greedy(engine, prompt, written(answer), None if sure == UNSURE else memory)


def test_what_the_bare_backbone_has_run_is_no_past_of_the_memory(engine: Engine, make_memory: MakeMemory) -> None:
    memory, kept = make_memory(1), PrefixSlot()
    unsure = batch_of([memory], engine.backbone, [UNSURE])
    (answer,) = engine.generate([PROMPTS[1]], memory=unsure, kept=[kept], max_new_tokens=5)
    assert is_greedy(engine, PROMPTS[1], answer.ids, None)
    assert kept.past is None or list(kept.past.ids) == PROMPTS[1][: len(kept.past.ids)]
    following = [*PROMPTS[1], *answer.ids, 40, 41]
    sure = batch_of([memory], engine.backbone, [SURE])
    (again,) = engine.generate([following], memory=sure, kept=[kept], max_new_tokens=5)
    assert is_greedy(engine, following, again.ids, memory)

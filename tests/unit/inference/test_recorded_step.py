"""Steps in places that never move give the tokens of steps that are run anew, whoever joins or leaves meanwhile.

What a CUDA graph adds, repeating the step without Python, needs a GPU: `make bench-gpu` compares the tokens there.
"""

from __future__ import annotations

import pytest
import torch

from locas_agent.backbone import Backbone
from locas_agent.inference import Engine, decoding, recorded_step
from locas_agent.inference.prefix_cache import PrefixSlot
from locas_agent.inference.requests import GenerationRequest
from locas_agent.inference.running_batch import RunningBatch
from locas_agent.memory import LocasMemory, MemoryBatch
from tests.conftest import MakeMemory, byte_tokenizer
from tests.unit.core.architectures import SUPPORTED, build
from tests.unit.core.greedy import is_greedy
from tests.unit.inference.answers import written

PROMPTS = [list(range(10, 10 + length)) for length in (3, 17, 1, 9)]
LIMITS = (40, 12, 30, 25)


@pytest.fixture
def repeated(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Steps that a recorded one has run, as their columns."""
    seen: list[int] = []
    plain = recorded_step.RecordedStep.__call__

    def count(self: recorded_step.RecordedStep, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        seen.append(mask.shape[1])
        return plain(self, ids, mask)

    monkeypatch.setattr(recorded_step.RecordedStep, "__call__", count)
    monkeypatch.setattr(recorded_step, "COLUMNS", 16)  # so that buffers fill up on the way
    return seen


@pytest.fixture
def recording(engine: Engine) -> Engine:
    return Engine(engine.backbone, records_steps=True)


def own(memory: LocasMemory | None, on: Backbone) -> MemoryBatch | None:
    return None if memory is None else MemoryBatch.of([memory], on)


def test_generated_tokens_are_those_of_plain_steps(
    recording: Engine, make_memory: MakeMemory, repeated: list[int]
) -> None:
    memories = [make_memory(1), None, make_memory(2, width=2), make_memory(3)]
    batch = MemoryBatch.of(memories, recording.backbone)
    found = recording.generate(PROMPTS, memory=batch, max_new_tokens=40)
    assert len(repeated) > 20
    for prompt, answer, memory in zip(PROMPTS, found, memories, strict=True):
        assert is_greedy(recording, prompt, answer.ids, memory)


def test_rows_join_and_leave(recording: Engine, make_memory: MakeMemory, repeated: list[int]) -> None:
    memories = [make_memory(1), None, make_memory(2), make_memory(3)]
    batch = RunningBatch(recording, max_rows=3)
    answers = []
    for prompt, limit, memory in zip(PROMPTS, LIMITS, memories, strict=True):
        asked = GenerationRequest(prompt, memory=own(memory, recording.backbone), max_new_tokens=limit)
        answers.append(batch.submit(asked))
        for _ in range(decoding.RECORDED_AFTER + 3):
            batch.step()
    while batch.step():
        pass
    assert len(repeated) > 10
    for prompt, answer, memory in zip(PROMPTS, answers, memories, strict=True):
        assert is_greedy(recording, prompt, written(answer), memory)


def test_past_that_is_left_may_be_taken_up(recording: Engine, make_memory: MakeMemory, repeated: list[int]) -> None:
    memory, kept = make_memory(1), PrefixSlot()
    said = list(recording.stream(PROMPTS[1], memory=own(memory, recording.backbone), kept=kept, max_new_tokens=30))
    assert repeated
    assert kept.past is not None
    assert len(kept.past.ids) >= len(PROMPTS[1]) + len(said) - 1
    following = [*PROMPTS[1], *said, 40, 41]
    again = list(recording.stream(following, memory=own(memory, recording.backbone), kept=kept, max_new_tokens=5))
    assert is_greedy(recording, following, again, memory)


@pytest.mark.parametrize("name", sorted(SUPPORTED))
def test_every_architecture_writes_as_before(name: str, make_memory: MakeMemory) -> None:
    """Those with a window or a state of their own are run anew in each step."""
    engine = Engine(Backbone(build(name), byte_tokenizer(), name=name), records_steps=True)
    memory = make_memory(1, on=engine.backbone)
    found = engine.generate([PROMPTS[1]], memory=own(memory, engine.backbone), max_new_tokens=16)[0]
    assert is_greedy(engine, PROMPTS[1], found.ids, memory)


def test_no_step_is_recorded_unless_asked_for(engine: Engine, repeated: list[int]) -> None:
    engine.generate(PROMPTS, max_new_tokens=20)
    assert not repeated

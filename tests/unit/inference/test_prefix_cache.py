"""Keys and values kept from one call to the next: the same answers from fewer tokens run, and nobody else's."""

from __future__ import annotations

import pytest
import torch

from locas_agent.backbone import Backbone
from locas_agent.errors import ConfigurationError
from locas_agent.inference import Engine
from locas_agent.inference.prefix_cache import PrefixSlot
from locas_agent.memory import LocasMemory, MemoryBatch
from tests.conftest import MakeMemory, byte_tokenizer
from tests.unit.core.architectures import SUPPORTED, build
from tests.unit.core.counting import Counting
from tests.unit.core.greedy import is_greedy

BEGINNINGS = [list(range(10, 10 + length)) for length in (20, 3, 11)]


@pytest.fixture
def memories(make_memory: MakeMemory) -> list[LocasMemory | None]:
    return [make_memory(1), None, make_memory(2, width=2)]


def talk(
    engine: Engine, memories: list[LocasMemory | None], kept: list[PrefixSlot]
) -> list[tuple[tuple[int, ...], ...]]:
    """Three turns, each answered as from scratch: a prompt is the one before, its answer and three tokens more."""
    prompts, answers = [list(each) for each in BEGINNINGS], []
    for turn in range(3):
        given = engine.generate(prompts, memory=MemoryBatch.of(memories, engine.backbone), max_new_tokens=6, kept=kept)
        for prompt, one, memory in zip(prompts, given, memories, strict=True):
            assert is_greedy(Engine(engine.backbone), prompt, one.ids, memory)
        answers.append(tuple(one.ids for one in given))
        prompts = [[*prompt, *one.ids, 40 + turn, 50, 60] for prompt, one in zip(prompts, given, strict=True)]
    return answers


@pytest.mark.parametrize("name", sorted(SUPPORTED))
def test_turns_are_answered_as_from_scratch(name: str, make_memory: MakeMemory) -> None:
    engine = Engine(
        Backbone(build(name), byte_tokenizer(), name=name)
    )  # Gemma and Mistral: a sliding window, of which no past is kept
    memories = [make_memory(1, on=engine.backbone), None, make_memory(2, width=2, on=engine.backbone)]
    talk(engine, memories, [PrefixSlot() for _ in memories])


def test_only_what_is_new_is_run(backbone: Backbone, memories: list[LocasMemory | None]) -> None:
    engine, kept = Counting(backbone), [PrefixSlot() for _ in memories]
    answers = talk(engine, memories, kept)
    # All prompts once, then of each later turn the last token of the answer, which was chosen but not run, and the
    # three new ones; of
    # each answer all tokens but the first come from a step of their own.
    lengths = [len(answer) for turn in answers for answer in turn]
    assert engine.tokens == sum(map(len, BEGINNINGS)) + 2 * 3 * 4 + sum(length - 1 for length in lengths)


def test_rows_that_end_early_leave_their_past_too(backbone: Backbone, memories: list[LocasMemory | None]) -> None:
    free = Engine(backbone).generate(BEGINNINGS, memory=MemoryBatch.of(memories, backbone), max_new_tokens=12)
    stopping = Backbone(backbone.model, byte_tokenizer(), name="stopping")
    stopping.stop_ids = frozenset({free[1].ids[1]})
    kept = [PrefixSlot() for _ in memories]
    given = Engine(stopping).generate(
        BEGINNINGS, memory=MemoryBatch.of(memories, backbone), max_new_tokens=12, kept=kept
    )
    assert given[1].stopped
    for place, prompt, one in zip(kept, BEGINNINGS, given, strict=True):
        assert place.past is not None
        assert place.past.ids in {(*prompt, *one.ids), (*prompt, *one.ids[:-1])}
        scratch = PrefixSlot()
        row = kept.index(place)
        Engine(backbone).generate(
            [list(place.past.ids)], memory=MemoryBatch.of([memories[row]], backbone), max_new_tokens=1, kept=[scratch]
        )
        assert scratch.past is not None
        for mine, theirs in zip(place.past.layers, scratch.past.layers, strict=True):
            for part, other in zip(mine, theirs, strict=True):
                torch.testing.assert_close(part, other, atol=1e-5, rtol=1e-5)


def test_past_of_another_text_is_left_alone(engine: Engine, make_memory: MakeMemory) -> None:
    memory, kept = make_memory(1), [PrefixSlot()]
    batch = MemoryBatch.of([memory], engine.backbone)
    engine.generate([[1, 2, 3, 4]], memory=batch, max_new_tokens=3, kept=kept)
    past = kept[0].past
    assert past is not None
    assert [past.shared_with(prompt) for prompt in ([1, 2, 9], [7], [1, 2, 3, 4], [1])] == [2, 0, 3, 0]
    before = [part.clone() for layer in past.layers for part in layer]
    other = [9, 8, 7, 6, 5]
    assert is_greedy(engine, other, engine.generate([other], memory=batch, max_new_tokens=3, kept=kept)[0].ids, memory)
    assert all(
        torch.equal(part, copy)
        for part, copy in zip((part for layer in past.layers for part in layer), before, strict=True)
    )
    assert kept[0].past is not past


def test_stream_takes_up_and_leaves_a_past(backbone: Backbone, make_memory: MakeMemory) -> None:
    engine, memory, kept = Counting(backbone), make_memory(1), PrefixSlot()
    batch = MemoryBatch.of([memory], backbone)
    prompt = BEGINNINGS[0]
    first = list(engine.stream(prompt, memory=batch, max_new_tokens=5, kept=kept))
    following = [*prompt, *first, 40, 41]
    engine.tokens = 0
    second = list(engine.stream(following, memory=batch, max_new_tokens=5, kept=kept))
    assert engine.tokens == 3 + 4
    assert is_greedy(engine, following, second, memory)
    with pytest.raises(ConfigurationError):
        engine.generate([prompt, prompt], groups=[0, 0], kept=[PrefixSlot(), PrefixSlot()])

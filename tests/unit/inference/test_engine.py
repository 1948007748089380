"""Generation and scoring: each row as if it were alone, whatever batch it came in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from locas_agent.backbone import Backbone
from locas_agent.errors import ConfigurationError, IncompatibleMemory, TurnTooLong
from locas_agent.inference import Engine, batching, drawing
from locas_agent.inference.batching import KeptBeginnings
from locas_agent.inference.kv_buffer import is_full_attention, new_cache
from locas_agent.memory import LocasMemory, MemoryBatch
from tests.conftest import MakeMemory, byte_tokenizer
from tests.unit.core.architectures import SUPPORTED, build
from tests.unit.core.counting import Counting
from tests.unit.core.greedy import is_greedy

PROMPTS = [list(range(10, 10 + length)) for length in (3, 17, 1, 9, 30, 5)]


@pytest.fixture
def memories(make_memory: MakeMemory) -> list[LocasMemory | None]:
    return [make_memory(1), None, make_memory(2), make_memory(3, width=2), make_memory(4), None]


def test_batched_generation_equals_each_row_alone(engine: Engine, memories: list[LocasMemory | None]) -> None:
    batch = MemoryBatch.of(memories, engine.backbone)
    for budget in (8192, 60):  # one micro-batch, and several
        together = engine.generate(PROMPTS, memory=batch, max_new_tokens=10, max_batch_tokens=budget)
        for row, memory in enumerate(memories):
            given = together[row]
            assert is_greedy(engine, PROMPTS[row], given.ids, memory)
            scores = engine.score([PROMPTS[row]], [given.ids], memory=batch.select([row]))[0]
            assert given.logprobs == pytest.approx(scores.tolist(), abs=1e-4)
    assert not is_greedy(engine, PROMPTS[0], together[0].ids, None)  # the memory does something


@pytest.mark.parametrize("name", sorted(SUPPORTED))
def test_cached_generation_equals_a_forward_from_scratch(name: str, make_memory: MakeMemory) -> None:
    engine = Engine(Backbone(build(name), byte_tokenizer(), name=name))
    memories = [make_memory(1, on=engine.backbone), make_memory(2, on=engine.backbone)]
    prompts = [PROMPTS[1], PROMPTS[3]]  # longer than the sliding window of 6, and left-padded
    answers = engine.generate(prompts, memory=MemoryBatch.of(memories, engine.backbone), max_new_tokens=8)
    for prompt, answer, memory in zip(prompts, answers, memories, strict=True):
        assert is_greedy(engine, prompt, answer.ids, memory)


def test_best_token_of_the_random_backbone_is_further_ahead_than_rounding(
    engine: Engine, memories: list[LocasMemory | None]
) -> None:
    """What tests that compare tokens stand on, here and wherever else the random backbone decodes."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 256, (64, 12), generator=generator)
    for memory in memories[:4]:
        batch = None if memory is None else MemoryBatch.of([memory], engine.backbone, rows_per_memory=64)
        best, second = engine.logits(ids, memory=batch).detach().topk(2).values.unbind(-1)
        # Of 768 steps at most 8 are nearer than a hundred times the rounding of a logit, which is some 1e-6: a test of
        # 40 steps seldom meets one.
        assert int((best - second < 1e-3).sum()) <= 8


def test_stop_token_ends_a_row_and_is_left_out(engine: Engine) -> None:
    free = engine.generate(PROMPTS, max_new_tokens=12)
    stop = free[3].ids[4]
    stopping = Engine(Backbone(engine.backbone.model, byte_tokenizer(), name="stopping"))
    stopping.backbone.stop_ids = frozenset({stop})
    for before, after in zip(free, stopping.generate(PROMPTS, max_new_tokens=12), strict=True):
        assert after.stopped is (stop in before.ids)
        expected = before.ids[: before.ids.index(stop)] if stop in before.ids else before.ids
        assert after.ids == expected
        assert len(after.logprobs) == len(after.ids)
        assert after.logprobs == pytest.approx(before.logprobs[: len(after.ids)], abs=1e-4)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_answer_ends_behind_a_token_that_ends_it_and_no_other_row_does(engine: Engine, temperature: float) -> None:
    free = engine.generate(PROMPTS, max_new_tokens=12, temperature=temperature)
    end = free[3].ids[4]
    given = engine.generate(PROMPTS, max_new_tokens=12, temperature=temperature, ends=frozenset({end}), is_scored=False)
    assert len(given[3].ids) <= 5
    for before, after in zip(free, given, strict=True):
        assert after.ids == (before.ids[: before.ids.index(end) + 1] if end in before.ids else before.ids)
        assert not after.stopped
        assert after.logprobs == ()


def test_rows_drawn_in_parts_are_drawn_as_all_at_once(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    for numbers in (1, 2 * engine.backbone.vocab_size, 1 << 30):  # one row at once, two, and all
        monkeypatch.setattr(drawing, "_CACHED_NUMBERS", numbers)
        drawn.append([one.ids for one in engine.generate(PROMPTS, max_new_tokens=6, temperature=1.0, seed=5)])
    assert drawn[0] == drawn[1] == drawn[2]


def test_sampling_is_repeatable_and_free_of_the_batch(engine: Engine, memories: list[LocasMemory | None]) -> None:
    batch = MemoryBatch.of(memories, engine.backbone)
    options: dict[str, Any] = {"memory": batch, "max_new_tokens": 8, "temperature": 1.0}
    first = [answer.ids for answer in engine.generate(PROMPTS, seed=3, **options)]
    assert [answer.ids for answer in engine.generate(PROMPTS, seed=3, max_batch_tokens=40, **options)] == first
    assert [answer.ids for answer in engine.generate(PROMPTS, seed=4, **options)] != first


def test_sampling_follows_the_distribution(engine: Engine) -> None:
    prompt, n = PROMPTS[0], 2000
    expected = engine.logits(torch.tensor([prompt]))[0, -1].softmax(-1)
    drawn = [
        answer.ids[0] if answer.ids else -1
        for answer in engine.generate([prompt] * n, max_new_tokens=1, temperature=1.0)
    ]
    best = int(expected.argmax())
    share, p = drawn.count(best) / n, float(expected[best])
    assert abs(share - p) < 4 * (p * (1 - p) / n) ** 0.5  # four standard errors, the seed is fixed


def test_stream_gives_what_generate_gives(engine: Engine, make_memory: MakeMemory) -> None:
    batch = MemoryBatch.of([make_memory(1)], engine.backbone)
    for temperature in (0.0, 1.0):
        whole = engine.generate([PROMPTS[1]], memory=batch, max_new_tokens=9, temperature=temperature, seed=2)[0]
        parts = engine.stream(PROMPTS[1], memory=batch, max_new_tokens=9, temperature=temperature, seed=2)
        assert tuple(parts) == whole.ids


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_stream_chooses_among_what_is_allowed(engine: Engine, temperature: float) -> None:
    free = list(engine.stream(PROMPTS[1], max_new_tokens=6, temperature=temperature, seed=2))
    lengths: list[int] = []

    def allowed(ids: Sequence[int]) -> Sequence[int] | None:
        lengths.append(len(ids))
        return [5, 7, 9] if len(ids) < 3 else None

    led = list(engine.stream(PROMPTS[1], max_new_tokens=6, temperature=temperature, seed=2, allowed=allowed))
    assert set(led[:3]) <= {5, 7, 9}
    assert lengths == list(range(len(lengths)))
    assert (
        list(engine.stream(PROMPTS[1], max_new_tokens=6, temperature=temperature, seed=2, allowed=lambda _: None))
        == free
    )
    # Of the allowed ones it is the best: the same as greedy over the logits of these three.
    if temperature == 0.0:
        logits = engine.logits(torch.tensor([PROMPTS[1]]))[0, -1]
        assert led[0] == max((5, 7, 9), key=lambda token: float(logits[token]))


def test_stream_that_may_only_stop_stops(engine: Engine) -> None:
    stop = sorted(engine.backbone.stop_ids)
    assert list(engine.stream(PROMPTS[1], allowed=lambda ids: [5] if len(ids) < 2 else stop)) == [5, 5]
    with pytest.raises(ConfigurationError, match="rules out every token after 1 "):
        list(engine.stream(PROMPTS[1], allowed=lambda ids: [] if ids else None))


def test_open_stream_leaves_other_calls_alone(engine: Engine, make_memory: MakeMemory) -> None:
    ids = torch.tensor([PROMPTS[1]])
    bare = engine.logits(ids)
    parts = engine.stream(PROMPTS[1], memory=MemoryBatch.of([make_memory(1)], engine.backbone))
    next(parts)
    assert torch.equal(engine.logits(ids), bare)
    assert not torch.is_inference_mode_enabled()


def test_score_is_the_log_softmax_at_each_token(engine: Engine, memories: list[LocasMemory | None]) -> None:
    continuations = [[7, 8, 9], [5], [], [1, 2, 3, 4], [200], [9, 9]]
    batch = MemoryBatch.of(memories, engine.backbone)
    scores = engine.score(PROMPTS, continuations, memory=batch, max_batch_tokens=50)
    for row, continuation in enumerate(continuations):
        ids = torch.tensor([PROMPTS[row] + continuation])
        logprobs = engine.logits(ids, memory=batch.select([row])).log_softmax(-1)[0].detach()
        expected = torch.tensor(
            [float(logprobs[len(PROMPTS[row]) - 1 + at, token]) for at, token in enumerate(continuation)]
        )
        torch.testing.assert_close(scores[row], expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", sorted(SUPPORTED))
def test_beginning_of_a_group_is_run_once_and_each_row_is_scored_as_alone(name: str, make_memory: MakeMemory) -> None:
    backbone = Backbone(build(name), byte_tokenizer(), name=name)
    long, short = list(range(10, 40)), list(range(60, 72))
    prompts = [[*long, 80], [*short, 81, 82], [*long, 83, 84, 85], [90], [*short, 81, 87]]
    continuations, groups = [[7, 8, 9], [5], [], [1, 2, 3, 4], [9, 9]], [0, 1, 0, 2, 1]
    first, second = (make_memory(seed, on=backbone) for seed in (1, 2))
    batch = MemoryBatch.of([first, second, first, None, second], backbone)
    alone = Counting(backbone)
    expected = alone.score(prompts, continuations, memory=batch)
    for budget, saved in ((8192, 30 + 13), (40, 30 + 13), (1, 0)):  # what begins alike; a row a batch shares nothing
        engine = Counting(backbone)
        scores = engine.score(prompts, continuations, memory=batch, groups=groups, max_batch_tokens=budget)
        assert engine.tokens == alone.tokens - saved
        for got, wanted in zip(scores, expected, strict=True):
            torch.testing.assert_close(got, wanted, atol=1e-4, rtol=0)  # other shapes sum in another order
    bare = Engine(backbone).score(prompts, continuations)
    assert not torch.allclose(bare[0], expected[0], atol=1e-2)  # the memory does something


def test_distributions_are_the_head_of_each_next_token(engine: Engine, memories: list[LocasMemory | None]) -> None:
    continuations = [[7, 8, 9], [5], [], [1, 2, 3, 4], [200], [9, 9]]
    batch = MemoryBatch.of(memories, engine.backbone)
    for row, head in enumerate(engine.distributions(PROMPTS, continuations, top_k=6, memory=batch)):
        n = len(continuations[row])
        assert head.ids.shape == head.logprobs.shape == (n, 6)
        assert (head.ids.dtype, head.logprobs.dtype) == (torch.int32, torch.float32)
        single = engine.distributions([PROMPTS[row]], [continuations[row]], top_k=6, memory=batch.select([row]))[0]
        torch.testing.assert_close(head.logprobs, single.logprobs, atol=1e-4, rtol=0)
        ids = torch.tensor([PROMPTS[row] + continuations[row]])
        logprobs = engine.logits(ids, memory=batch.select([row])).log_softmax(-1)[0].detach()
        at = logprobs[len(PROMPTS[row]) - 1 : len(PROMPTS[row]) - 1 + n]
        torch.testing.assert_close(at.gather(1, head.ids.long()), head.logprobs, atol=1e-4, rtol=0)
        torch.testing.assert_close(at.topk(6, dim=-1).values, head.logprobs, atol=1e-4, rtol=0)


def test_distributions_of_a_group_are_those_of_its_rows_alone(
    engine: Engine, make_memory: MakeMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of a group take up one beginning in parts of like length."""
    monkeypatch.setattr(batching, "PART_TOKENS", 4)
    beginnings = [list(range(20, 32)), [5, 6, 7]]
    groups = [0, 1, 0, 1, 0, 0]
    ends = [[1], [2, 3, 4, 5, 6, 7, 8], [9, 9, 9, 9], [2], [1, 2, 3, 4, 5, 6, 7, 8, 9], [4, 4]]
    prompts = [[*beginnings[group], *end] for group, end in zip(groups, ends, strict=True)]
    memories = [make_memory(1), make_memory(2)]
    batch = MemoryBatch.of([memories[group] for group in groups], engine.backbone)
    found = engine.distributions(prompts, [[7, 8]] * 6, top_k=5, memory=batch, groups=groups)
    for row, head in enumerate(found):
        alone = engine.distributions([prompts[row]], [[7, 8]], top_k=5, memory=batch.select([row]))[0]
        torch.testing.assert_close(head.logprobs, alone.logprobs, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", sorted(SUPPORTED))
def test_a_beginning_that_was_run_is_taken_up_by_further_calls(name: str, make_memory: MakeMemory) -> None:
    backbone = Backbone(build(name), byte_tokenizer(), name=name)
    memory = make_memory(1, on=backbone)
    long, short = list(range(10, 40)), list(range(60, 72))
    batch = MemoryBatch.of([memory], backbone, rows_per_memory=4)
    first = [[*long, 80], [*short, 81]]
    second = [[*short[:9], 82], [*long[:20], 83], [*short[:9], 84], [*long[:20], 85]]
    groups, said = [0, 1, 0, 1], [[7, 8], [9, 7], [7], [5, 6, 7]]
    counting, begun = Counting(backbone), KeptBeginnings()
    counting.generate([*first, *first], memory=batch, groups=[0, 1, 0, 1], max_new_tokens=1, begun=begun)
    before = counting.tokens
    found = counting.score(second, said, memory=batch, groups=groups, begun=begun)
    is_kept = is_full_attention(new_cache(backbone.config))
    assert counting.tokens - before == sum(map(len, said)) + (0 if is_kept else 9 + 20)
    expected = Engine(backbone).score(second, said, memory=batch)
    for got, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(got, wanted, atol=1e-4, rtol=0)
    made = counting.generate(second, memory=batch, groups=groups, max_new_tokens=4, begun=begun)
    for prompt, answer in zip(second, made, strict=True):
        assert is_greedy(counting, prompt, answer.ids, memory)


def test_heads_kept_while_answering_are_those_of_the_finished_answer(
    engine: Engine, memories: list[LocasMemory | None]
) -> None:
    batch = MemoryBatch.of(memories, engine.backbone)
    free = engine.generate(PROMPTS, memory=batch, max_new_tokens=12)
    stopping = Engine(Backbone(engine.backbone.model, byte_tokenizer(), name="stopping"))
    stop = free[3].ids[4]
    stopping.backbone.stop_ids = frozenset({stop})
    given = stopping.generate(PROMPTS, memory=batch, max_new_tokens=12, top_k=5)
    endings = [[*one.ids, stop] if one.stopped else list(one.ids) for one in given]
    assert any(one.stopped for one in given)
    for one, expected in zip(given, stopping.distributions(PROMPTS, endings, memory=batch, top_k=5), strict=True):
        assert one.top_logprobs is not None
        assert torch.equal(one.top_logprobs.ids, expected.ids)
        assert one.top_logprobs.ids.dtype == torch.int32
        torch.testing.assert_close(one.top_logprobs.logprobs, expected.logprobs, atol=1e-4, rtol=1e-4)
    assert free[0].top_logprobs is None


def test_positions_choose_rows_of_the_logits(engine: Engine) -> None:
    ids = torch.tensor([PROMPTS[1], PROMPTS[1][::-1]])
    whole = engine.logits(ids)
    mask = torch.zeros(2, 17, dtype=torch.bool)
    mask[0, 3] = mask[1, 5] = True
    expected = torch.stack([whole[0, 3], whole[1, 5]])
    torch.testing.assert_close(engine.logits(ids, positions=mask), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        engine.logits(ids, positions=torch.tensor([22, 3])), expected.flip(0), atol=1e-5, rtol=1e-5
    )


def test_answer_ends_with_the_context(engine: Engine) -> None:
    prompt = [1] * (engine.backbone.context_tokens - 3)
    assert len(engine.generate([prompt], max_new_tokens=10)[0].ids) <= 3
    with pytest.raises(TurnTooLong, match="512"):
        engine.generate([[1] * 512])


def test_wrong_arguments_are_named(engine: Engine, make_memory: MakeMemory) -> None:
    with pytest.raises(IncompatibleMemory, match="serve 1 rows, got 2"):
        engine.generate(PROMPTS[:2], memory=MemoryBatch.of([make_memory(1)], engine.backbone))
    with pytest.raises(ConfigurationError, match="prompt 0 is empty"):
        engine.generate([[]])
    with pytest.raises(ConfigurationError, match="continuation"):
        engine.score(PROMPTS, [[1]])
    assert engine.generate([]) == []

"""Answers written side by side: each as if it were alone, whoever comes or goes meanwhile."""

from __future__ import annotations

import time
from collections.abc import Sequence
from queue import Empty
from threading import Thread

import pytest
import torch

from locas_agent.backbone import Backbone
from locas_agent.errors import ConfigurationError, IncompatibleMemory, TurnTooLong
from locas_agent.inference import Engine
from locas_agent.inference.kv_buffer import ROOM, BufferedLayer
from locas_agent.inference.prefix_cache import PrefixSlot
from locas_agent.inference.requests import GenerationRequest
from locas_agent.inference.running_batch import RunningBatch
from locas_agent.memory import LocasMemory, MemoryBatch
from tests.conftest import MakeMemory, byte_tokenizer
from tests.unit.core.architectures import SUPPORTED, build
from tests.unit.core.greedy import is_greedy
from tests.unit.inference.answers import written

LENGTHS = (3, 17, 1, 9, 30, 5)
PROMPTS = [list(range(10, 10 + length)) for length in LENGTHS]


@pytest.fixture
def memories(make_memory: MakeMemory) -> list[LocasMemory | None]:
    return [make_memory(1), None, make_memory(2), make_memory(3, width=2), make_memory(4), None]


def request(engine: Engine, row: int, memory: LocasMemory | None, **options: object) -> GenerationRequest:
    batch = None if memory is None else MemoryBatch.of([memory], engine.backbone)
    return GenerationRequest(PROMPTS[row], memory=batch, **options)  # type: ignore[arg-type]


def finish(batch: RunningBatch) -> None:
    for _ in range(1000):
        if not batch.step():
            return
    raise AssertionError("it never ends")


@pytest.mark.parametrize("prefill_tokens", [4, 512])
def test_rows_are_answered_as_alone_whoever_joins_or_leaves(
    engine: Engine, memories: list[LocasMemory | None], prefill_tokens: int
) -> None:
    """Lengths differ, so rows leave at different steps, and others come at every third."""
    limits = (12, 3, 9, 20, 5, 14)
    alone = [
        engine.generate(
            [PROMPTS[row]],
            memory=None if memory is None else MemoryBatch.of([memory], engine.backbone),
            max_new_tokens=limits[row],
        )[0].ids
        for row, memory in enumerate(memories)
    ]
    batch = RunningBatch(engine, max_rows=4, prefill_tokens=prefill_tokens)
    answers = []
    most = 0
    for row, memory in enumerate(memories):
        answers.append(batch.submit(request(engine, row, memory, max_new_tokens=limits[row])))
        for _ in range(3):
            batch.step()
            most = max(most, batch.n_running)
    finish(batch)
    assert most > 1
    for row, (answer, memory) in enumerate(zip(answers, memories, strict=True)):
        given = written(answer)
        assert given == list(alone[row])
        assert is_greedy(engine, PROMPTS[row], given, memory)
        assert answer.finish_reason == ("length" if len(given) == limits[row] else "stop")


@pytest.mark.parametrize("name", sorted(SUPPORTED))
def test_every_architecture_takes_rows_in(name: str, make_memory: MakeMemory) -> None:
    engine = Engine(Backbone(build(name), byte_tokenizer(), name=name))  # windows of 6, shorter than the prompts
    memories = [make_memory(1, on=engine.backbone), None, make_memory(2, on=engine.backbone)]
    batch = RunningBatch(engine, prefill_tokens=7)
    answers = []
    for row, memory in zip((1, 3, 4), memories, strict=True):
        answers.append(batch.submit(request(engine, row, memory, max_new_tokens=16)))
        for _ in range(4):
            batch.step()
    finish(batch)
    for row, answer, memory in zip((1, 3, 4), answers, memories, strict=True):
        assert is_greedy(engine, PROMPTS[row], written(answer), memory)


def test_sampled_rows_draw_from_their_own_stream(engine: Engine, memories: list[LocasMemory | None]) -> None:
    batch = RunningBatch(engine)
    settings = [(0.0, 0), (1.0, 3), (0.7, 3), (1.0, 4), (0.0, 0), (1.3, 9)]
    answers = []
    for row, (memory, (temperature, seed)) in enumerate(zip(memories, settings, strict=True)):
        asked = request(engine, row, memory, max_new_tokens=8, temperature=temperature, seed=seed)
        answers.append(batch.submit(asked))
        batch.step()
    finish(batch)
    for row, (answer, memory, (temperature, seed)) in enumerate(zip(answers, memories, settings, strict=True)):
        own = None if memory is None else MemoryBatch.of([memory], engine.backbone)
        expected = engine.stream(PROMPTS[row], memory=own, max_new_tokens=8, temperature=temperature, seed=seed)
        assert written(answer) == list(expected)


def test_past_is_taken_up_and_left(engine: Engine, make_memory: MakeMemory) -> None:
    memory, kept = make_memory(1), PrefixSlot()
    own = MemoryBatch.of([memory], engine.backbone)
    batch = RunningBatch(engine)
    other = batch.submit(request(engine, 4, None, max_new_tokens=20))
    first = batch.submit(GenerationRequest(PROMPTS[1], memory=own, kept=kept, max_new_tokens=5))
    finish(batch)
    said = written(first)
    assert kept.past is not None
    assert kept.past.ids == tuple([*PROMPTS[1], *said][: len(kept.past.ids)])
    assert len(kept.past.ids) >= len(PROMPTS[1]) + len(said) - 1
    following = [*PROMPTS[1], *said, 40, 41]
    again = batch.submit(GenerationRequest(following, memory=own, kept=kept, max_new_tokens=5))
    finish(batch)
    assert is_greedy(engine, following, written(again), memory)
    assert is_greedy(engine, PROMPTS[4], written(other), None)


def test_stop_text_ends_one_row_alone(engine: Engine) -> None:
    free = engine.generate(PROMPTS[:2], max_new_tokens=12)
    texts = [engine.backbone.decode(answer.ids) for answer in free]
    at = next(at for at in range(2, 9) if texts[0][at : at + 2].isprintable() and len(texts[0]) > at + 2)
    stop = texts[0][at : at + 2]
    batch = RunningBatch(engine)
    answers = [
        batch.submit(request(engine, row, None, max_new_tokens=12, stop=stops))
        for row, stops in enumerate([(stop,), ()])
    ]
    finish(batch)
    ended, whole = written(answers[0]), written(answers[1])
    assert answers[0].finish_reason == "stop"
    assert stop in engine.backbone.decode(ended)
    assert stop not in engine.backbone.decode(ended[:-1])
    assert ended == list(free[0].ids[: len(ended)])
    assert whole == list(free[1].ids)


def test_reader_and_deadline_end_an_answer(engine: Engine) -> None:
    batch = RunningBatch(engine, max_rows=2)
    cancelled = batch.submit(request(engine, 0, None, max_new_tokens=40))
    late = batch.submit(request(engine, 1, None, max_new_tokens=40, deadline=time.monotonic() + 3600))
    waiting = batch.submit(request(engine, 3, None, max_new_tokens=4))
    never = batch.submit(request(engine, 3, None, max_new_tokens=4, deadline=time.monotonic()))
    for _ in range(3):
        batch.step()
    assert (batch.n_running, batch.n_waiting) == (2, 1)
    cancelled.cancel()
    finish(batch)
    assert (cancelled.finish_reason, late.finish_reason, never.finish_reason) == ("cancelled", "length", "timeout")
    assert 0 < len(written(cancelled)) < 40
    assert written(never) == []
    assert is_greedy(engine, PROMPTS[3], written(waiting), None)
    with pytest.raises(Empty):
        batch.submit(request(engine, 0, None)).next_token(0)


def test_function_of_one_row_that_fails_ends_that_row_alone(engine: Engine) -> None:
    def wrong(written: Sequence[int]) -> Sequence[int] | None:
        if len(written) == 2:
            raise ZeroDivisionError
        return None

    batch = RunningBatch(engine)
    asked = [request(engine, 0, None, max_new_tokens=6), request(engine, 1, None, max_new_tokens=6, allowed=wrong)]
    answers = [batch.submit(each) for each in asked]
    answers.append(batch.submit(request(engine, 3, None, max_new_tokens=6, allowed=lambda _: [])))
    finish(batch)
    assert is_greedy(engine, PROMPTS[0], written(answers[0]), None)
    with pytest.raises(ZeroDivisionError):
        written(answers[1])
    with pytest.raises(ConfigurationError, match="rules out every token after 0 "):
        written(answers[2])


def test_step_that_fails_fails_those_in_it_and_the_batch_goes_on(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = RunningBatch(engine)
    hit = batch.submit(request(engine, 0, None, max_new_tokens=9))
    batch.step()

    def broken(*_: object) -> torch.Tensor:
        raise RuntimeError("no room")

    with monkeypatch.context() as patch:
        patch.setattr(engine, "lm_head", broken)
        batch.step()
    later = batch.submit(request(engine, 1, None, max_new_tokens=4))
    finish(batch)
    with pytest.raises(RuntimeError, match="no room"):
        written(hit)
    assert is_greedy(engine, PROMPTS[1], written(later), None)


def test_thread_of_its_own_serves_readers(engine: Engine, memories: list[LocasMemory | None]) -> None:
    with RunningBatch(engine, max_rows=3) as batch:
        thread = Thread(target=batch.serve)
        thread.start()
        answers = [batch.submit(request(engine, row, memory, max_new_tokens=8)) for row, memory in enumerate(memories)]
        for row, (answer, memory) in enumerate(zip(answers, memories, strict=True)):
            assert is_greedy(engine, PROMPTS[row], list(answer), memory)
        open_end = batch.submit(request(engine, 0, None, max_new_tokens=400))
        assert open_end.next_token(60) is not None
    thread.join(60)
    assert not thread.is_alive()
    list(open_end)
    assert open_end.finish_reason == "cancelled"
    with pytest.raises(RuntimeError, match="closed"):
        batch.submit(request(engine, 0, None))


def test_wrong_requests_are_refused_at_once(engine: Engine, make_memory: MakeMemory) -> None:
    batch = RunningBatch(engine)
    two = MemoryBatch.of([make_memory(1), make_memory(2)], engine.backbone)
    with pytest.raises(IncompatibleMemory, match="one row"):
        batch.submit(GenerationRequest([1], memory=two))
    with pytest.raises(TurnTooLong):
        batch.submit(GenerationRequest([1] * engine.backbone.context_tokens))
    for wrong in ({"max_new_tokens": 0}, {"temperature": -1.0}, {"stop": ("",)}, {"stop": "end"}):
        with pytest.raises(ConfigurationError):
            GenerationRequest([1], **wrong)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError):
        batch.submit(GenerationRequest([]))
    with pytest.raises(ConfigurationError):
        RunningBatch(engine, max_rows=0)


def test_tokens_are_written_into_room_that_is_there() -> None:
    layer = BufferedLayer()
    states = torch.randn(2, 3, 1, 4)
    places = set()
    for _ in range(ROOM):
        keys, _ = layer.update(states, states)
        places.add(keys.data_ptr())
    assert len(places) == 1
    assert keys.shape[2] == ROOM
    assert torch.equal(keys, states.expand(-1, -1, ROOM, -1))

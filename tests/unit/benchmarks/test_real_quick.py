"""The quick form of the rows on real shapes, on a small backbone of three layers: what is computed, not how fast."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from locas_agent.benchmarks.bench import SMALL, Bench, random_model, wrapped
from locas_agent.benchmarks.latency import Talk
from locas_agent.benchmarks.measuring import Row
from locas_agent.benchmarks.real import consolidating, decoding, kernel, learning, recorded, users
from locas_agent.benchmarks.real.backbones import write_words
from locas_agent.inference import Engine, kv_buffer
from locas_agent.memory import LocasMemory
from locas_agent.training.loss.upper_layers import UpperLayers


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path, torch.device("cpu"), is_quick=True)


def check(rows: list[Row], *names: str) -> None:
    assert [row.name for row in rows] == list(names)
    for row in rows:
        assert row.ours > 0
        assert row.peer > 0
        assert row.spread[0] <= row.ratio <= row.spread[1]


def test_decoding(bench: Bench) -> None:
    check(decoding.base(bench), "decode-base-real", "decode-all-real")
    check(decoding.together(bench), "decode-batch")
    check(decoding.hugging_face(bench), "decode-hf")


def test_other_tokens_than_those_of_transformers_are_noticed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    head = Engine.lm_head
    monkeypatch.setattr(Engine, "lm_head", lambda self, hidden: -head(self, hidden))
    with pytest.raises(RuntimeError, match="other tokens"):
        decoding.hugging_face(bench)


def test_memories_that_do_nothing_are_noticed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    memories = decoding.memories_of

    def silent(*asked: Any, **options: Any) -> list[LocasMemory]:
        return [replace(memory, scale=torch.zeros_like(memory.scale)) for memory in memories(*asked, **options)]

    monkeypatch.setattr(decoding, "memories_of", silent)
    with pytest.raises(RuntimeError, match="change nothing"):
        decoding.base(bench)


def test_learning(bench: Bench) -> None:
    check(learning.deep(bench), "learn-deep", "learn-templora-real")
    check(learning.long(bench), "learn-long-real")


def test_states_of_another_text_are_noticed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    states = UpperLayers._states

    def shuffled(self: UpperLayers, *asked: Any) -> list[torch.Tensor]:  # longer than the texts it is tried out on
        return [each.flip(0) if len(each) > 12 else each for each in states(self, *asked)]

    monkeypatch.setattr(UpperLayers, "_states", shuffled)
    with pytest.raises(RuntimeError, match="cached states"):
        learning.deep(bench)


def test_users(bench: Bench) -> None:
    check(users.first_token(bench), "reply-first-token")
    check(users.flat(bench), "flat-real")
    check(users.stored(bench), "load-real", "bytes-real")
    check(users.serving_peak(bench), "serve-peak")
    check(users.training_peak(bench), "train-peak")


def test_random_weights_are_made_to_write_words_and_a_reply_without_one_is_noticed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = random_model(replace(SMALL, layers=2), seed=0, context_tokens=64)
    made = wrapped(model, name="random")
    marks = made.tokenizer.all_special_ids  # tied weights tend to say again what was said
    written = [Engine(made).generate([[300, mark] for mark in marks], max_new_tokens=4)]
    write_words(made)
    written += [Engine(made).generate([[300, mark] for mark in marks], max_new_tokens=4)]
    before, after = ({token for row in rows for token in row.ids} for rows in written)
    assert before & {*marks}
    assert not after & {*marks}
    assert max(after) < len(made.tokenizer)
    monkeypatch.setattr(Talk, "begin", lambda self: self.answers.append(""))
    with pytest.raises(RuntimeError, match="wrote nothing"):
        users.first_token(bench)


@pytest.mark.slow
def test_consolidating(bench: Bench) -> None:
    check(consolidating.consolidate(bench), "consolidate-real", "study-forward")
    check(consolidating.recalled(bench), "bytes-talk")


def test_random_weights_write_no_question(tmp_path: Path) -> None:
    large = Bench(tmp_path, torch.device("cpu"), real="qwen3-0.6b")
    assert consolidating.consolidate(large) == consolidating.recalled(large) == []
    assert large.real_rounds(12) < large.rounds(12)


def test_what_is_counted_is_what_would_have_to_be_run(engine: Engine) -> None:
    counting = consolidating.Counting(engine.backbone)
    prompts = [[1, 2, 3, 4], [1, 2, 3, 5, 6]]
    counting.score(prompts, [[7, 8], [9]], groups=[0, 0])
    assert (counting.tokens, counting.positions) == (3 + (1 + 1) + 2, 3)  # the beginning once; the last is not run
    made = counting.generate(prompts, max_new_tokens=3)
    drawn = [len(one.ids) + one.stopped for one in made]
    assert (counting.tokens - 7, counting.positions - 3) == (4 + 5 + sum(drawn) - 2, sum(drawn))


def test_fused_kernel_has_no_row_without_a_gpu(bench: Bench) -> None:
    assert kernel.fused(bench) == []


def test_recorded_steps_have_no_row_without_a_gpu_and_give_the_logits_of_others(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert recorded.recorded(bench) == []
    assert [row.name for row in recorded.measured(bench)] == ["decode-recorded"]
    monkeypatch.setattr(kv_buffer.BufferedLayer, "fix", _forgetting)
    with pytest.raises(RuntimeError, match="nothing was measured"):
        recorded.measured(bench)


_FIX = kv_buffer.BufferedLayer.fix


def _forgetting(layer: kv_buffer.BufferedLayer, column: torch.Tensor, columns: int) -> None:
    _FIX(layer, column, columns)
    layer.keys.zero_()

"""Rounds, ratios and what holds; nothing here looks at how long anything took."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from locas_agent.benchmarks import suite
from locas_agent.benchmarks.measuring import Goal, interleaved, one_thread, peak_bytes
from locas_agent.errors import ConfigurationError

AT_MOST = Goal("less", "what is done", "ms", "ours/peer", 1.15, 1.06)
AT_LEAST = Goal("more", "what is done", "ms", "peer/ours", 2.0, 3.0)


def test_ratio_is_the_median_of_the_rounds_ratios() -> None:
    row = AT_MOST.row([1.0, 2.0, 30.0], [1.0, 2.5, 10.0])  # 1, 0.8, 3: a slow round slows both
    assert (row.ratio, row.spread) == (1.0, (0.8, 3.0))
    assert (row.ours, row.peer) == (2.0, 2.5)
    assert AT_LEAST.row([1.0, 2.0, 30.0], [1.0, 2.5, 10.0]).ratio == 1.0


@pytest.mark.parametrize(
    ("goal", "ours", "holds"),
    [(AT_MOST, 1.15, True), (AT_MOST, 1.16, False), (AT_LEAST, 0.5, True), (AT_LEAST, 0.51, False)],
)
def test_limit_is_met_from_the_side_on_which_the_target_lies(goal: Goal, ours: float, holds: bool) -> None:
    assert goal.row([ours], [1.0]).holds is holds


def test_row_of_unequal_sides_does_not_hold() -> None:
    assert not AT_MOST.row([1.0], [1.0], is_equal=False).holds


def test_facts_are_those_of_the_contract() -> None:
    facts = AT_MOST.row([1.0], [3.0]).facts()
    assert set(facts) == {"name", "ours", "peer", "ratio", "unit", "limit", "target", "holds", "spread", "workload"}
    assert facts["ratio"] == 0.3333


def test_each_round_calls_every_side_and_begins_with_another() -> None:
    called: list[str] = []
    sides = {name: (lambda name=name: called.append(name)) for name in "abc"}
    before = {"b": lambda: called.append("ready")}
    taken = interleaved(sides, rounds=3, device=torch.device("cpu"), warm_up=1, before=before)
    assert called == ["c", "a", "ready", "b", "a", "ready", "b", "c", "ready", "b", "c", "a", "c", "a", "ready", "b"]
    assert {name: len(times) for name, times in taken.items()} == {
        "a": 3,
        "b": 3,
        "c": 3,
    }  # the round before does not count


def test_one_thread_is_given_back() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with one_thread():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_families_give_every_row_of_the_table() -> None:
    assert set(suite.NAMES) == {
        "decode-base-real",
        "decode-all-real",
        "decode-batch",
        "decode-hf",
        "learn-deep",
        "learn-templora-real",
        "learn-long-real",
        "reply-first-token",
        "flat-real",
        "load-real",
        "bytes-real",
        "serve-peak",
        "train-peak",
        "consolidate-real",
        "study-forward",
        "bytes-talk",
        "side-ffn-fused",
        "decode-recorded",
        "decode-base",
        "decode-peft-equal",
        "decode-peft-r64",
        "decode-sequential",
        "learn-short",
        "learn-long",
        "learn-templora",
        "learn-templora-short",
        "step-forward",
        "recall-seconds",
        "load",
        "bytes",
        "flat",
        "growth",
        "growth-kept",
        "append",
    }
    assert len(suite.NAMES) == len(set(suite.NAMES))


def test_unknown_row_is_refused_before_anything_is_measured() -> None:
    with pytest.raises(ConfigurationError, match="decode-base"):
        list(suite.run(["append", "speed"]))


def test_unknown_backbone_of_real_shapes_is_refused() -> None:
    assert suite.real_name("qwen3-0.6b") == "qwen3-0.6b"
    with pytest.raises(ConfigurationError, match="smollm2"):
        suite.real_name("tiny")


def test_peak_is_what_a_call_takes_beyond_what_is_taken() -> None:
    def take() -> None:
        torch.ones(64 << 20, dtype=torch.uint8)

    for _ in range(3):  # what an earlier call freed counts again
        assert 60 << 20 < peak_bytes(take, torch.device("cpu")) < 128 << 20

    def take_small_ones() -> None:
        [torch.ones(1 << 16, dtype=torch.uint8) for _ in range(512)]

    for _ in range(3):
        assert 24 << 20 < peak_bytes(take_small_ones, torch.device("cpu")) < 64 << 20


def test_chosen_rows_alone_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    def two(_bench: object) -> list[object]:
        row = AT_MOST.row([1.0], [1.0])
        return [row, replace(row, name="other")]

    monkeypatch.setattr(suite, "FAMILIES", {two: ("less", "other")})
    monkeypatch.setattr(suite, "NAMES", ("less", "other"))
    told: list[tuple[str, int, int]] = []
    rows = list(suite.run(["other"], device="cpu", progress=lambda *told_now: told.append(told_now)))
    assert [row["name"] for row in rows] == ["other"]
    assert rows[0]["device"].endswith("one thread")
    assert told == [("measured", 1, 1)]


def test_nothing_is_begun_after_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    def one(_bench: object) -> list[object]:
        return [AT_MOST.row([1.0], [1.0])]

    def other(_bench: object) -> list[object]:
        raise AssertionError

    monkeypatch.setattr(suite, "FAMILIES", {one: ("less",), other: ("other",)})
    monkeypatch.setattr(suite, "NAMES", ("less", "other"))
    moments = iter([0.0, 1.0, 11.0])
    monkeypatch.setattr(suite.time, "monotonic", lambda: next(moments))
    assert [row["name"] for row in suite.run(device="cpu", budget_seconds=10.0)] == ["less"]

"""Paired statistics against values worked out by hand."""

from __future__ import annotations

import pytest

from locas_agent.evaluation.mmlu.paired import Pair, compare, mcnemar_p, paired_interval


@pytest.mark.parametrize(
    ("lost", "gained", "p"),
    [
        (0, 0, 1.0),
        (1, 0, 1.0),  # 2 * 1/2
        (5, 0, 0.0625),  # 2 * 1/32
        (8, 1, 0.0390625),  # 2 * (1 + 9)/512
        (1, 8, 0.0390625),
        (2, 7, 0.1796875),  # 2 * (1 + 9 + 36)/512
        (3, 3, 1.0),  # 2 * (1 + 6 + 15 + 20)/64 is more than 1
    ],
)
def test_mcnemar_is_the_exact_binomial_of_the_flips(lost: int, gained: int, p: float) -> None:
    assert mcnemar_p(lost, gained) == p


def test_interval_of_the_paired_difference() -> None:
    # 10 of 100 flip, 8 of them to wrong: delta -0.06, variance (0.1 - 0.0036) / 100, half width 1.96 * 0.031048
    low, high = paired_interval(lost=8, gained=2, n=100)
    assert (low, high) == pytest.approx((-0.06 - 0.060854, -0.06 + 0.060854), abs=1e-6)
    assert paired_interval(0, 0, 7) == (0.0, 0.0)


def test_comparison_counts_flips_and_moves() -> None:
    rights = [(True, True), (True, False), (True, False), (False, True), (False, False)]
    nlls = [(1.0, 1.5), (0.5, 2.0), (1.0, 1.0), (3.0, 2.0), (2.0, 2.0)]
    found = compare([Pair(right, nll) for right, nll in zip(rights, nlls, strict=True)])
    assert (found.n, found.accuracy_off, found.accuracy_on) == (5, 0.6, 0.4)
    assert (found.lost, found.gained, found.flips, found.mcnemar_p) == (2, 1, 3, 1.0)
    assert found.mean_abs_delta_nll == pytest.approx(0.6)  # (0.5 + 1.5 + 0 + 1 + 0) / 5
    assert found.mean_delta_nll == pytest.approx(0.2)  # (0.5 + 1.5 + 0 - 1 + 0) / 5


def test_what_a_task_does_not_have_is_left_out() -> None:
    texts = compare([Pair(None, (4.0, 4.5)), Pair(None, (2.0, 1.0))])
    assert (texts.n, texts.accuracy_off, texts.mcnemar_p, texts.accuracy_delta_ci95) == (0, None, None, None)
    assert texts.mean_abs_delta_nll == 0.75
    answers = compare([Pair((True, False), None)])
    assert (answers.flips, answers.mean_abs_delta_nll, answers.mean_delta_nll) == (1, None, None)

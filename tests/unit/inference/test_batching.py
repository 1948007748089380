"""Rows of a call in batches that a budget bounds."""

from __future__ import annotations

from itertools import pairwise

from locas_agent.inference.batching import LIKE_LENGTH, PART_TOKENS, length_parts, micro_batches


def test_micro_batches_keep_the_budget_and_lose_no_row() -> None:
    lengths = [5, 100, 7, 30, 30, 1]
    batches = micro_batches(lengths, 60)
    assert sorted(row for batch in batches for row in batch) == list(range(6))
    assert all(len(batch) == 1 or len(batch) * max(lengths[row] for row in batch) <= 60 for batch in batches)
    assert [1] in batches


def test_parts_hold_rows_of_like_length_and_lose_no_row() -> None:
    lengths = [9, 40, 10, 38, *[9] * 60, 2, 40, 39, 40, 40, 40, 40]
    parts = length_parts(lengths)
    assert sorted(row for part in parts for row in part) == list(range(len(lengths)))
    for part, after in pairwise(parts):
        longest = max(lengths[row] for row in part)
        assert len(part) * longest >= PART_TOKENS  # what is less is no forward of its own
        assert max(lengths[row] for row in after) < LIKE_LENGTH * longest
    assert length_parts([]) == []
    assert length_parts([3, 1, 2]) == [[0, 1, 2]]

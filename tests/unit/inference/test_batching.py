"""Rows of a call in batches that a budget bounds."""

from __future__ import annotations

from locas_agent.inference.batching import micro_batches


def test_micro_batches_keep_the_budget_and_lose_no_row() -> None:
    lengths = [5, 100, 7, 30, 30, 1]
    batches = micro_batches(lengths, 60)
    assert sorted(row for batch in batches for row in batch) == list(range(6))
    assert all(len(batch) == 1 or len(batch) * max(lengths[row] for row in batch) <= 60 for batch in batches)
    assert [1] in batches

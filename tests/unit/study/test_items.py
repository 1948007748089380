"""What a study set is made of."""

from __future__ import annotations

from locas_agent.study.items import NEGATIVE, PROBE, QUESTION, Coverage
from locas_storage.records.revisions import ITEM_KINDS


def test_kinds_are_those_that_a_store_takes() -> None:
    assert {QUESTION, NEGATIVE, PROBE} == set(ITEM_KINDS)


def test_share_of_covered_turns_is_whole_where_nothing_carries_a_fact() -> None:
    assert Coverage(turns=4, carrying=0, covered=0, nothing=4, sampled=2).share == 1.0
    assert Coverage(turns=4, carrying=2, covered=1, nothing=2, sampled=2).share == 0.5

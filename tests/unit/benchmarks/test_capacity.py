"""The figures of `docs/capacity.md`: formulas against figures known from elsewhere, and the page against its script."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import pytest

from scripts.capacity import (
    BEGINS,
    ENDS,
    ORIGINS,
    SHAPES,
    Assumptions,
    Shape,
    break_even,
    daily,
    hit_rate,
    paper_tables,
    payload,
    stored,
)

PAGE = Path(__file__).parents[3] / "docs" / "capacity.md"
SMALL = SHAPES[0]


def test_shape_of_the_smallest_is_that_of_the_performance_page() -> None:
    assert SMALL.products / 1e6 == pytest.approx(596, abs=0.5)
    assert SMALL.memory_numbers(32) / 1e6 == pytest.approx(0.88, abs=0.005)
    assert 128 * SMALL.past_bytes / 1e6 == pytest.approx(14.7, abs=0.05)


def test_every_assumption_says_where_it_comes_from() -> None:
    assert list(ORIGINS) == [one.name for one in fields(Assumptions)]


def test_page_shows_what_the_script_computes() -> None:
    tables = PAGE.read_text(encoding="utf-8").split(BEGINS)[1].split(ENDS)[0]
    assert paper_tables(Assumptions()) in tables, "run: python -m scripts.capacity --page docs/capacity.md"


def test_cache_of_users_who_ask_alike_finds_its_share_of_them() -> None:
    # Every user is as likely as any other, so a cache of a quarter of them has the one asked for a quarter of the
    # time: 5,000 draws have a standard error of 0.006.
    given = Assumptions(zipf=0.0, requests=5_000)
    assert hit_rate(1_000, 250, given) == pytest.approx(0.25, abs=0.03)
    assert hit_rate(1_000, 0, given) == 0.0
    assert hit_rate(1_000, 1_000, given) == 1.0


def test_cache_finds_more_when_some_users_ask_more() -> None:
    given = Assumptions(zipf=1.0, requests=5_000)
    assert hit_rate(1_000, 250, given) > hit_rate(1_000, 50, given) > 0.3
    assert hit_rate(1_000, 250, given) == hit_rate(1_000, 250, given)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_memory_costs_less_from_some_length_of_text_on(shape: Shape) -> None:
    given = Assumptions()
    met = break_even(shape, given)
    assert met * 1.1 < given.days * given.turns_per_day * given.tokens_per_turn  # so that there is as much text
    shorter, longer = (daily(shape, replace(given, longest_prompt=int(met * by))) for by in (0.9, 1.1))
    assert shorter["text_dollars"] < shorter["memory_dollars"] == longer["memory_dollars"] < longer["text_dollars"]


def test_retention_and_rounding_change_bytes_in_proportion() -> None:
    given = Assumptions()
    assert payload(SMALL, replace(given, bytes_per_number=1.0)) * 2 == payload(SMALL, given)
    assert stored(SMALL, replace(given, kept_payloads=6))["revisions"] == 2 * stored(SMALL, given)["revisions"]


def test_learning_a_day_does_not_grow_with_the_journal_and_text_does() -> None:
    young, old = (daily(SMALL, Assumptions(days=days)) for days in (30, 180))
    assert young["learning_flops"] == old["learning_flops"]
    assert old["text_reading_flops"] > 6 * young["text_reading_flops"]

"""Comparing answers."""

from __future__ import annotations

import pytest

from locas_agent.study.matching import contains, same_answer, token_f1


def test_carrier_words_do_not_count() -> None:
    assert token_f1("It is Rex.", "Rex") == 1.0
    assert not same_answer("It is Rex.", "It is Bello.")
    assert same_answer("It is smoked plum soup.", "smoked plum soup")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("It is rubber maps.", "It is rubber postcards."),
        ("It is The Gentle Candle.", "It is The Paper Candle."),
        ("It is Sunday afternoon at 5.", "It is Sunday afternoon at 6."),
        ("", "It is Rex."),
    ],
)
def test_a_shared_word_is_no_agreement(first: str, second: str) -> None:
    assert not same_answer(first, second)


def test_a_longer_answer_agrees_with_the_short_one_it_holds() -> None:
    assert same_answer("It is Rex, the brown one.", "It is Rex.")


def test_containment_wants_the_words_together_and_in_order() -> None:
    assert contains("It is the Red Barn, I think.", "red barn")
    assert not contains("It is a barn that is red.", "red barn")
    assert not contains("It is Rexona.", "Rex")


def test_codes_compare_digit_by_digit() -> None:
    assert contains("It is 4071.", "4071")
    assert not contains("It is 40711.", "4071")

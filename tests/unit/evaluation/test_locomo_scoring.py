"""LoCoMo's scorer against cases worked out by hand from its rules.

Stems used below, by Porter's rules: painting, paints -> paint; libraries, library -> librari; dogs -> dog; swims,
swimming -> swim; before -> befor.
"""

from __future__ import annotations

import pytest

from locas_agent.evaluation.locomo.scoring import (
    NOT_MENTIONED,
    chosen,
    exact,
    normalised,
    offer,
    official,
    options,
    refuses,
    trap_comes_first,
)

MULTI_HOP = [
    ("dog, cat, fish, bird, horse", "cat, horse", 1.0),  # more guesses cost nothing
    ("cat", "cat, horse", 1 / 2),  # 1 for cat, 0 for horse
    ("cat and horse", "cat, horse", 2 / 3),  # one guess {cat, horse}; each part 2*1/(2+1)
    ("cat horse", "cat, horse", 2 / 3),  # the same: "and" does not count
    ("", "cat, horse", 0.0),
    ("pottery, camping", "camping, painting, swimming", 1 / 3),
    ("she paints, she swims", "painting, swimming", 2 / 3),  # {she, paint} with {paint}: 2*1/(2+1), twice
    ("7 May, 2023", "7 May, 2023", 1.0),
    (
        "7 May 2023",
        "7 May, 2023",
        (4 / 5 + 2 / 4) / 2,
    ),  # the comma tears the date: {7, may} 2*2/(3+2), {2023} 2*1/(3+1)
    ("two", "2", 0.0),  # words are not counted out
]
TEMPORAL = [
    ("May 7, 2023", "7 May 2023", 1.0),  # a bag of tokens has no order
    ("7 May", "7 May 2023", 4 / 5),  # 2*2/(2+3)
    ("2023", "7 May 2023", 1 / 2),  # 2*1/(1+3)
    ("8 May 2023", "7 May 2023", 2 / 3),  # 2*2/(3+3)
    ("The week before 9 June 2023.", "the week before 9 June, 2023", 1.0),
    (
        "the week before 2023",
        "The week before 9 June 2023",
        3 / 4,
    ),  # {week, befor, 2023} of {week, befor, 9, june, 2023}: 2*3/(3+5)
    ("yesterday", "7 May 2023", 0.0),
    ("2022", "2022", 1.0),
]
OPEN_DOMAIN = [
    ("Likely yes", "Likely yes; since she collects books", 1.0),
    ("Yes", "Likely yes; since she collects books", 2 / 3),  # 2*1/(1+2)
    ("since she collects books", "Likely yes; since she collects books", 0.0),  # the reason does not count
    ("Psychology, counseling", "psychology; medicine", 2 / 3),  # no cutting at commas here: 2*1/(2+1)
    ("Yes, she likes it", "Yes", 2 / 5),  # 2*1/(4+1)
]
SINGLE_HOP = [
    ("painting", "She paints", 2 / 3),  # 2*1/(1+2)
    ("self-care", "selfcare", 1.0),  # punctuation leaves no space
    ("self care", "self-care", 0.0),
    ("A dog and a cat", "the dog, cat", 1.0),
    ("dogs", "Dog!", 1.0),
    ("It is Rex.", "Rex", 1 / 2),  # 2*1/(3+1)
    ("Rex", "It is Rex.", 1 / 2),
    ("rex rex", "rex", 2 / 3),  # a bag counts: 2*1/(2+1)
    ("rex rex", "rex rex tom", 4 / 5),  # 2*2/(2+3)
    ("libraries", "the library", 1.0),
    ("cat, dog", "cat", 2 / 3),  # no cutting at commas here either
    ("", "Rex", 0.0),
    ("the", "an", 0.0),  # nothing on either side is no agreement
]
ADVERSARIAL = [
    (NOT_MENTIONED, 1.0),
    ("There is NO INFORMATION AVAILABLE.", 1.0),
    ("That was not mentioned.", 1.0),
    ("It was mentioned.", 0.0),
    ("I do not know.", 0.0),  # an abstention, but not in the words that the published code looks for
    ("Rex", 0.0),
    ("", 0.0),
]
SCORED = [
    (category, *case)
    for category, cases in ((1, MULTI_HOP), (2, TEMPORAL), (3, OPEN_DOMAIN), (4, SINGLE_HOP))
    for case in cases
]


@pytest.mark.parametrize(("category", "answer", "gold", "expected"), SCORED)
def test_answers_are_scored_as_worked_out_by_hand(category: int, answer: str, gold: str, expected: float) -> None:
    assert official(category, answer, gold) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("answer", "expected"), ADVERSARIAL)
def test_adversarial_answers_are_scored_by_two_phrases(answer: str, expected: float) -> None:
    assert official(5, answer, None) == expected


def test_there_are_thirty_cases_over_all_categories() -> None:
    assert len(SCORED) + len(ADVERSARIAL) >= 30


def test_the_same_answer_is_scored_by_its_category() -> None:
    """The rules differ where they should: one pair of texts, three scores."""
    answer, gold = "yes, no", "yes; no, maybe"
    assert official(1, answer, gold) == pytest.approx((2 / 3 + 0) / 2)  # parts "yes; no" and "maybe": 2*1/(1+2), 0
    assert official(3, answer, gold) == pytest.approx(2 / 3)  # "yes": 2*1/(2+1)
    assert official(4, answer, gold) == pytest.approx(4 / 5)  # {yes, no, mayb}: 2*2/(2+3)


def test_words_that_do_not_count_are_whole_words() -> None:
    assert normalised("An antelope and the thermos, a band") == ["antelop", "thermo", "band"]


@pytest.mark.parametrize(
    ("category", "answer", "gold", "expected"),
    [
        (4, "It is Rex, my dog.", "Rex", True),
        (4, "Rexy", "Rex", False),
        (3, "Likely yes", "Likely yes; she said so", True),
        (5, "I do not know.", None, True),
        (5, "Rex", None, False),
    ],
)
def test_exact_match_is_containment_and_abstention(
    category: int, answer: str, gold: str | None, expected: bool
) -> None:
    assert exact(category, answer, gold) is expected


@pytest.mark.parametrize("trap_first", [True, False])
def test_both_orders_offer_the_same_two_answers(trap_first: bool) -> None:
    text = offer("What is it?", "Rex", trap_first=trap_first)
    first, second = options("Rex", trap_first=trap_first)
    assert {first, second} == {"Rex", NOT_MENTIONED}
    assert text == f"What is it?\nChoose one answer: (a) {first} (b) {second}"


@pytest.mark.parametrize("reply", ["a", "A", "(a)", "a.", "(a) Rex", "The answer is (A)."])
def test_letter_stands_for_its_option_in_either_order(reply: str) -> None:
    assert chosen(reply, "Rex", trap_first=True) == "Rex"
    assert chosen(reply, "Rex", trap_first=False) == NOT_MENTIONED


@pytest.mark.parametrize("reply", ["", "both (a) and (b)", "I went for a walk and had a bath.", "c", "ab"])
def test_rambling_is_no_choice(reply: str) -> None:
    """In one published script anything but (a) counts as (b), which is right half of the time."""
    for trap_first in (True, False):
        assert chosen(reply, "Rex", trap_first=trap_first) == reply
        assert not refuses(chosen(reply, "Rex", trap_first=trap_first))


def test_drawn_order_follows_from_the_seed_and_is_even() -> None:
    drawn = [trap_comes_first(0, "conv", number) for number in range(400)]
    assert drawn == [trap_comes_first(0, "conv", number) for number in range(400)]
    assert drawn != [trap_comes_first(1, "conv", number) for number in range(400)]
    assert 150 < sum(drawn) < 250

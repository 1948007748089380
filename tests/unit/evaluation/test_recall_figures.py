"""What answers come to: whole words, replaced facts, age, what was never told, and values of other facts."""

from __future__ import annotations

from pathlib import Path

import pytest

from locas_agent.evaluation.recall import figures
from locas_agent.evaluation.recall.people import Source
from locas_agent.evaluation.recall.setup import RecallOptions
from locas_agent.evaluation.scoring import Arm, names

PEOPLE = Path(__file__).with_name("two_people.jsonl")


@pytest.fixture
def source() -> Source:
    return RecallOptions(files=(PEOPLE,)).source()


@pytest.mark.parametrize(
    ("answer", "form", "is_named"),
    [
        ("It is called PEPPERPOT!", "Pepperpot", True),
        ("Pepperpots", "Pepperpot", False),
        ("Pepperpot's hedge", "Pepperpot", True),
        ("That costs 13 pounds.", "3", False),
        ("He weighs 3.9 kilos.", "3", False),
        ("He weighs 3.9 kilos.", "3.9", True),
        ("It is 1,060.", "060", False),
        ("At 6:48.", "6:48", True),
        ("Number 8.", "8", True),
        ("12 March", "2 March", False),
        ("He works at Ostler\N{RIGHT SINGLE QUOTATION MARK}s  Mill", "Ostler's Mill", True),
        ("rev. C1 (new)", "c1", True),
        ("anything", "", False),
    ],
)
def test_a_form_is_named_as_whole_words(answer: str, form: str, is_named: bool) -> None:
    assert names(answer, form) is is_named


def test_any_accepted_form_is_right_and_the_nearest_one_is_scored() -> None:
    arm = Arm(names)
    assert arm.add("seventeen", ("17", "seventeen"), 0)
    assert not arm.add("Number 177", ("17", "seventeen"), 0)
    assert arm.f1 == [1.0, 0.0]


def test_share_is_what_the_memory_adds_of_what_reading_adds() -> None:
    assert figures.share(none=0.1, context=0.6, memory=0.35) == 0.5
    assert figures.share(none=0.2, context=0.2, memory=0.4) is None


def test_facts_told_anew_are_asked_in_the_former_wordings(source: Source) -> None:
    asked = source.asked()
    said = {"Where do I live?": "In Vell.", "Which town is mine?": "Tarn.", "In what town is my house?": "No idea."}
    recalled = [said.get(one.text, "Vell") for one in asked]
    right = {"context": [one.text == "Where do I live?" for one in asked]}
    report = figures.updated(source, asked, recalled, right)
    assert report is not None
    assert report["n"] == 3  # the newer fact's own wordings would flatter: nothing false was ever right for them
    assert report["exact_match"] == report["stale"] == report["context"] == 0.3333
    assert (report["answered"], report["new_among_answered"]) == (0.6667, 0.5)


def test_made_up_people_are_asked_for_the_newest_value_alone() -> None:
    made_up = RecallOptions(users=2, sessions=2, facts=2, seed=5).source()
    asked = made_up.asked()
    report = figures.updated(made_up, asked, [one.fact.answers[0] for one in asked], {"context": [True] * len(asked)})
    assert len(asked) == 2 * 3
    assert report is not None
    assert (report["n"], report["exact_match"], report["stale"]) == (2, 1.0, 0.0)


def test_retention_by_age_goes_by_the_order_of_telling(source: Source) -> None:
    asked = source.asked()
    ages = figures.retention_by_age(source, asked, [one.fact.answers[0] in ("Pepperpot", "Sandpiper") for one in asked])
    # Of four facts in force the goat is the oldest, of Ben's two the boat is the younger.
    assert len(ages) == figures.AGES
    assert ages[0] == 0.5  # the goat beside Ben's day
    assert ages[2] == 0.0  # the clocks
    assert ages[4] == 0.5  # the new town beside the boat; the old town's wordings have no age of their own
    assert ages[6] == 0.0  # the shed
    assert [at for at, rate in enumerate(ages) if rate is None] == [1, 3, 5, 7]


def test_eight_facts_have_eight_ages(source: Source) -> None:
    made_up = RecallOptions(users=2, sessions=1, facts=8, seed=1).source()
    asked = made_up.asked()
    oldest = [one.place == 0 for one in asked]
    assert figures.retention_by_age(made_up, asked, oldest) == [1.0, *[0.0] * 7]


def test_never_told_counts_abstaining_and_told_values(source: Source) -> None:
    # The second question names Tarn itself: an answer that repeats it names nothing that was told.
    told = figures.never_told(
        source, ["I do not know.", "Tarn has a cat.", "In Tuesday."], ["Rome.", "17", "Sandpiper"]
    )
    assert told == {
        "abstains": 0.3333,
        "names_a_told_value": 0.3333,
        "holds": 0.6667,
        "bare_names_a_told_value": 0.6667,
        "n": 3,
    }


def test_values_of_other_facts_are_counted_unless_the_question_says_them(source: Source) -> None:
    asked = source.asked()
    confused = ["Pepperpot" if one.user == 0 else "I row." for one in asked]
    rate = figures.names_other_fact(source, asked, {"memory": confused})["memory"]
    assert rate == round(12 / 21, 4)  # all of Orla's questions but the three about the goat


def test_groups_are_styles_and_tellers(source: Source) -> None:
    asked = source.asked()
    right = {
        "none": [False] * len(asked),
        "context": [True] * len(asked),
        "memory": [one.fact.role == "assistant" for one in asked],
    }
    covered = {(user, place): user == 0 for user in (0, 1) for place in range(len(source.tellers[user].facts))}
    groups = figures.by_group(source, asked, right, covered)
    assert groups["styles"]["long"] == {
        "n": 6,
        "none": 0.0,
        "context": 1.0,
        "memory": 0.0,
        "memory_over_context": 0.0,
        "coverage": 0.0,
    }
    assert groups["styles"]["short"]["coverage"] == 1.0
    assert groups["tellers"]["assistant"]["n"] == 3
    assert groups["tellers"]["assistant"]["memory"] == 1.0
    assert groups["tellers"]["user"]["memory"] == 0.0

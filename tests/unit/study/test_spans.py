"""Spans: by which words a turn is asked, and what of it an answer points at."""

from __future__ import annotations

import pytest

from locas_agent.study.spans import answers_in, cues_of, foreign, is_figure, is_whole, pointed_at, words_of

TOLD = "Evening! My brother Emil carried the piano up four floors on 21 July after Lea's call."


def test_names_are_capitals_inside_a_sentence_and_whatever_holds_a_digit() -> None:
    names = {word.text for word in words_of(TOLD) if word.is_name}
    assert names == {"Emil", "July", "21", "Lea's"}
    assert {word.text for word in words_of("I think I'll go. Then I'm off to Bonn")} & {"Bonn", "I", "I'll"} >= {"Bonn"}
    assert [word.text for word in words_of("I think I'll go to Bonn") if word.is_name] == ["Bonn"]


def test_function_words_carry_nothing() -> None:
    assert [word.text for word in words_of("It is the one that I really want") if word.carries] == []
    assert [word.text for word in words_of("it was Will") if word.carries] == ["Will"]  # a name, whatever the word


def test_cues_are_names_and_numbers_first_each_once() -> None:
    cues = cues_of(TOLD, most=20)
    assert len(cues) == len(set(cues))
    assert "Emil" in cues
    assert "Lea" in cues
    assert cues.index("Emil") < cues.index("piano")
    assert cues_of(TOLD, most=2) == cues[:2]
    assert cues_of("We met Ada Lovelace, and Ada Lovelace left.", most=9).count("Ada Lovelace") == 1
    assert "38 years" in cues_of("They have been married 38 years by then.", most=9)
    assert cues_of("The tiles have joints of 3 mm all over.", most=1) == ["3 mm"]
    assert cues_of("I paid £340 second hand.", most=1) == ["£340"]
    assert cues_of("", most=9) == cues_of("so it is", most=9) == []


@pytest.mark.parametrize(
    ("text", "answers"),
    [
        ("She met a strict young woman in Graz.", ["met", "strict young woman", "young woman", "woman", "Graz"]),
        ("It was a very old slow brown dog", ["slow brown dog", "brown dog", "dog"]),
        ("It's a hundred and eighty steps, then home.", ["hundred and eighty steps", "home"]),
        ("We fed four hundred guests and two hens", ["fed", "four hundred guests", "hens"]),
        ("He's at work. She'd paid £340 for Pastor Amadi's goat", ["work", "paid", "£340", "Pastor Amadi", "goat"]),
        (
            "Drops at half past nine, coffee at a quarter to seven",
            ["Drops", "half past nine", "coffee", "quarter to seven"],
        ),
        ("Ten past 8 it began, and 34 people came to eat", ["Ten past 8", "began", "34 people", "eat"]),
        ("Half that stile, nine to forty hens", ["Half", "stile", "nine", "forty hens"]),
        ("Can't you say it? So we'll, they don't", []),
        ("", []),
    ],
)
def test_somebody_may_answer_with_names_numbers_and_descriptions(text: str, answers: list[str]) -> None:
    assert answers_in(text) == answers


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("34 people", True),
        ("6,500 kroner", True),
        ("£340", True),
        ("quarter to seven", True),
        ("Fort Kochi", True),
        ("quarter", False),
        ("kroner", False),
        ("half past", False),
    ],
)
def test_names_numbers_and_times_of_day_are_answers_as_a_whole(text: str, *, whole: bool) -> None:
    assert is_whole(text) is whole
    assert is_figure(text) is (whole and text != "Fort Kochi")


def test_a_sum_is_written_with_its_currency_and_compared_without() -> None:
    (paid,) = [word for word in words_of("I paid £340 for it") if word.is_name]
    assert (paid.text, paid.key) == ("£340", "340")


@pytest.mark.parametrize(
    ("answer", "asked", "span"),
    [
        ("Your brother Emil carried it.", "Which brother carried the piano?", "Emil"),
        ("It was on 21 July.", "When did my brother carry the piano?", "21 July"),
        ("the piano", "What did my brother carry?", "piano"),  # without the function word before it
        ("EMIL!", "What is my brother called?", "Emil"),  # as the turn writes it
        ("It was Lea's.", "Whose call was it?", "Lea"),  # what she owns is no part of her name
        ("lea", "Whose call was it?", "Lea"),
        ("Four floors.", "How many floors?", "four"),  # what the question says is no answer
    ],
)
def test_an_answer_points_at_a_span(answer: str, asked: str, span: str) -> None:
    assert pointed_at(answer, asked, TOLD) == span


@pytest.mark.parametrize(
    ("answer", "asked"),
    [
        ("Your sister did.", "Who carried the piano?"),  # nothing of the turn
        ("", "Who carried the piano?"),
        ("Your brother carried the piano.", "Which piano did my brother have carried?"),  # all of it was asked
        ("It was on the.", "When was it?"),  # function words alone
        ("My brother Emil carried the piano up four floors.", "What happened?"),  # a recital
    ],
)
def test_an_answer_that_gives_nothing_has_no_span(answer: str, asked: str) -> None:
    assert pointed_at(answer, asked, TOLD) is None


def test_the_longest_span_that_may_be_an_answer_is_a_choice() -> None:
    told = "We planted apple pear plum cherry quince medlar rowan trees."
    said = "apple pear plum cherry quince medlar"
    assert pointed_at(said, "What grows?", told) == said
    assert pointed_at(said, "What grows?", told, most_words=5) is None


def test_case_is_folded_in_every_script() -> None:
    told = "I moved to Malmö on Saturday."
    assert pointed_at("MALMÖ", "Where did I move?", told) == "Malmö"
    assert pointed_at("ΑΘΗΝΑ", "Where to?", "Πάμε στην Αθηνα αύριο") == "Αθηνα"
    assert pointed_at("Straße", "Where?", "Our place is in STRASSE nine.") == "STRASSE"


def test_foreign_words_stand_in_no_known_text() -> None:
    assert foreign("Emil carried a harp to Bonn", [TOLD, "Who carried it?"]) == ["harp", "Bonn"]
    assert foreign("it is what it is", []) == []


def test_letters_with_marks_written_apart_are_whole_words() -> None:
    told = "I moved to Malmo\u0308 in March."
    assert pointed_at("You moved to Malmö.", "Which city did I move to?", told) == "Malmö"
    assert "Malmö" in cues_of(told, most=3)


def test_names_on_both_sides_of_a_comma_are_two() -> None:
    assert cues_of("We leave on 21 July, Lea and I.", most=3)[:2] == ["21 July", "Lea"]


def test_a_name_with_a_small_word_inside_is_one() -> None:
    told = "I heard Conversas da Doca in Rio de Janeiro with Jan van Eyck, 24 of 30 days, from the Bank of the West"
    names = ["Conversas da Doca", "Rio de Janeiro", "Jan van Eyck", "24", "30 days", "Bank", "West"]
    assert [each for each in answers_in(told) if is_whole(each)] == names
    assert not is_whole("box of Wine")
    assert not is_whole("Petals of")

"""Which sentence says that something is otherwise now, and of which value."""

from __future__ import annotations

import pytest

from locas_agent.study.scribe.changes import kind_of, says_change


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("23 May", "date"),
        ("24 February 2026", "date"),
        ("6:48", "number"),
        ("$185", "number"),
        ("Maybelle 2", "number"),
        ("Utrecht", "name"),
        ("Éva", "name"),
        ("terracotta", "word"),
        ("quarter to seven", "number"),
        ("half past nine", "number"),
        ("forty-two", "number"),
    ],
)
def test_values_are_of_four_kinds(value: str, kind: str) -> None:
    assert kind_of(value) == kind


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("I moved. We're in Utrecht now, near the canal.", "Utrecht"),
        ("The gig's now the 23rd of may.", "23 May"),
        ("It rained.\nFrom now on I buy from Brackenfold Flour", "Brackenfold Flour"),
        ("Ada has left, so Maren takes over the boat.", "Maren"),
        ("We settled on terracotta instead, same shape.", "terracotta"),
        ("so, boxes everywhere: we shifted to Thrissur.", "Thrissur"),
        ("We've relocated to Leeds, finally.", "Leeds"),
        ("Now it starts on the 8th of May, no longer in April.", "8 May"),
    ],
)
def test_a_sentence_says_that_its_value_is_new(text: str, value: str) -> None:
    assert says_change(text, value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("I live in Utrecht. Now, the other matter.", "Utrecht"),  # a beginning, and another sentence
        ("I moved! We live in Utrecht.", "Utrecht"),
        ("They are in Norwich now.", "Utrecht"),
        ("I know that he is 24.", "24"),
        ("", "Utrecht"),
        ("We are there now.", ""),
    ],
)
def test_other_sentences_say_nothing_of_it(text: str, value: str) -> None:
    assert not says_change(text, value)


def test_who_is_new_takes_the_place_of_their_like_alone() -> None:
    text = "She's too busy, so I have a new partner, Duarte."
    assert says_change(text, "Duarte", "I have a tandem partner since last week! Her name is Filipa.")
    assert not says_change(text, "Duarte", "My dentist is called Filipa.")
    assert not says_change(text, "Duarte")
    assert not says_change("I have a new friend, Duarte", "Duarte", "My friend Filipa sings.")

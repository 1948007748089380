"""What a turn says outright, and the questions that grammar gives for it."""

from __future__ import annotations

import pytest

from locas_agent.study.scribe.outright import told_outright


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("picking my sister Paloma up at noon", {"Paloma": "What is my sister's name?", "sister": "Who is Paloma?"}),
        ("our son, Tymon, fed the axolotl", {"Tymon": "What is our son's name?", "son": "Who is Tymon?"}),
        ("I have only Dev, my cousin, he has no fear", {"Dev": "What is my cousin's name?", "cousin": "Who is Dev?"}),
        (
            "and my best friend Mr Costello's here",
            {"Mr Costello": "Who is my best friend?", "best friend": "Who is Mr Costello?"},
        ),
        (
            "our uncle Jan van der Berg sang",
            {"Jan van der Berg": "Who is our uncle?", "uncle": "Who is Jan van der Berg?"},
        ),
        ("My boss is called Berend-Jan", {"Berend-Jan": "What is my boss called?"}),
        ("the hen's called Madam Speaker, she talks", {"Madam Speaker": "What is the hen called?"}),
        ("a boy named Siem shouts", {"Siem": "What is the boy called?"}),
        ("no more teeth! I'm a kiln technician", {"kiln technician": "What do I do for a living?"}),
        ("it was Róisín, a stonemason, who sang", {"stonemason": "What does Róisín do for a living?"}),
        ("News: we moved to York last weekend", {"York": "Where do I live?"}),
        ("so, boxes: we shifted to Thrissur", {"Thrissur": "Where do I live?"}),
        ("my hen looked after me, she's called Madam Speaker", {"Madam Speaker": "What is my hen called?"}),
        ("I run a tiny bakery, it's called Marigold", {"Marigold": "What is my tiny bakery called?"}),
        ("my scooter came like a bride, we call her Rosamma", {"Rosamma": "What is my scooter called?"}),
        ("I have a tutor too! Her name is Filipa and she sings", {"Filipa": "What is my tutor called?"}),
        ("Good. The girl's name is Solveig", {"Solveig": "What is the girl called?"}),
        ("so I have a new partner, Duarte. He rows", {"Duarte": "What is my partner called?"}),
        ("I've a collie, Sceilg, who is wise", {"Sceilg": "What is my collie called?"}),
        (
            "Review goes through Saskia, she's our tech lead and stern",
            {"Saskia": "Who is our tech lead?", "tech lead": "Who is Saskia?"},
        ),
        ("Anjali, my eldest, is late", {"Anjali": "Who is my eldest?", "eldest": "Who is Anjali?"}),
        ("I repair lifts for a living", {"repair lifts": "What do I do for a living?"}),
        ("I carve spoons for a living", {"carve spoons": "What do I carve for a living?"}),
        ("I tune pianos, and tomorrow's is far", {"tune pianos": "What is my job?"}),
        ("I work at a lens grinder's workshop", {"lens grinder's workshop": "Where do I work?"}),
        ("hi, my name is Ada Lovelace", {"Ada Lovelace": "What is my name?"}),
        ("I live in Bisbee, where I work at Gleason's", {"Bisbee": "Where do I live?", "Gleason": "Where do I work?"}),
        (
            "I’m allergic to hazelnuts, and I am from Suwałki",
            {"hazelnuts": "What am I allergic to?", "Suwałki": "Where am I from?"},
        ),
    ],
)
def test_what_is_told_outright_has_its_questions(text: str, told: dict[str, str]) -> None:
    found = {each.text: each.questions for each in told_outright(text)}
    assert set(found) == set(told)
    assert all(told[answer] in found[answer] for answer in told)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "my",
        "my sister and Paloma left",
        "Wheatstone, my grandfather won it in a raffle",
        "with my 24 June plan",
        "my dog, I think, is called by nobody",
        "they called Ada",
        "is called",
        "my house - Rome calls",
        "I live in the",
        "she moved to York",
        "Well, my dog, I think, is late",
        "Sadly, my boss, who sings",
        "she's called Gerda",
        "Her name is Gerda",
        "she has a collie, Sceilg, I think",
        "I carve spoons",
        "I repair the lift",
        "a new one, Duarte",
        "I work at it",
    ],
)
def test_what_only_looks_like_it_is_left_out(text: str) -> None:
    assert told_outright(text) == []


@pytest.mark.parametrize("text", ["I'm a private fella, so", "I'm a leaf in the wind", "so Zurab, a giant, sang"])
def test_what_is_no_work_is_not_asked_for_as_one(text: str) -> None:
    """The same question for "vet" and for "fella" would be answered by the one told last."""
    assert [each.questions for each in told_outright(text)] == [()]


def test_what_he_or_she_is_has_no_question_of_grammar() -> None:
    (told,) = told_outright("he came in red, and she's a judge, by the way")
    assert (told.text, told.kind, told.questions) == ("judge", "calling", ())

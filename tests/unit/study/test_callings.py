"""What a turn says that somebody is."""

from __future__ import annotations

import pytest

from locas_agent.study.scribe.callings import callings_in


@pytest.mark.parametrize(
    ("text", "callings"),
    [
        ("no more teeth!! I'm a kiln technician at a pottery studio now", ["kiln technician"]),
        ("She's a judge, by the way. My brother is a fireman.", ["judge", "fireman"]),
        ("He was an accountant, then he became a racing judge", ["accountant", "racing judge"]),
        ("it turns out he's the new dentist, and she's my partner", ["dentist", "partner"]),
        ("I met Róisín, a stonemason, and I'm the designer.", ["stonemason", "designer"]),
        ("the chair is the problem, and Ada, a", []),
        ("It's a pain, and this is a disaster.", []),
        ("a judge", []),
        ("I'm a - well, judge", []),
        ("I am a very kind man", []),
        (
            "he's a retired ferry captain, with a greyhound, and our cox is a young boy called Siem",
            ["retired ferry captain", "young boy"],
        ),
        ("He's red as a beet, she works as a welder, and I started as an usher", ["welder", "usher"]),
        ("", []),
    ],
)
def test_what_somebody_is_said_to_be(text: str, callings: list[str]) -> None:
    assert [each.text for each in callings_in(text)] == callings


@pytest.mark.parametrize(
    ("text", "whose"),
    [
        ("I'm a vet now", "I"),
        ("I am an optician", "I"),
        ("my brother is a fireman", "my brother"),
        ("so Ada is a judge now", "Ada"),
        ("I've got Torvald, a baker, now", "Torvald"),
        ("he's the new dentist from the square, Doctor Vavřík, and I", "Doctor Vavřík"),
        ("she's a vet from town, Tom says", ""),
        ("she's a vet from town, 45, and tired", ""),
        ("he's a vet, and I told her so, Tom.", ""),
        ("she's a judge now", ""),
        ("is a judge here", ""),
        ("he works as a judge here", ""),
    ],
)
def test_whose_calling_it_is(text: str, whose: str) -> None:
    assert [each.whose for each in callings_in(text)] == [whose]

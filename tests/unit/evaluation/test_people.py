"""Synthetic people: the same for a seed, and on the other side of every split from what the bundled backbone learnt."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from random import Random

import pytest

from locas_agent.evaluation.synthetic.people import make_person
from locas_agent.evaluation.synthetic.relations import RELATIONS
from locas_agent.evaluation.synthetic.values import CITIES, FIRST_NAMES, HELD, KINDS, TRAIN, make_value, split_of

SCRIPTS = Path(__file__).parents[3] / "scripts"


@pytest.fixture(scope="module")
def training_text() -> str:
    sys.path.insert(0, str(SCRIPTS))
    from tiny_backbone.documents import Documents

    documents = Documents(0)
    return "\n".join(message.content for index in range(3000) for message in documents.draw(index) if message.role)


def test_there_are_at_least_forty_relations_with_distinct_wordings() -> None:
    assert len(RELATIONS) >= 40
    questions = [text for relation in RELATIONS for text in (*relation.study, *relation.asked, *relation.asked_held)]
    assert len(questions) == len(set(questions))
    for relation in RELATIONS:
        assert not set(relation.told) & set(relation.told_held)
        assert not set(relation.changed) & set(relation.changed_held)


def test_person_follows_from_the_seed_alone() -> None:
    assert make_person(Random("x"), sessions=3, facts_per_session=4) == make_person(
        Random("x"), sessions=3, facts_per_session=4
    )
    assert make_person(Random("x"), sessions=3, facts_per_session=4) != make_person(
        Random("y"), sessions=3, facts_per_session=4
    )


def test_person_tells_what_was_asked_for_and_changes_its_mind() -> None:
    person = make_person(Random("x"), sessions=4, facts_per_session=4)
    told = [line.fact for session in person.sessions for line in session.lines if line.fact]
    assert len(told) == 16
    assert len(person.facts) == 13
    assert len(person.replaced) == 3
    assert {fact.relation.key for fact in person.facts}.isdisjoint(relation.key for relation in person.unknown)


def test_too_many_facts_are_refused() -> None:
    with pytest.raises(ValueError, match="ask for fewer"):
        make_person(Random("x"), sessions=30, facts_per_session=4)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_values_keep_to_their_split(kind: str) -> None:
    rng = Random(kind)
    assert all(split_of(make_value(kind, split, rng)) == split for split in (TRAIN, HELD) for _ in range(20))


def test_held_out_wordings_and_values_never_occur_in_training(training_text: str) -> None:
    assert "What is my dog called?" in training_text, "the check below would prove nothing"
    lines = set(training_text.splitlines())
    for relation in RELATIONS:
        assert not lines & set(relation.asked_held)
    rng = Random("values")
    values = {kind: {make_value(kind, HELD, rng) for _ in range(200)} for kind in ("name", "place")}
    for kind, drawn in values.items():
        frames = [
            frame for relation in RELATIONS if relation.kind == kind for frame in (*relation.told, *relation.changed)
        ]
        for value in drawn:
            naming = [line for line in lines if value in line]
            assert not [frame for frame in frames for line in naming if frame.format(v=value) in line]
    # A first name, a city or a made-up word of few letters may occur as part of another value, a longer made-up word
    # may not.
    words = set(re.findall(r"\w+", training_text))
    made_up = {value for drawn in values.values() for value in drawn} - set(FIRST_NAMES) - set(CITIES)
    assert len(made_up) > 200
    assert len(made_up & words) <= len(made_up) // 20
    assert not {word for word in made_up & words if len(word) > 5}

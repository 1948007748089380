"""People of the talk schema: what is read, what is refused, and what becomes of them as a source of `eval recall`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from locas_agent.errors import ConfigurationError
from locas_agent.evaluation.recall.people import Asked, LeftOut, Source
from locas_agent.evaluation.recall.setup import RecallOptions, steps_of
from locas_agent.evaluation.talk.data import read_talk

PEOPLE = Path(__file__).with_name("two_people.jsonl")
SECRET = "the badger sleeps"
"""Stands for what somebody said, which no message shows."""


def source(**options: Any) -> Source:
    return RecallOptions(files=(PEOPLE,), **options).source()


def about(asked: list[Asked], text: str) -> Asked:
    return next(one for one in asked if one.text == text)


def test_people_are_read_as_they_stand_in_the_file() -> None:
    file = read_talk(PEOPLE)
    assert [person.person for person in file.people] == ["a1", "b1"]
    assert [len(session.turns) for session in file.people[0].sessions] == [4, 3]
    assert file.people[0].facts["town2"].replaces == "town"
    assert len(file.digest) == 64


def _put(path: tuple[str | int, ...], value: object) -> Callable[[dict[str, Any]], None]:
    def change(person: dict[str, Any]) -> None:
        at: Any = person
        for step in path[:-1]:
            at = at[step]
        at[path[-1]] = value

    return change


def _drop(*path: str | int) -> Callable[[dict[str, Any]], None]:
    def change(person: dict[str, Any]) -> None:
        at: Any = person
        for step in path[:-1]:
            at = at[step]
        del at[path[-1]]

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_put(("mood",), SECRET), "mood: Extra inputs"),
        (_put(("sessions", 0, "turns", 0, "tone"), SECRET), "sessions.0.turns.0.tone: Extra inputs"),
        (_put(("facts", "goat", "answer"), [SECRET]), "facts.goat.answer: Extra inputs"),
        (_drop("name"), "name: Field required"),
        (_put(("sessions", 0, "turns", 0, "role"), SECRET), "sessions.0.turns.0.role: Input should be"),
        (_put(("sessions", 0, "turns", 0, "text"), " "), "sessions.0.turns.0.text"),
        (_put(("sessions", 0, "at"), SECRET), "sessions.0.at"),
        (_put(("sessions", 0, "at"), "2026-02-03T09:00:00"), "sessions.0.at"),
        (_put(("sessions", 1, "at"), "2020-01-01T00:00:00Z"), "sessions.1 is earlier"),
        (_put(("facts", "goat", "session"), "0"), "facts.goat.session"),
        (_put(("facts", "goat", "session"), 1), "facts.goat: session is 1"),
        (_put(("facts", "goat", "answers"), []), "facts.goat.answers"),
        (_put(("sessions", 0, "turns", 1, "facts"), ["bear"]), "tells 'bear', which is not among the facts"),
        (_put(("sessions", 0, "turns", 1, "facts"), ["goat"]), "tells 'goat' a second time"),
        (_put(("sessions", 0, "turns", 0, "facts"), []), "facts.goat is told by no turn"),
        (_put(("facts", "town2", "replaces"), "village"), "facts.town2 replaces 'village', which is not among"),
        (_put(("facts", "town2", "replaces"), "shed"), "replaces 'shed', which is not told before it"),
        (_put(("facts", "town2", "replaces"), "town2"), "replaces 'town2', which is not told before it"),
        (_put(("facts", "shed", "replaces"), "town"), "replaces 'town', which another fact replaces"),
    ],
)
def test_what_is_none_of_the_schema_is_refused_with_its_line(
    change: Callable[[dict[str, Any]], None], said: str, tmp_path: Path
) -> None:
    first, second = PEOPLE.read_text(encoding="utf-8").splitlines()
    person = json.loads(first)
    person["sessions"][0]["turns"][0]["text"] = f"My goat is Pepperpot, {SECRET}."
    change(person)
    file = tmp_path / "people.jsonl"
    file.write_text(f"{second}\n\n{json.dumps(person)}\n", encoding="utf-8")
    with pytest.raises(ConfigurationError, match=r"people\.jsonl, line 3: ") as refused:
        read_talk(file)
    assert said in str(refused.value)
    assert SECRET not in str(refused.value)
    assert refused.value.__cause__ is None  # a shown cause would show the line


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"person": "the badger sleeps"', "line 1: no JSON at column 31"),
        ('{"person": "x", "person": "the badger sleeps"}', "line 1: the key 'person' stands twice"),
        ("[1]", "line 1: the line: Input should be"),
        ("\n\n", "holds nobody"),
        ("", "holds nobody"),
    ],
)
def test_a_line_that_is_no_person_is_refused(content: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "people.jsonl"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigurationError) as refused:
        read_talk(file)
    assert said in str(refused.value)
    assert SECRET not in str(refused.value)


def test_two_people_of_one_id_are_refused(tmp_path: Path) -> None:
    first = PEOPLE.read_text(encoding="utf-8").splitlines()[0]
    file = tmp_path / "people.jsonl"
    file.write_text(f"{first}\n{first}\n", encoding="utf-8")
    with pytest.raises(ConfigurationError, match="line 2: a person of the id 'a1' stands above"):
        read_talk(file)


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "people.jsonl"
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigurationError, match=r"people\.jsonl: no text that can be read"):
        read_talk(file)


def test_one_person_asked_with_anothers_memory_or_one_file_twice_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "one.jsonl"
    file.write_text(PEOPLE.read_text(encoding="utf-8").splitlines()[0], encoding="utf-8")
    with pytest.raises(ConfigurationError, match="leave the arm wrong_user out"):
        RecallOptions(files=(file,)).source()
    alone = RecallOptions(files=(file,), without=(LeftOut.WRONG_USER,))
    assert [teller.name for teller in alone.source().tellers] == ["1.a1"]
    with pytest.raises(ConfigurationError, match="given twice"):
        RecallOptions(files=(PEOPLE, PEOPLE)).source()


def test_people_are_taken_from_each_file_in_turn(tmp_path: Path) -> None:
    other = tmp_path / "other.jsonl"
    other.write_text(PEOPLE.read_text(encoding="utf-8"), encoding="utf-8")
    files = RecallOptions(files=(PEOPLE, other), users=3).source()
    assert [teller.name for teller in files.tellers] == ["1.a1", "2.a1", "1.b1"]
    assert files.name == "two_people.jsonl, other.jsonl"


def test_all_wordings_are_asked_unless_fewer_are_wanted() -> None:
    assert len(source().asked()) == 3 * 7
    assert [one.text for one in source(wordings=1).asked() if one.user == 1] == [
        "On which day do I row?",
        "What is my boat called?",
    ]


def test_facts_stand_in_the_order_of_telling() -> None:
    ada = source().tellers[0]
    assert [fact.answers[0] for fact in ada.facts] == ["Pepperpot", "Tarn", "clocks", "Vell", "17"]
    assert [(fact.turn, fact.session, fact.role) for fact in ada.facts] == [
        (0, 0, "user"),
        (2, 0, "user"),
        (2, 0, "user"),
        (4, 1, "user"),
        (5, 1, "assistant"),
    ]


def test_questions_of_a_replaced_fact_expect_what_replaced_it() -> None:
    asked = source().asked()
    old, new, other = (about(asked, text) for text in ("Where do I live?", "Where is my home now?", "What do I mend?"))
    assert old.fact is new.fact
    assert old.fact.answers == ("Vell", "Old Vell")
    assert (old.former, old.is_own, new.is_own) == (("Tarn",), False, True)
    assert (other.former, other.is_updated) == ((), False)


def test_replacements_are_followed_to_the_last(tmp_path: Path) -> None:
    first, second = (json.loads(line) for line in PEOPLE.read_text(encoding="utf-8").splitlines())
    first["facts"]["shed"]["replaces"] = "town2"
    file = tmp_path / "people.jsonl"
    file.write_text(f"{json.dumps(first)}\n{json.dumps(second)}", encoding="utf-8")
    asked = RecallOptions(files=(file,)).source().asked()
    old = about(asked, "Where do I live?")
    assert old.fact.answers == ("17", "seventeen")
    assert old.former == ("Vell", "Old Vell", "Tarn")


def test_turns_are_learnt_by_session_or_in_equal_steps() -> None:
    ada, ben = source().tellers
    assert [len(step) for step in steps_of(ada, None)] == [4, 3]
    assert [len(step) for step in steps_of(ada, 3)] == [2, 2, 3]
    assert [turn for step in steps_of(ada, 3) for turn in step] == list(ada.turns)
    assert [len(step) for step in steps_of(ben, 8)] == [1, 1]  # no more steps than turns


def test_turns_carry_the_time_of_their_session() -> None:
    ada = source().tellers[0]
    assert ada.turns[4].at.isoformat() == "2026-02-20T18:30:00+01:00"
    assert (ada.turns[5].at - ada.turns[4].at).total_seconds() > 0
    assert len({turn.key for turn in ada.turns}) == len(ada.turns)

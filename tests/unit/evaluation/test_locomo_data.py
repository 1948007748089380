"""Reading LoCoMo's two layouts, quirks included, and the made-up set. Knows the reader and the sample, no model."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from locas_agent.errors import ConfigurationError
from locas_agent.evaluation.locomo.data import (
    CATEGORIES,
    Dialogue,
    dialogues_of,
    parse_date,
    read_dialogues,
    written_date,
)
from locas_agent.evaluation.locomo.people import MadeUpOptions, made_up
from locas_agent.evaluation.locomo.run import LocomoOptions, read_disputed, selected
from tests.locomo_sample import SECRET, flat, numbered

SHARED = os.environ.get("LOCAS_DATA")  # a fixture of every test clears it


@pytest.mark.parametrize(
    ("text", "hour"),
    [
        ("1:56 pm on 8 May, 2023", 13),
        ("12:10 am on 8 May, 2023", 0),
        ("12:10 pm on 8 May, 2023", 12),
        ("9:00 am on 8 May, 2023", 9),
    ],
)
def test_dates_are_read_and_written(text: str, hour: int) -> None:
    at = parse_date(text)
    assert (at.year, at.month, at.day, at.hour, at.tzinfo) == (2023, 5, 8, hour, UTC)
    assert written_date(at) == text


@pytest.mark.parametrize(
    "text", ["8 May 2023", "1:56 pm on 8 Mai, 2023", "1:56 pm on 31 February, 2023", "1:99 pm on 8 May, 2023", ""]
)
def test_other_dates_are_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="not a date"):
        parse_date(text)


@pytest.mark.parametrize("data", [numbered(), flat()], ids=["numbered", "flat"])
def test_both_layouts_give_the_same_conversations(data: Any) -> None:
    first, second = dialogues_of(data)
    assert [turn.text for session in first.sessions for turn in session.turns][2:4] == [
        "I sold two kites.",
        "Look at this. [shares a picture: a photo of a red kite]",
    ]
    assert [session.at for session in first.sessions] == [
        datetime(2021, 5, 8, 13, 56, tzinfo=UTC),
        datetime(2021, 6, 3, 0, 10, tzinfo=UTC),
        datetime(2021, 7, 25, 9, tzinfo=UTC),
    ]
    assert [(turn.role, turn.speaker) for turn in second.sessions[0].turns] == [("user", "Tomke"), ("user", "Jorin")]
    assert [(asked.category, asked.gold, asked.trap) for asked in first.questions] == [
        (1, "paint, sail", None),
        (2, "2021", None),
        (3, "Likely yes; she has a boat", None),
        (4, "Albatros", None),
        (5, None, "Albatros"),
    ]
    assert [(asked.gold, asked.trap) for asked in second.questions[1:]] == [(None, "a violin"), (None, "Ada")]


def test_sessions_are_in_the_order_of_their_numbers_and_a_lonely_date_is_none() -> None:
    first, _ = dialogues_of(numbered())
    assert [session.number for session in first.sessions] == [1, 2, 10]
    assert [turn.session for turn in first.sessions[2].turns] == ["session 10", "session 10"]


def test_malformed_evidence_is_read_as_it_was_meant_and_unknown_is_dropped() -> None:
    asked = dialogues_of(numbered())[0].questions
    assert asked[1].evidence == ("D2:1", "D2:3")
    assert asked[2].evidence == ("D1:1",)


@pytest.mark.parametrize("data", [numbered(), flat()], ids=["numbered", "flat"])
def test_no_search_query_is_read(data: Any) -> None:
    assert SECRET in json.dumps(data)  # else the next line would prove nothing
    assert SECRET not in repr(dialogues_of(data))


def test_agent_among_the_speakers_gets_its_role() -> None:
    data = numbered()[1]
    for number in (1, 2):
        for turn in data["conversation"][f"session_{number}"]:
            turn["speaker"] = "Assistant" if turn["speaker"] == "Jorin" else turn["speaker"]
    (dialogue,) = dialogues_of(data)
    assert [(turn.role, turn.speaker) for turn in dialogue.sessions[0].turns] == [("user", None), ("assistant", None)]


def test_folder_of_single_conversations_is_read(tmp_path: Path) -> None:
    for entry in numbered():
        (tmp_path / f"{entry['sample_id']}.json").write_text(json.dumps(entry), encoding="utf-8")
    dialogues, digest = read_dialogues(tmp_path)
    assert dialogues == dialogues_of(numbered())
    assert len(digest) == 64


def _broken(change: Callable[[dict[str, Any]], Any]) -> str:
    entry = json.loads(json.dumps(numbered()[1]))
    change(entry)
    return json.dumps([entry])


def _without(name: str) -> Callable[[dict[str, Any]], Any]:
    """Return what takes a field away, wherever it first stands."""
    return lambda entry: next(
        part
        for part in (entry, entry["conversation"], entry["conversation"]["session_1"][0], entry["qa"][0])
        if name in part
    ).pop(name)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "cannot read 'data.json' as JSON"),
        ("no json", "cannot read 'data.json' as JSON"),
        ("[]", "no conversation in 'data.json'"),
        ('{"a": 1}', "no conversation in 'data.json'"),
        ('[{"qa": []}]', "entry 0 in 'data.json'"),
        ("[1]", "entry 0 in 'data.json'"),
        (_broken(_without("qa")), "'lake-2' in 'data.json' .* 'qa' is missing"),
        (_broken(_without("session_1_date_time")), "'session_1_date_time' is missing"),
        (_broken(_without("speaker")), "'speaker' is missing"),
        (_broken(_without("dia_id")), "'dia_id' is missing"),
        (_broken(_without("text")), "'text' is missing"),
        (_broken(_without("question")), "'question' is missing"),
        (_broken(_without("category")), "'category' is missing"),
        (_broken(_without("answer")), "question 0 of category 4 has no answer"),
        (_broken(lambda entry: entry["qa"][0].update(category=6)), "category 6"),
        (_broken(lambda entry: entry["qa"][0].update(category="four")), "'lake-2' .* 'four'"),
        (_broken(lambda entry: entry["conversation"].update(session_1_date_time="today")), "'lake-2' .* not a date"),
        (_broken(lambda entry: entry["conversation"].update(session_1=None)), "session_1 is no list of turns"),
        (_broken(lambda entry: entry["conversation"].clear()), "no session with a turn"),
        (_broken(lambda entry: entry["conversation"]["session_1"][1].update(dia_id="D1:1")), "numbered D1:1"),
        (json.dumps([*numbered(), numbered()[0]]), "called lake-1"),
    ],
)
def test_other_data_are_refused_by_name(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "data.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigurationError, match=message):
        read_dialogues(path)


def test_what_the_refused_data_were_made_from_is_read(tmp_path: Path) -> None:
    path = tmp_path / "data.json"
    path.write_text(_broken(lambda entry: entry), encoding="utf-8")
    assert read_dialogues(path)[0] == dialogues_of(numbered())[1:]


def _sizes(options: LocomoOptions) -> list[tuple[int, list[int]]]:
    return [
        (len(one.sessions), [asked.number for asked in one.questions])
        for one in selected(dialogues_of(numbered()), options)
    ]


def test_fewer_sessions_keep_only_questions_they_answer() -> None:
    # question 0 needs session 10; question 2 of the second conversation names no evidence, so nothing says that it can
    # be answered
    assert _sizes(LocomoOptions()) == [(3, [0, 1, 2, 3, 4]), (2, [0, 1, 2])]
    assert _sizes(LocomoOptions(sessions=2)) == [(2, [1, 2, 3, 4]), (2, [0, 1, 2])]
    assert _sizes(LocomoOptions(sessions=1)) == [(1, [2, 3, 4]), (1, [0])]


def test_fewer_questions_are_taken_from_the_categories_in_turn() -> None:
    assert _sizes(LocomoOptions(questions=2)) == [(3, [0, 1]), (2, [0, 1])]
    assert _sizes(LocomoOptions(conversations=("lake-2",))) == [(2, [0, 1, 2])]
    assert _sizes(LocomoOptions(first=1, questions=1)) == [(3, [0])]


@pytest.mark.parametrize(
    ("options", "message"),
    [(LocomoOptions(conversations=("lake-3",)), "lake-3"), (LocomoOptions(arms=("memory", "oracle")), "oracle")],
)
def test_unknown_names_are_refused_with_those_there_are(options: LocomoOptions, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        selected(dialogues_of(numbered()), options)


def test_disputed_answers_are_read_without_disputed_citations(tmp_path: Path) -> None:
    path = tmp_path / "errors.json"
    entry = {"question": "What is Ilse's boat called?", "golden_answer": "Albatros"}
    path.write_text(
        json.dumps(
            [
                entry | {"error_type": "HALLUCINATION"},
                {"question": "?", "golden_answer": 3, "error_type": "WRONG_CITATION"},
            ]
        )
    )
    assert read_disputed(path) == {("What is Ilse's boat called?", "Albatros")}
    for text in ("", "{}", '[{"question": "?"}]', "[1]"):
        path.write_text(text)
        with pytest.raises(ConfigurationError, match="no list of disputed"):
            read_disputed(path)


def _made(people: int) -> list[Dialogue]:
    return dialogues_of(made_up(MadeUpOptions(people=people, seed=3)))


def test_made_up_set_follows_from_the_seed_and_has_four_categories() -> None:
    assert _made(3) == _made(3)
    assert dialogues_of(made_up(MadeUpOptions(people=3, seed=4))) != _made(3)
    counts = Counter(asked.category for dialogue in _made(8) for asked in dialogue.questions)
    assert set(counts) == {1, 2, 4, 5}
    assert counts[4] > counts[1] >= 8


def test_made_up_answers_stand_in_their_evidence_and_traps_were_told() -> None:
    for dialogue in _made(4):
        said = {turn.key: turn.text for session in dialogue.sessions for turn in session.turns}
        for asked in dialogue.questions:
            assert asked.evidence
            assert str(asked.gold or asked.trap).lower() in said[asked.evidence[-1]].lower()
            if asked.category == 1:  # what was told first does not hold any more
                assert len(asked.evidence) == 2
                assert str(asked.gold) not in said[asked.evidence[0]]


def test_real_file_is_read_whole() -> None:
    path = Path(SHARED or "", "locomo", "locomo7.json")
    if SHARED is None or not path.exists():
        pytest.skip("LOCAS_DATA names no folder with locomo/locomo7.json")
    dialogues, _ = read_dialogues(path)
    assert sum(len(dialogue.sessions) for dialogue in dialogues) == 200
    assert sum(len(session.turns) for dialogue in dialogues for session in dialogue.sessions) == 4329
    counts = Counter(asked.category for dialogue in dialogues for asked in dialogue.questions)
    assert counts == dict(zip(CATEGORIES, (204, 238, 76, 662, 347), strict=True))

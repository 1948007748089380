"""Forms of reading and of writing: what stands in the prompts, and what is taken of an opened answer."""

from __future__ import annotations

import pytest

from locas_agent.backbone import Backbone
from locas_agent.conversation.messages import Message, question
from locas_agent.study.forms.reading import READING_FORMS, ReadingForm
from locas_agent.study.forms.writing import (
    LONGEST_QUESTION,
    SEED,
    WRITING_FORMS,
    Wanted,
    WritingForm,
    cloze,
    is_of_kind,
    openings_for,
    question_of,
)

HEADER = "Conversation on 3 May 2024."
TURNS: list[Message] = [
    {"role": "system", "content": HEADER},
    {"role": "user", "content": "My dog Kolin is ill."},
    {"role": "assistant", "content": "Poor Kolin. Which vet?"},
    {"role": "user", "content": "Dr. Ørsted, as always."},
]
ASKED = "Who is my dog's vet?"

every_reading = pytest.mark.parametrize("form", READING_FORMS.values(), ids=READING_FORMS)
every_writing = pytest.mark.parametrize("form", WRITING_FORMS.values(), ids=WRITING_FORMS)


def said(messages: list[Message]) -> str:
    return "\n".join(message["content"] for message in messages)


@every_reading
def test_reading_form_holds_every_turn_in_order_and_then_the_question(form: ReadingForm) -> None:
    text = said(form.prompt(TURNS, ASKED))
    places = [text.rindex(part) for part in (*(turn["content"] for turn in TURNS), ASKED)]
    assert places == sorted(places)
    assert form.prompt(TURNS, ASKED)[-1]["role"] == "user"


@every_reading
def test_reading_form_says_whose_the_assistants_turns_are(form: ReadingForm) -> None:
    prompt = form.prompt(TURNS, ASKED)
    of_assistant = [message for message in prompt if message["role"] == "assistant"]
    assert "You: Poor Kolin." in said(prompt) or any("Poor Kolin." in each["content"] for each in of_assistant)
    # The user is "I" where anybody is named: a question about "my dog" is then the speaker's own.
    assert "User:" not in said(prompt)
    assert "I: Poor Kolin." not in said(prompt)


@every_reading
def test_question_without_anything_to_read_stands_alone(form: ReadingForm) -> None:
    assert form.prompt([], ASKED) == question(ASKED)


@every_reading
def test_reading_form_leaves_the_turns_as_they_were(form: ReadingForm) -> None:
    before = [dict(turn) for turn in TURNS]
    form.prompt(TURNS, ASKED)
    assert before == TURNS


@every_reading
def test_chat_template_takes_every_reading_form(form: ReadingForm, backbone: Backbone) -> None:
    assert ASKED in backbone.decode(backbone.encode_chat(form.prompt(TURNS, ASKED)))


@every_writing
def test_writing_form_holds_the_turn_last_and_asks_the_user(form: WritingForm) -> None:
    prompt = form.build("My dog Kolin is {ill}.")
    assert "My dog Kolin is {ill}." in prompt[-1]["content"]
    assert prompt[-1]["role"] == "user"


@pytest.mark.parametrize("table", [READING_FORMS, WRITING_FORMS])
def test_forms_are_found_by_their_own_names(table: dict[str, ReadingForm | WritingForm]) -> None:
    assert {name: form.name for name, form in table.items()} == {name: name for name in table}
    assert SEED not in table


def test_openings_are_general_ones_and_some_for_each_cue() -> None:
    general = openings_for([])
    assert len(general) >= 8
    assert openings_for(["Mitzi", "piano"])[: len(general)] == general
    more = [str(each) for each in openings_for(["Mitzi", "piano"])[len(general) :]]
    assert any("Who is Mitzi" in each for each in more)
    assert any("piano" in each for each in more)
    assert not any("my Mitzi" in each for each in more)
    assert len(more) == len(set(more))


def test_nobody_is_asked_by_a_number() -> None:
    assert openings_for(["38 years", "2024"]) == openings_for([])


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ("What is my cat called? It is Mitzi.", "What is my cat called?"),
        ("  What   is my cat\tcalled?\nAnd then?", "What is my cat called?"),
        ('"Where do I live?" is a good one', "Where do I live?"),
        ("“Where do I live?”", "Where do I live?"),
        ("Wie heißt die Katze? Mitzi.", "Wie heißt die Katze?"),
    ],
)
def test_question_is_cut_at_its_mark(written: str, found: str) -> None:
    assert question_of(written) == found


@pytest.mark.parametrize(
    "written",
    [
        "",
        "What is my cat",  # never came to its mark
        "What is my cat\ncalled?",  # two lines
        "Who then?",  # asks nothing
        "What is " + "very " * LONGEST_QUESTION + "long?",  # retells the turn
    ],
)
def test_what_is_no_question_is_refused(written: str) -> None:
    assert question_of(written) is None


def test_a_gap_leaves_out_the_value_and_keeps_the_words_of_its_clause() -> None:
    told = "Good morning. Anna sold her bike, and Ann paid 240 euros for it. Goodbye."
    assert cloze(told, "240 euros") == 'What did I say: "Anna sold her bike, and Ann paid ... for it"?'
    assert cloze(told, "Ann") == 'What did I say: "Anna sold her bike, and ... paid 240 euros for it"?'
    assert cloze("Bruno.", "Bruno") is None  # nothing is left to ask by
    assert cloze(told, "Emil") is None


@pytest.mark.parametrize(
    ("span", "wants", "is_one"),
    [
        ("21 July", "time", True),
        ("next Tuesday", "time", True),
        ("a barber", "time", False),
        ("240 euros", "number", True),
        ("four floors", "number", True),
        ("the harbour", "number", False),
        ("Emil", "name", True),
        ("my family", "name", False),
        ("my family", "anything", True),
    ],
)
def test_an_opening_wants_a_kind_of_answer(span: str, wants: Wanted, is_one: bool) -> None:
    assert is_of_kind(span, wants) is is_one


def test_a_question_is_put_into_the_persons_mouth_who_asks_it() -> None:
    assert question_of("What is the name of your sister?") == "What is the name of my sister?"
    assert question_of("Where do you work?") == "Where do I work?"

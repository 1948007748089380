"""Who speaks in a chunk, and questions about one of several people."""

from __future__ import annotations

import pytest

from locas_agent.conversation.messages import Message
from locas_agent.study.chunking import Chunk, TurnExcerpt
from locas_agent.study.scribe.lessons import lesson_questions
from locas_agent.study.speakers import (
    asked_about,
    is_of_another,
    may_be_about_who_tells,
    names_among_others,
    put_among_others,
    speakers_of,
)

HEADER: Message = {"role": "system", "content": "Conversation on 3 May 2024."}


def among(*said: tuple[str, str]) -> Chunk:
    """A chunk of turns, each with its speaker."""
    messages = tuple[Message, ...]({"role": "user", "content": text} for _, text in said)
    excerpts = tuple(TurnExcerpt(at, speaker, text, True, at) for at, (speaker, text) in enumerate(said, start=1))
    return Chunk((HEADER, *messages), excerpts, 1, len(said))


ADA_AND_BEN = among(("Ada", "Ada: My dog is ill."), ("Ben", "Ben: I am sorry."), ("Ada", "Ada: Thanks."))


def test_a_name_is_no_part_of_what_somebody_says() -> None:
    assert [each.said for each in ADA_AND_BEN.excerpts] == ["My dog is ill.", "I am sorry.", "Thanks."]
    assert among(("I", "Ada: she said it")).excerpts[0].said == "Ada: she said it"


def test_who_talks_beside_an_assistant_is_among_others_and_alone_with_one_is_not() -> None:
    assert speakers_of(ADA_AND_BEN) == names_among_others(ADA_AND_BEN) == ["Ada", "Ben"]
    alone = among(("Ada", "Ada: My dog is ill."), ("You", "I am sorry."))
    assert (speakers_of(alone), names_among_others(alone)) == (["Ada"], [])
    beside = among(("Ada", "Ada: My dog is ill."), ("I", "Mine is well."))
    assert (speakers_of(beside), names_among_others(beside)) == (["Ada", "I"], ["Ada"])


@pytest.mark.parametrize(
    ("asked", "about"),
    [
        ("What's my dog called?", "What's Ada's dog called?"),
        ("Where do I live?", "Where does Ada live?"),
        ("Am I married?", "Is Ada married?"),
        ("Don't I like figs?", "Doesn't Ada like figs?"),
        ("When did I buy my cello?", "When did Ada buy their cello?"),
        ("What have I been writing?", "What has Ada been writing?"),
        ("What do I do when I'm tired?", "What does Ada do when they are tired?"),
        ("Which town did I leave when I was six?", "Which town did Ada leave when they were six?"),
        ("Which is the cat I always carry?", "Which is the cat Ada always carries?"),
        ("Which train is it that I miss each Monday?", "Which train is it that Ada misses each Monday?"),
        ("Who taught us?", "Who taught Ada and the others?"),
        ("Where did we camp in our first year?", "Where did Ada and the others camp in their first year?"),
        ("Which hut is it that we're building?", "Which hut is it that Ada and the others are building?"),
        ("Which cake is mine?", "Which cake is Ada's?"),
        ("Who's kept the stall I’ve given up?", "Who's kept the stall Ada has given up?"),
        ("Who plays the organ?", "Who plays the organ?"),
    ],
)
def test_a_question_in_ones_own_person_is_put_about_one(asked: str, about: str) -> None:
    assert asked_about(asked, "Ada") == about


def test_an_owner_whose_name_ends_in_s_takes_an_apostrophe_alone() -> None:
    assert asked_about("What's my dog called?", "James") == "What's James' dog called?"


def test_who_is_spoken_to_is_named_where_there_is_one_other() -> None:
    assert put_among_others("What do I like about your painting?", ADA_AND_BEN, "Ada") == (
        "What does Ada like about Ben's painting?"
    )
    assert put_among_others("Where were you when I called you?", ADA_AND_BEN, "Ben") == (
        "Where was Ada when Ben called them?"
    )
    three = among(*((name, f"{name}: Hello.") for name in ("Ada", "Ben", "Cleo")))
    assert put_among_others("What do I like about your painting?", three, "Ada") == (
        "What does Ada like about your painting?"
    )


def test_no_lesson_is_left_in_the_first_person() -> None:
    first = {"i", "i'm", "i've", "my", "me", "mine", "we", "our", "us", "am"}
    for asked in lesson_questions():
        left = first & set(asked_about(asked, "Ada").replace("?", "").replace(",", "").casefold().split())
        assert not left or "'" in asked, asked  # within quotes somebody else speaks


def test_a_text_that_never_says_i_is_about_who_tells_it_only_while_it_is_short() -> None:
    read_out = "Bats of this kind sleep in hollow trees, and fly out in the hour before midnight to look for fruit."
    assert may_be_about_who_tells(among(("I", read_out)))
    assert not may_be_about_who_tells(among(("I", read_out), ("I", read_out), ("I", read_out)))
    assert may_be_about_who_tells(among(("I", read_out), ("I", read_out), ("I", "I’d like one."), ("I", read_out)))
    assert not may_be_about_who_tells(among(("I", read_out), ("I", read_out), ("I", read_out), ("You", "Iris.")))


def test_a_question_that_names_another_is_not_for_who_speaks() -> None:
    ada, ben, _ = ADA_AND_BEN.excerpts
    assert is_of_another("What is Ada's dog called?", ADA_AND_BEN, ben)
    assert not is_of_another("What is Ada's dog called?", ADA_AND_BEN, ada)
    assert not is_of_another("Who sells Ben's bread to Ada?", ADA_AND_BEN, ben)
    assert not is_of_another("Who sells bread?", ADA_AND_BEN, ben)

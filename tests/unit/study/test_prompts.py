"""Reading what the backbone wrote after a prompt of ours."""

from __future__ import annotations

import pytest

from locas_agent.study import prompts


def test_written_question_is_read() -> None:
    assert prompts.parse_question_answer(
        "Question: What is my dog called?\nAnswer: It is Rex."
    ) == prompts.QuestionAnswer("What is my dog called?", "It is Rex.")


@pytest.mark.parametrize(
    "text", ["Nothing.", "", "Question: What?", "Answer: yes\nQuestion: no?", "Question: \nAnswer: x"]
)
def test_anything_else_is_no_question(text: str) -> None:
    assert prompts.parse_question_answer(text) is None


@pytest.mark.parametrize(
    "text", ["I do not know.", "I don't know", "This was not mentioned.", "There is no information on that."]
)
def test_abstentions_are_recognised(text: str) -> None:
    assert prompts.abstains(text)
    assert not prompts.abstains("It is Rex.")

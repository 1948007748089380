"""Which turn a question belongs to."""

from __future__ import annotations

import pytest

from locas_agent.study.chunking import TurnExcerpt
from locas_agent.study.question_generation import told_in
from tests.unit.study.test_self_study import item

EXCERPTS = (
    TurnExcerpt(1, "I", "I have started to learn Welsh."),
    TurnExcerpt(2, "You", "Noted."),
    TurnExcerpt(3, "I", "The team I support is The Stuke Shadows now."),
    TurnExcerpt(4, "You", "Noted: The Stuke Shadows."),
)


@pytest.mark.parametrize(
    ("asked", "answer", "turn"),
    [
        (2, "It is The Stuke Shadows.", 2),  # the turn asked about tells it
        (3, "It is The Stuke Shadows.", 3),  # so does its echo, if that was asked about
        (0, "It is The Stuke Shadows.", 2),  # a neighbour tells it: the first that holds most of it
        (0, "It is a Celtic one.", 0),  # nobody's words: left where it was asked
        (2, "It is the team.", 2),  # words of the question alone prove nothing
    ],
)
def test_an_item_belongs_to_the_turn_that_tells_its_answer(asked: int, answer: str, turn: int) -> None:
    assert told_in(EXCERPTS, asked, item("Which team do I support?", answer)) == turn

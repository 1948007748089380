"""Self-study: which turn an item belongs to, and that nobody's questions depend on who studies beside."""

from __future__ import annotations

import pytest
import torch

from locas_agent.engine import Engine, TopK
from locas_agent.errors import ConfigurationError
from locas_agent.pieces import Quote
from locas_agent.study import QUESTION, Item, told_in

QUOTES = (
    Quote(1, "I", "I have started to learn Welsh."),
    Quote(2, "You", "Noted."),
    Quote(3, "I", "The team I support is The Stuke Shadows now."),
    Quote(4, "You", "Noted: The Stuke Shadows."),
)


def item(question: str, answer: str) -> Item:
    return Item("0" * 32, QUESTION, 1, 4, 1, question, answer, (1,), TopK(torch.zeros(1, 1, dtype=torch.int32), torch.zeros(1, 1)))


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
    assert told_in(QUOTES, asked, item("Which team do I support?", answer)) == turn


def test_one_seed_per_prompt_makes_an_answer_independent_of_its_neighbours(engine: Engine) -> None:
    prompts = [[1, 2, 3], [4, 5], [6, 7, 8, 9]]
    together = engine.generate(prompts, temperature=1.0, seed=[11, 12, 13], max_new_tokens=6)
    for prompt, seed, found in zip(prompts, (11, 12, 13), together, strict=True):
        assert engine.generate([prompt], temperature=1.0, seed=[seed], max_new_tokens=6)[0].ids == found.ids
    other = engine.generate(prompts, temperature=1.0, seed=[21, 22, 23], max_new_tokens=6)
    assert [each.ids for each in other] != [each.ids for each in together]
    with pytest.raises(ConfigurationError, match="one seed"):
        engine.generate(prompts, temperature=1.0, seed=[1, 2])

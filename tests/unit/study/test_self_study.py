"""Self-study: what is kept or retired, which questions stay open, which turn an item belongs to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch

from locas_agent.config import StudySettings
from locas_agent.conversation.messages import Message
from locas_agent.errors import ConfigurationError
from locas_agent.inference import Engine
from locas_agent.inference.generation import TopK
from locas_agent.memory import LocasMemory
from locas_agent.study.chunking import Chunk, TurnExcerpt
from locas_agent.study.items import NEGATIVE, QUESTION, Item, StudyRequest, StudySet
from locas_agent.study.self_study import SelfStudy
from locas_agent.study.teacher import Answer, Candidate, Request, ScoredAnswer, Teacher
from tests.conftest import MakeMemory

EXCERPTS = (
    TurnExcerpt(1, "I", "I have started to learn Welsh."),
    TurnExcerpt(2, "You", "Noted."),
    TurnExcerpt(3, "I", "The team I support is The Stuke Shadows now."),
    TurnExcerpt(4, "You", "Noted: The Stuke Shadows."),
)
NOT_KNOWN = "I do not know."
SURE = TopK(torch.zeros(1, 1, dtype=torch.int32), torch.zeros(1, 1))
SETTINGS = StudySettings(first_samples=1, samples_per_turn=1, max_rounds=1, negatives_per_piece=1)


def item(question: str, answer: str, kind: str = QUESTION, to_seq: int = 4) -> Item:
    return Item(f"{hash((question, answer)) % 2**64:032x}", kind, 1, to_seq, 1, question, answer, (1,), SURE)


def chunk(text: str, seq: int) -> Chunk:
    return Chunk(({"role": "user", "content": text},), (TurnExcerpt(seq, "I", text),), seq, seq)


class Scripted(Teacher):
    """Writes what it is told to; answers by what stands in the prompt and by whether a memory is attached."""

    def __init__(self, written: Callable[[Request], str], answers: Callable[[str, bool], str]) -> None:
        self._written, self._answers = written, answers

    def sample(self, requests: Sequence[Request], *, temperature: float) -> list[str]:
        return [self._written(request) for request in requests]

    def answer(
        self, prompts: Sequence[list[Message]], *, memories: Sequence[LocasMemory | None] | None = None
    ) -> list[Answer | None]:
        texts = ["\n".join(message["content"] for message in prompt) for prompt in prompts]
        return [Answer((1,), self._answers(text, memories is not None), 1.0) for text in texts]

    def answer_with_distribution(self, candidates: Sequence[Candidate]) -> list[ScoredAnswer | None]:
        answers = self.answer([candidate.prompt for candidate in candidates])
        return [ScoredAnswer(one.ids, one.text, one.confidence, SURE) if one is not None else None for one in answers]

    def to_items(self, answered: Sequence[tuple[Candidate, ScoredAnswer, str]]) -> list[Item | None]:
        return [
            replace(
                item(c.question, answer.text, kind),
                turn_seq=c.turn_seq,
                from_seq=c.chunk.from_seq,
                to_seq=c.chunk.to_seq,
            )
            for c, answer, kind in answered
        ]


def study(teacher: Teacher, request: StudyRequest) -> StudySet:
    return SelfStudy(teacher, SETTINGS, seed=0).write([request])[0]


def test_a_value_told_anew_retires_the_old_one_although_they_share_a_word() -> None:
    def answers(prompt: str, with_memory: bool) -> str:
        return "It is rubber postcards." if "postcards" in prompt else NOT_KNOWN

    def written(request: Request) -> str:
        told = "said:" in request.prompt
        return (
            "Question: What do I collect?\nAnswer: It is rubber postcards."
            if told
            else "Question: Who am I?\nAnswer: I do not know."
        )

    old = item("What do I collect?", "It is rubber maps.")
    found = study(Scripted(written, answers), StudyRequest((chunk("I collect rubber postcards now.", 9),), (old,)))
    assert found.retired == {old.item_id}
    assert [(each.question, each.answer) for each in found.items] == [("What do I collect?", "It is rubber postcards.")]


class Doubtful(Scripted):
    """Is never sure of an answer: a rare name is written with little probability for each of its tokens."""

    def answer(
        self, prompts: Sequence[list[Message]], *, memories: Sequence[LocasMemory | None] | None = None
    ) -> list[Answer | None]:
        return [
            None if one is None else replace(one, confidence=0.1) for one in super().answer(prompts, memories=memories)
        ]


def moved(prompt: str, with_memory: bool) -> str:
    """Says what the new chunk says of the town, to whatever names a town; of the dog's name a guess from the chunk."""
    if "Pelburg" not in prompt:
        return NOT_KNOWN
    return "It is Pelburg." if "town" in prompt.rsplit("\n", 1)[-1] else "It is Varn."


def about_the_town(request: Request) -> str:
    told = "said:" in request.prompt
    return (
        "Question: Which town do I live in?\nAnswer: It is Pelburg."
        if told
        else f"Question: Who am I?\nAnswer: {NOT_KNOWN}"
    )


def test_what_stands_in_the_turn_is_kept_however_doubtful_the_teacher_is() -> None:
    found = study(Doubtful(about_the_town, moved), StudyRequest((chunk("I live in Pelburg now.", 9),)))
    assert [(each.question, each.answer) for each in found.items] == [("Which town do I live in?", "It is Pelburg.")]
    elsewhere = Doubtful(about_the_town, lambda prompt, _: "It is Pelburg." if "home" in prompt else NOT_KNOWN)
    assert study(elsewhere, StudyRequest((chunk("I am at home.", 9),))).items == ()  # the turn does not say it


def test_one_wording_told_anew_retires_all_wordings_of_the_old_value_though_the_teacher_is_in_doubt() -> None:
    same = item("Which town do I live in?", "It is Varnholm.")
    other = item("What is the town of my home?", "It is Varnholm.")
    vague = item("Where do I live?", "It is Varnholm.")  # the teacher gives no answer that a new item has
    dog = item("What is my dog called?", "It is Rex.")  # nor to this, which no new item asks
    earlier = (same, other, vague, dog)
    found = study(Doubtful(about_the_town, moved), StudyRequest((chunk("I live in Pelburg now.", 9),), earlier))
    assert found.retired == {same.item_id, other.item_id, vague.item_id}
    assert {(each.question, each.answer) for each in found.items} == {
        ("Which town do I live in?", "It is Pelburg."),
        ("What is the town of my home?", "It is Pelburg."),
    }


def test_two_facts_of_one_turn_are_retired_one_by_one() -> None:
    town, friend = item("Which town do I live in?", "It is Varnholm."), item("What is my friend called?", "It is Ada.")
    assert town.turn_seq == friend.turn_seq
    found = study(Doubtful(about_the_town, moved), StudyRequest((chunk("I live in Pelburg now.", 9),), (town, friend)))
    assert found.retired == {town.item_id}


def test_question_that_was_open_and_is_answered_now_is_open_no_more() -> None:
    open_still, answered = (
        item("Whose is it?", NOT_KNOWN, NEGATIVE),
        item("Which town do I live in?", NOT_KNOWN, NEGATIVE),
    )
    found = study(
        Doubtful(about_the_town, moved), StudyRequest((chunk("I live in Pelburg now.", 9),), (open_still, answered))
    )
    assert found.retired == {answered.item_id}


@pytest.mark.parametrize(
    ("invented", "kept"),
    [
        (False, []),  # an earlier session told it: the item's own exchange answers the question
        (
            True,
            ["What is my boat called?"],
        ),  # the memory takes the dog's name for the boat's: that negative is needed most
    ],
)
def test_what_the_memory_invents_is_a_negative_and_what_it_knows_is_none(
    invented: bool, kept: list[str], make_memory: MakeMemory
) -> None:
    asked = "What is my boat called?" if invented else "What is my dog called?"

    def answers(prompt: str, with_memory: bool) -> str:
        known_here = "my dog's name" in prompt and "dog called" in prompt
        return "It is Rex." if with_memory or known_here else NOT_KNOWN

    def written(request: Request) -> str:
        return "Nothing." if "said:" in request.prompt else f"Question: {asked}\nAnswer: {NOT_KNOWN}"

    dog = item("What is my dog's name?", "It is Rex.")
    found = study(Scripted(written, answers), StudyRequest((chunk("It rains.", 9),), (dog,), make_memory()))
    assert [each.question for each in found.items if each.kind == NEGATIVE] == kept


@pytest.mark.parametrize("bad", ["What is\x00 it?", "What is \ud83d it?", "x" * ((1 << 20) + 1)])
def test_the_store_says_which_items_it_takes(engine: Engine, bad: str) -> None:
    teacher, here = Teacher(engine, SETTINGS, seed=0), chunk("I have a dog.", 1)
    answer, odd = ScoredAnswer((1,), "A dog.", 1.0, SURE), ScoredAnswer((1,), bad, 1.0, SURE)
    candidates = [Candidate(0, here, 1, "What have I?", "A dog."), Candidate(0, here, 1, bad, "A dog.")]
    made = teacher.to_items(
        [(candidates[0], answer, QUESTION), (candidates[1], answer, NEGATIVE), (candidates[0], odd, QUESTION)]
    )
    assert [each is not None for each in made] == [True, False, False]


class Picky(Scripted):
    """Makes no item of what has a `#` in it, as a teacher does of what no store takes."""

    def to_items(self, answered: Sequence[tuple[Candidate, ScoredAnswer, str]]) -> list[Item | None]:
        return [
            None if "#" in each.question + each.answer else each
            for each in super().to_items(answered)
            if each is not None
        ]


def test_what_no_store_takes_is_left_out_wherever_it_was_written_and_counted() -> None:
    def written(request: Request) -> str:
        if "said:" not in request.prompt:
            return "Question: Who is #?\nAnswer: I do not know."
        return (
            "Question: Where do I live?\nAnswer: In Ulm."
            if request.place.endswith("0")
            else "Question: Where is # home?\nAnswer: In Ulm."
        )

    def answers(prompt: str, with_memory: bool) -> str:
        return "In Ulm." if "I moved to Ulm" in prompt and "#?" not in prompt else NOT_KNOWN

    settings = StudySettings(first_samples=2, samples_per_turn=1, max_rounds=1, negatives_per_piece=1)
    old = item("Where was # home?", "In Bern.")
    request = StudyRequest((chunk("I moved to Ulm now.", 9),), (old,))
    found = SelfStudy(Picky(written, answers), settings, seed=0).write([request])[0]
    assert [(each.question, each.answer) for each in found.items] == [("Where do I live?", "In Ulm.")]
    assert found.retired == {old.item_id}  # what was told anew no longer holds, even where its new item cannot be kept
    assert found.coverage.dropped == 3  # one of the generated, one of what was asked again, one negative
    assert (found.coverage.carrying, found.coverage.covered) == (1, 1)


def test_questions_follow_from_what_a_piece_says_not_from_where_it_stands(engine: Engine) -> None:
    teacher = Teacher(engine, StudySettings(max_question_tokens=8), seed=3)
    first, moved, other = chunk("I have a dog.", 1), chunk("I have a dog.", 40), chunk("I have a cat.", 1)
    texts = [teacher.sample([Request(each, "Ask.", "0") for each in (first, first)], temperature=1.0) for _ in range(2)]
    assert (
        texts[0] == texts[1] == teacher.sample([Request(each, "Ask.", "0") for each in (moved, moved)], temperature=1.0)
    )
    places = teacher.sample([Request(first, "Ask.", place) for place in "01234567"], temperature=1.0)
    assert len(set(places)) > 1
    assert places != teacher.sample([Request(other, "Ask.", place) for place in "01234567"], temperature=1.0)


def test_one_seed_per_prompt_makes_an_answer_independent_of_its_neighbours(engine: Engine) -> None:
    prompts = [[1, 2, 3], [4, 5], [6, 7, 8, 9]]
    together = engine.generate(prompts, temperature=1.0, seed=[11, 12, 13], max_new_tokens=6)
    for prompt, seed, found in zip(prompts, (11, 12, 13), together, strict=True):
        assert engine.generate([prompt], temperature=1.0, seed=[seed], max_new_tokens=6)[0].ids == found.ids
    other = engine.generate(prompts, temperature=1.0, seed=[21, 22, 23], max_new_tokens=6)
    assert [each.ids for each in other] != [each.ids for each in together]
    with pytest.raises(ConfigurationError, match="one seed"):
        engine.generate(prompts, temperature=1.0, seed=[1, 2])

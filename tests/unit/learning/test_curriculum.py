"""What a step of training looks at.

Nothing held out, nothing of other lessons, questions behind windows as a conversation runs.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from locas_agent.config import LocasConfig
from locas_agent.conversation.messages import question
from locas_agent.errors import ConfigurationError
from locas_agent.inference import Engine
from locas_agent.inference.generation import TopK
from locas_agent.study.chunking import Piece
from locas_agent.study.items import NEGATIVE, PROBE, QUESTION, Item
from locas_agent.training.neutral import NeutralText, bare_examples
from locas_agent.training.sampler import ASKED_BEHIND, REHEARSED, Curriculum, Lesson, rate_factor

TURNS = tuple(
    {"role": role, "content": text}
    for role, text in (("user", "My dog is Rex."), ("assistant", "Noted."), ("user", "I live in Oslo."))
)
PIECE = Piece(({"role": "system", "content": "1 May"}, *TURNS), (), 1, 3)


def item(engine: Engine, place: int, asked: str, answer: str, kind: str = QUESTION) -> Item:
    ids = (*engine.backbone.encode(answer), engine.backbone.end_id)
    teacher = TopK(
        torch.tensor([[token, 0] for token in ids], dtype=torch.int32), torch.tensor([[-0.1, -3.0]] * len(ids))
    )
    return Item(f"{place:032x}", kind, 1, 3, 1, asked, answer, ids, teacher)


@pytest.fixture(scope="module")
def lesson(engine: Engine) -> Lesson:
    new = (
        item(engine, 1, "Which dog?", "Rex"),
        item(engine, 2, "Which probe?", "No", PROBE),
        item(engine, 3, "Which car?", "?", NEGATIVE),
    )
    return Lesson(new, (item(engine, 4, "Which town?", "Rome"),), (PIECE,), None)


@pytest.fixture(scope="module")
def curriculum(engine: Engine) -> Curriculum:
    rows = bare_examples(engine, [engine.backbone.encode("Rain falls on hills.")], top_k=4)
    neutral = NeutralText(tuple(rows), (), ((question("Hello.")[0],),))
    return Curriculum(engine, LocasConfig.model_validate({"training": {"window_tokens": 80}}), neutral)


def test_a_stream_follows_from_its_lesson_alone(curriculum: Curriculum, lesson: Lesson) -> None:
    first, second = (curriculum.stream(lesson) for _ in range(2))
    for _ in range(20):
        one, other = first.draw(), second.draw()
        assert [(e.prompt, e.target) for e in one.examples] == [(e.prompt, e.target) for e in other.examples]


def test_every_item_but_probes_is_trained_on_new_old_and_never_answered(
    curriculum: Curriculum, lesson: Lesson, engine: Engine
) -> None:
    stream = curriculum.stream(lesson)
    answers = {each.target for _ in range(30) for each in stream.draw().bare}
    assert answers == {each.answer_ids for each in (*lesson.new, *lesson.earlier) if each.kind != PROBE}
    texts = [engine.backbone.decode(each.prompt + each.target) for _ in range(30) for each in stream.draw().examples]
    assert not any("probe" in text for text in texts)


def test_questions_are_put_behind_windows_and_only_their_answers_scored(
    curriculum: Curriculum, lesson: Lesson, engine: Engine
) -> None:
    stream = curriculum.stream(lesson)
    known = {each.answer_ids: each.question for each in (*lesson.new, *lesson.earlier)}
    seen = set()
    for _ in range(40):
        (row,) = stream.draw().behind
        scored = [row.target[place] for place in row.places]
        assert row.teacher is not None
        assert row.teacher.ids.shape[0] == len(scored) == row.n_scored
        answers = []
        while scored:
            answer = next(ids for ids in known if tuple(scored[: len(ids)]) == ids)
            answers.append(answer)
            scored = scored[len(answer) :]
        assert len(answers) == ASKED_BEHIND
        text = engine.backbone.decode(row.prompt)
        assert known[answers[0]] in text
        seen.add("dog is Rex" in text or "live in Oslo" in text)
    assert seen == {True, False}  # the user's own turns, and other people's


def test_without_windows_nothing_stands_before_a_question(engine: Engine, lesson: Lesson) -> None:
    config = LocasConfig.model_validate({"training": {"window_tokens": 0}})
    stream = Curriculum(engine, config, NeutralText((), (), ())).stream(lesson)
    assert stream.draw().behind == stream.draw().anchors == []


def test_nothing_to_learn_is_refused(curriculum: Curriculum) -> None:
    with pytest.raises(ConfigurationError, match="study the overflow"):
        curriculum.stream(Lesson((), (), (PIECE,), None))


def test_the_rate_warms_up_stays_and_falls() -> None:
    rates = [rate_factor(step, 60, 40) for step in range(100)]
    assert rates[0] == 0.25
    assert set(rates[3:60]) == {1.0}
    assert rates[-1] == 0.02
    assert all(later < earlier for earlier, later in pairwise(rates[59:99]))


def test_a_long_past_is_rehearsed_in_part(curriculum: Curriculum, lesson: Lesson, engine: Engine) -> None:
    past = tuple(item(engine, 100 + number, f"Which {number}?", str(number)) for number in range(3 * REHEARSED))
    stream = curriculum.stream(replace(lesson, earlier=past))
    assert len(stream.examples) < 2 * REHEARSED

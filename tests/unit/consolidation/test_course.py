"""The course of a scribe: what is trained on lessons writes and reads them better, and nothing else decides."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from locas_agent.consolidation import course
from locas_agent.errors import TurnTooLong
from locas_agent.inference import Engine
from locas_agent.study.scribe.forms import pair_of, to_read, to_write
from locas_agent.study.scribe.lessons import taught
from locas_agent.training.examples import Example
from locas_agent.training.loss.backend import FullForward, loss_backend_for
from locas_agent.training.loss.last_layer import LastLayer
from tests.unit.evaluation.peer_tasks import neutral_text

SHORT = course.Course(steps=48, width=16)
TURNS = tuple(sorted(taught(), key=lambda lesson: len(lesson.turn))[:3])


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(course, "WRITTEN", 2)
    monkeypatch.setattr(course, "RATE", 2e-2)
    monkeypatch.setattr(course, "taught", lambda: TURNS)


def rows_of(engine: Engine) -> list[Example]:
    backbone = engine.backbone
    rows = []
    for turn in TURNS:
        fact = turn.facts[0]
        for prompt, said in (
            (to_write(turn.turn), pair_of(fact.answer, fact.questions[0])),
            (to_read(turn.turn, fact.questions[0]), fact.answer),
        ):
            target = (*backbone.encode(said), backbone.end_id)
            rows.append(Example(tuple(backbone.encode_chat(prompt)), target, None))
    return rows


def test_a_scribe_writes_and_reads_what_it_was_taught(engine: Engine) -> None:
    last_layer = LastLayer.of(engine)
    scribe = course.teach_scribe(engine, last_layer, neutral_text(engine), course=SHORT)
    rows = rows_of(engine)
    loss_backend = loss_backend_for(engine, last_layer, [None, scribe], rows, max_batch_tokens=2048)
    before, after = loss_backend.evaluate([None, scribe], [rows, rows])
    assert sum(float(losses.mean()) for losses, _ in after) < 0.9 * sum(float(losses.mean()) for losses, _ in before)


def test_a_scribe_stands_beside_all_layers(engine: Engine) -> None:
    """What reads a turn is spread over them."""
    two_steps = course.Course(steps=2, width=4)
    scribe = course.teach_scribe(engine, None, neutral_text(engine), course=two_steps)
    assert scribe.layers == tuple(range(-engine.backbone.n_layers, 0))


def test_rows_of_a_step_share_what_a_turn_costs(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each group begins with one turn: it is run once for all of its pairs."""
    seen: list[list[Example]] = []
    used = FullForward.accumulate_gradients

    def noted(self: FullForward, slab: Tensor, scale: Tensor, examples: Any, *args: Any, **named: Any) -> Tensor:
        seen.extend(examples)
        return used(self, slab, scale, examples, *args, **named)

    monkeypatch.setattr(FullForward, "accumulate_gradients", noted)
    course.teach_scribe(engine, None, neutral_text(engine), course=course.Course(steps=2, width=4))
    step = seen[: course.WRITTEN + course.READ]
    written, read = step[: course.WRITTEN], step[course.WRITTEN :]
    assert all(len({row.prompt for row in group}) == 1 < len(group) for group in written)
    assert len(read) == course.READ
    assert all(len({row.prompt[:8] for row in group}) == 1 < len(group) for group in read)


def test_the_same_backbone_gives_the_same_scribe_and_progress_is_told(engine: Engine) -> None:
    told: list[tuple[str, int, int]] = []
    first = course.teach_scribe(
        engine, None, neutral_text(engine), course=SHORT, progress=lambda stage, at, of: told.append((stage, at, of))
    )
    second = course.teach_scribe(engine, None, neutral_text(engine), course=SHORT)
    assert torch.equal(first.slab, second.slab)
    assert told[-1] == ("course", 48, 48)


def test_lessons_longer_than_the_backbone_can_attend_to_are_left_out(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = TURNS[0].model_copy(update={"turn": "so " * engine.backbone.context_tokens + TURNS[0].turn})
    scribe = course.teach_scribe(engine, None, neutral_text(engine), course=SHORT)
    monkeypatch.setattr(course, "taught", lambda: (*TURNS, long))
    assert torch.equal(course.teach_scribe(engine, None, neutral_text(engine), course=SHORT).slab, scribe.slab)
    monkeypatch.setattr(course, "taught", lambda: (long,))
    with pytest.raises(TurnTooLong):
        course.teach_scribe(engine, None, neutral_text(engine), course=SHORT)

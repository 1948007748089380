"""The objectives as a step of training sees them.

From the text to the loss, against the equations of docs/method.md in float64.

p is the backbone with the memory, p_off the bare backbone, C a chunk of the overflow, x one of its turns.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from locas_agent.backbone import Backbone
from locas_agent.config import LocasConfig, StudySettings, TrainingSettings
from locas_agent.inference import Engine
from locas_agent.memory import LocasMemory, MemoryBatch
from locas_agent.study.chunking import Chunk
from locas_agent.study.items import QUESTION, Item
from locas_agent.training.examples import Example, ExampleBatch
from locas_agent.training.loss.losses import mean_by_user
from locas_agent.training.neutral import NeutralText
from locas_agent.training.sampling.builder import ExampleBuilder, TrainingTask
from locas_agent.training.schedule import schedule_of
from tests.conformance import equations
from tests.conformance.samples import trained

TURNS = ({"role": "user", "content": "My dog is Rex."}, {"role": "assistant", "content": "Good."})
CHUNK = Chunk(({"role": "system", "content": "1 May"}, *TURNS), (), 1, 2)
WEIGHT = 0.3
V = 259
"""The whole vocabulary is kept of the teacher, so that its divergence is the full one."""


def config(objective: str) -> LocasConfig:
    training = TrainingSettings(
        objective=objective, sd_weight=WEIGHT, items_per_step=6, question_noise=0.0, window_tokens=0, anchor_weight=0.0
    )  # type: ignore[arg-type]
    return LocasConfig(study=StudySettings(teacher_top_k=V), training=training)


def rows_of_a_step(engine: Engine, objective: str, items: tuple[Item, ...] = ()) -> list[Example]:
    task = TrainingTask(items, (), (CHUNK,), None)
    schedule = schedule_of(config(objective).training, (-1,), items, ())
    return (
        ExampleBuilder(engine, config(objective), NeutralText((), (), ()))
        .sampler(task, schedule)
        .next_batch()
        .standalone
    )


def loud(backbone: Backbone, seed: int) -> LocasMemory:
    memory = trained(backbone, 4, seed)
    memory.scale.fill_(3.0)
    return memory


def loss_of(engine: Engine, rows: list[Example], memory: LocasMemory) -> float:
    """The library's own way from rows to a loss."""
    batch = ExampleBatch.of([rows], pad_id=engine.backbone.pad_id, device=engine.backbone.device)
    logits = engine.logits(
        batch.input_ids, memory=MemoryBatch.of([memory], engine.backbone, len(rows)), positions=batch.positions
    )
    return float(mean_by_user(batch.losses(logits), batch.rows, batch.row_weights, 1).sum())


def likelihoods(engine: Engine, ids: list[int], memory: LocasMemory | None) -> Tensor:
    """Return log p(. | ids before t) for every t, float64, shape (T, V)."""
    batch = None if memory is None else MemoryBatch.of([memory], engine.backbone)
    return engine.logits(torch.tensor([ids]), memory=batch)[0].double().log_softmax(-1)


def ntp(engine: Engine, memory: LocasMemory, x: list[int]) -> float:
    """Mean over t of -log p(x_t | x before t)."""
    p = likelihoods(engine, x, memory)
    return sum(-float(p[t - 1, x[t]]) for t in range(1, len(x))) / (len(x) - 1)


def distilled(engine: Engine, memory: LocasMemory, before: list[int], asked: list[int], x: list[int]) -> float:
    """Mean over t of KL(p_off(. | before, x before t) || p(. | asked, x before t)).

    All tokens of x count but the first of an empty question.
    """
    p_off, p = likelihoods(engine, [*before, *x], None), likelihoods(engine, [*asked, *x], memory)
    places = range(len(x)) if asked else range(1, len(x))
    return sum(float(equations.kl(p_off[len(before) + t - 1], p[len(asked) + t - 1])) for t in places) / len(places)


@pytest.mark.parametrize("objective", ["ntp", "sd", "mix"])
def test_objectives_on_raw_turns(backbone: Backbone, engine: Engine, objective: str) -> None:
    memory = loud(backbone, 3)
    context = backbone.encode_chat(CHUNK.messages, generation_prompt=False)
    turns = {tuple(backbone.encode_chat([turn], generation_prompt=False)) for turn in TURNS}
    rows = rows_of_a_step(engine, objective)
    total = weights = 0.0
    for row in rows:
        x = [*row.prompt, *row.target]
        assert tuple(x) in turns
        is_text = row.teacher is None
        assert is_text or objective != "ntp"
        weight = 1.0 if is_text or objective == "sd" else WEIGHT
        total += weight * (ntp(engine, memory, x) if is_text else distilled(engine, memory, context, [], x))
        weights += weight
    assert {row.teacher is None for row in rows} == {"ntp": {True}, "sd": {False}, "mix": {True, False}}[objective]
    assert loss_of(engine, rows, memory) == pytest.approx(total / weights, rel=1e-4)
    assert loss_of(engine, rows, loud(backbone, 9)) != pytest.approx(
        total / weights, rel=2e-3
    )  # the memory has a say in it


def test_self_study_is_the_divergence_on_the_answer_behind_the_question_alone(
    backbone: Backbone, engine: Engine
) -> None:
    memory = loud(backbone, 3)
    asked = backbone.encode_chat([{"role": "user", "content": "Dog?"}])
    before = backbone.encode_chat([*CHUNK.messages, {"role": "user", "content": "Dog?"}])
    answer = [*backbone.encode("Rex"), backbone.end_id]
    teacher = engine.distributions([before], [answer], top_k=V)[0]
    rows = rows_of_a_step(
        engine, "self_study", (Item("0" * 32, QUESTION, 1, 2, 1, "Dog?", "Rex", tuple(answer), teacher),)
    )
    assert all((list(row.prompt), list(row.target)) == (asked, answer) for row in rows)
    assert loss_of(engine, rows, memory) == pytest.approx(distilled(engine, memory, before, asked, answer), rel=1e-4)

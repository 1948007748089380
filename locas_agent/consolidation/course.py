"""The course of a scribe: a memory is trained to write and to read, once for each backbone, on made-up turns.

The same rows, loss backend and optimiser as for a user's memory. What differs is the text: prompts with a turn in them,
and plain next-token loss on what ought to be written, since no teacher knows better than the lessons.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from random import Random

import torch
from torch import Tensor

from locas_agent.backbone import Backbone
from locas_agent.conversation.messages import Message
from locas_agent.inference import Engine
from locas_agent.memory import LocasMemory
from locas_agent.memory.slab import topmost
from locas_agent.study.scribe.forms import pair_of, to_read, to_write
from locas_agent.study.scribe.lessons import LessonTurn, taught
from locas_agent.training.examples import Example
from locas_agent.training.initialization import empty_memory, ffn_inputs, special_directions
from locas_agent.training.loss.backend import loss_backend_for
from locas_agent.training.loss.last_layer import LastLayer
from locas_agent.training.neutral import NeutralText
from locas_agent.training.schedule import wsd_factor
from locas_agent.training.trainer import clip_by_user
from locas_agent.types import Progress

logger = logging.getLogger(__name__)

ACTIVATION = 300.0
"""How strongly its slots answer to the inputs that their rows start from: forty times as much as a user's, since a
scribe has to learn fast and may drift. Origin: `docs/decisions.md`, the slots of a scribe."""
RATE = 6e-3
"""Peak rate of AdamW."""
WRITTEN, READ = 4, 2
"""Turns of a step about which pairs are written, and turns whose questions are answered."""
PAIRS = 8
"""Pairs of one turn in a step at most. They share what the turn before them costs."""
COMMON_ROWS = 12
"""Neutral rows with whose inputs those of lessons are compared."""


@dataclass(frozen=True, slots=True)
class Course:
    """How long a scribe is taught, and how much it can hold."""

    steps: int = 128
    width: int = 64
    """Slots per layer."""


AT_FIRST_USE = Course()
"""What somebody waits for who brings a backbone."""
SHIPPED = Course(steps=360, width=80)
"""What SmolLM2's scribe had, which ships."""


def teach_scribe(
    engine: Engine,
    last_layer: LastLayer | None,
    neutral: NeutralText,
    *,
    course: Course = AT_FIRST_USE,
    progress: Progress | None = None,
) -> LocasMemory:
    """Return a scribe for a backbone. The same backbone on the same machine gives the same scribe.

    Args:
        engine: of the backbone.
        last_layer: its end, None where it is built in a way not known.
        neutral: text on this backbone that no lesson is like.
        course: how long it is taught.
        progress: told of "course" after each step; what it raises ends the course.
    """
    started = time.perf_counter()
    backbone = engine.backbone
    lessons = _lessons(backbone, _readable(backbone, taught()), Random("course"))
    scribe = _fresh(engine, neutral, lessons, course.width)
    slab = scribe.slab.detach().clone().requires_grad_(True)  # (L, 3, W, D)
    optimizer = torch.optim.AdamW([slab], lr=RATE, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
    decay_steps = course.steps // 2
    for step in range(course.steps):
        optimizer.param_groups[0]["lr"] = RATE * wsd_factor(step, course.steps - decay_steps, decay_steps)
        batch: Tensor = slab.detach()[:, None].clone()  # (L, 1, 3, W, D)
        batch.grad = torch.zeros_like(batch)
        groups = next(lessons)
        rows = [row for group in groups for row in group]
        loss_backend = loss_backend_for(engine, last_layer, [scribe], rows, max_batch_tokens=2048)
        for group in groups:  # one after the other: rows of one call share the beginning that all of them have
            loss_backend.accumulate_gradients(
                batch, scribe.scale[:, None], [group], 1 / len(groups), layers=scribe.layers
            )
        clip_by_user(batch.grad, 1.0)
        slab.grad = batch.grad[:, 0].contiguous()
        optimizer.step()
        if progress is not None:
            progress("course", step + 1, course.steps)
    logger.info("scribe taught", extra={"action": "course", "seconds": time.perf_counter() - started})
    return replace(scribe, slab=slab.detach())


def _fresh(engine: Engine, neutral: NeutralText, lessons: Iterator[list[list[Example]]], most: int) -> LocasMemory:
    """Return a scribe that does nothing yet, whose slots answer to what the lessons have in them.

    It stands beside all layers: what reads a turn is spread over them, and a scribe may drift.
    """
    backbone, rng = engine.backbone, Random("slots")
    layers = topmost(backbone.n_layers)
    width = min(most, backbone.ffn_width)
    scribe = empty_memory(engine, layers, width=width, scale_rule="width", activation=ACTIVATION)
    first = list(islice((rng.choice(group) for groups in lessons for group in groups), width))
    ends, places = 0, []
    for row in first:
        places.append(ends + rng.randrange(row.n_scored))
        ends += row.n_scored
    inputs = ffn_inputs(engine, first, layers)
    common = ffn_inputs(engine, neutral.anchors[:COMMON_ROWS], layers)
    directions = [special_directions(inputs[layer][places], common[layer]) for layer in layers]
    return scribe.with_slots(torch.stack(directions), grows=False)


def _readable(backbone: Backbone, turns: Sequence[LessonTurn]) -> Sequence[LessonTurn]:
    """Return the turns that a backbone can attend to with the longest question about them; all where it can with none.

    A short context cuts the lessons to shorter turns; one too short for every lesson is told of it by the first row.
    """

    def tokens(turn: LessonTurn) -> int:
        pairs = [(asked, fact.answer) for fact in turn.facts for asked in fact.questions]
        asked, answer = max(pairs, key=lambda pair: len("".join(pair)))
        read = _row(backbone, to_read(turn.turn, asked), answer)
        written = _row(backbone, to_write(turn.turn), pair_of(answer, asked))
        return max(read.n_tokens, written.n_tokens)

    return [turn for turn in turns if tokens(turn) <= backbone.context_tokens] or turns


def _lessons(backbone: Backbone, turns: Sequence[LessonTurn], rng: Random) -> Iterator[list[list[Example]]]:
    """Draw steps without end, each of some turns with rows about them; every turn comes equally often."""
    deck = list[LessonTurn]()
    while True:
        groups = []
        for number in range(WRITTEN + READ):
            deck = deck or rng.sample(turns, len(turns))
            turn = deck.pop()
            pairs = [(fact.answer, asked) for fact in turn.facts for asked in fact.questions]
            drawn = rng.sample(pairs, min(PAIRS, len(pairs)))
            if number < WRITTEN:
                group = [_row(backbone, to_write(turn.turn), pair_of(answer, asked)) for answer, asked in drawn]
            else:
                group = [_row(backbone, to_read(turn.turn, asked), answer) for answer, asked in drawn]
            groups.append(group)
        yield groups


def _row(backbone: Backbone, prompt: Sequence[Message], answer: str) -> Example:
    target = (*backbone.encode(answer), backbone.end_id)
    return Example(tuple(backbone.encode_chat(prompt)), target, None)

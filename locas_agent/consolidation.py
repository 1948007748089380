"""Training: from study sets and former memories to new memories, many users in one forward. Knows no store, no session and no admission.

Users are rows of one slab of shape (L, U, 3, W, D). The loss is the sum over users of each user's mean, every user's gradient is clipped by
its own norm, and one fused AdamW moves the slab: each user gets what training alone would give, up to rounding.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from random import Random

import torch
from torch import Tensor

from locas_agent.backbone import Backbone
from locas_agent.config import LocasConfig, TrainingSettings
from locas_agent.engine import Engine
from locas_agent.errors import ConfigurationError
from locas_agent.examples import Example, ExampleBatch, with_teacher
from locas_agent.initialization import initialize_many
from locas_agent.memory import LocasMemory, MemoryBatch
from locas_agent.neutral import NeutralText
from locas_agent.objectives import mean_by_user
from locas_agent.pieces import Piece
from locas_agent.prompting import question
from locas_agent.study import NEGATIVE, PROBE, Item

logger = logging.getLogger(__name__)

TEMPLATE_TOKENS = 5
"""Tokens at both ends of a prompt that question noise leaves alone: the chat template's."""

Progress = Callable[[str, int, int], None]
"""Called with (stage, done, total)."""


@dataclass(frozen=True, eq=False)
class Lesson:
    """What one user's memory is to learn.

    Attributes:
        new: items of this consolidation, probes among them.
        earlier: items of former consolidations that still hold, to be rehearsed.
        pieces: the raw overflow.
        memory: the former memory; None starts a new one.
    """

    new: tuple[Item, ...]
    earlier: tuple[Item, ...]
    pieces: tuple[Piece, ...]
    memory: LocasMemory | None


@dataclass(frozen=True, eq=False)
class Trained:
    """A trained memory with the figures of its training; whether it is any good is for the admission gate to say."""

    memory: LocasMemory
    steps: int
    tokens: int
    seconds: float
    first_loss: float
    last_loss: float
    is_finite: bool


@dataclass(eq=False)
class _Streams:
    """Endless, evenly covering streams of one user's examples."""

    fresh: _Cycle
    rehearsed: _Cycle
    negative: _Cycle
    anchors: _Cycle
    rng: Random


class _Cycle:
    """Walks through a list again and again, shuffled anew each time, so that every element comes equally often."""

    def __init__(self, elements: Sequence[Example], rng: Random) -> None:
        self.elements = list(elements)
        self._rng = rng
        self._queue: list[Example] = []

    def take(self) -> Example:
        if not self._queue:
            self._queue = self._rng.sample(self.elements, len(self.elements))
        return self._queue.pop()


class Trainer:
    """Trains the memories of many users on one backbone."""

    def __init__(self, engine: Engine, config: LocasConfig, neutral: NeutralText) -> None:
        self._engine = engine
        self._backbone = engine.backbone
        self._config = config
        self._settings: TrainingSettings = config.training
        self._neutral = neutral

    def train(self, lessons: Sequence[Lesson], *, progress: Progress | None = None) -> list[Trained]:
        """Train one memory per lesson.

        Raises:
            ConfigurationError: a lesson holds nothing to learn from.
        """
        started = time.perf_counter()
        memories = self.starting_memories(lessons)
        streams = [self._streams(lesson, index) for index, lesson in enumerate(lessons)]
        slab = torch.stack([memory.slab for memory in memories], dim=1).to(self._backbone.device).requires_grad_(True)  # (L, U, 3, W, D)
        scale = torch.stack([memory.scale for memory in memories], dim=1)  # (L, U)
        optimizer = torch.optim.AdamW([slab], lr=self._settings.learning_rate, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
        steps = self._settings.max_steps
        losses: list[Tensor] = []
        tokens = torch.zeros(len(lessons), dtype=torch.long)
        for step in range(steps):
            rate = self._settings.learning_rate * min(1.0, (step + 1) / 4) * max(0.02, 1 - step / steps)
            for group in optimizer.param_groups:
                group["lr"] = rate
            loss, seen = self._step(slab, scale, streams)
            losses.append(loss)
            tokens += seen
            _clip_each(slab, self._settings.gradient_clip)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            if progress is not None:
                progress("train", step + 1, steps)
        seconds = (time.perf_counter() - started) / len(lessons)
        final = slab.detach().cpu()
        return [
            Trained(
                replace(memory, slab=final[:, index].contiguous()),
                steps, int(tokens[index]), seconds, float(losses[0][index]), float(losses[-1][index]),
                bool(torch.isfinite(final[:, index]).all() and torch.isfinite(losses[-1][index])),
            )
            for index, memory in enumerate(memories)
        ]  # fmt: skip

    def starting_memories(self, lessons: Sequence[Lesson]) -> list[LocasMemory]:
        """Return each lesson's former memory, or a new one cloned from the neurons its own text activates."""
        fresh = [index for index, lesson in enumerate(lessons) if lesson.memory is None]
        texts = [[self._backbone.encode_chat(piece.messages, generation_prompt=False) for piece in lessons[index].pieces] for index in fresh]
        settings = self._config.memory
        made = initialize_many(
            self._engine.backbone,
            texts,
            width=settings.width,
            method=settings.initialization,
            scale_rule=settings.scale_rule,
            seed=self._settings.seed,
        )
        new = dict(zip(fresh, made, strict=True))
        return [new[index] if lesson.memory is None else lesson.memory for index, lesson in enumerate(lessons)]

    def _streams(self, lesson: Lesson, index: int) -> _Streams:
        """Turn a lesson into streams of examples."""
        rng = Random(f"{self._settings.seed}:{index}:order")
        if self._settings.objective == "self_study":
            fresh = [question_example(self._backbone, item) for item in lesson.new if item.kind not in (PROBE, NEGATIVE)]
            negative = [question_example(self._backbone, item) for item in (*lesson.new, *lesson.earlier) if item.kind == NEGATIVE]
            if self._settings.ntp_weight:
                fresh += self._text_examples(lesson.pieces, "ntp", self._settings.ntp_weight)
        else:
            fresh, negative = [], []
            if self._settings.objective in ("ntp", "mix"):
                fresh += self._text_examples(lesson.pieces, "ntp", 1.0)
            if self._settings.objective in ("sd", "mix"):
                fresh += self._text_examples(lesson.pieces, "sd", self._settings.sd_weight if self._settings.objective == "mix" else 1.0)
        rehearsed = [question_example(self._backbone, item) for item in lesson.earlier if item.kind not in (PROBE, NEGATIVE)]
        if not fresh and not rehearsed:
            raise ConfigurationError("a lesson needs something to learn from, got no study item and no text: study the overflow first")
        return _Streams(_Cycle(fresh, rng), _Cycle(rehearsed, rng), _Cycle(negative, rng), _Cycle(self._neutral.anchors, rng), rng)

    def _text_examples(self, pieces: Sequence[Piece], objective: str, weight: float) -> list[Example]:
        """Return the turns of the pieces as examples: `ntp` without a teacher, `sd` with the whole piece before the teacher."""
        examples = []
        for piece in pieces:
            turns = [self._backbone.encode_chat([message], generation_prompt=False) for message in piece.messages[1:]]
            turns = [turn for turn in turns if len(turn) >= 2]
            if objective == "ntp":
                examples += [Example(tuple(turn[:1]), tuple(turn[1:]), None, weight) for turn in turns]
            elif turns:
                context = self._backbone.encode_chat(piece.messages, generation_prompt=False)
                made = with_teacher(
                    self._engine, [[*context, turn[0]] for turn in turns], [turn[1:] for turn in turns],
                    top_k=self._config.study.teacher_top_k, student_prompts=[turn[:1] for turn in turns],
                )  # fmt: skip
                examples += [replace(example, weight=weight) for example in made]
        return examples

    def _step(self, slab: Tensor, scale: Tensor, streams: Sequence[_Streams]) -> tuple[Tensor, Tensor]:
        """Accumulate the gradient of one step; return each user's loss and tokens, both of shape (U,)."""
        short, long = zip(*(self._draw(stream) for stream in streams), strict=True)
        losses = torch.zeros(len(streams))
        tokens = torch.zeros(len(streams), dtype=torch.long)
        for rows, share in ((short, 1.0), (long, self._settings.anchor_weight)):
            longest = max(example.n_tokens for user in rows for example in user)
            users = max(1, self._settings.max_batch_tokens // (len(rows[0]) * longest))
            for start in range(0, len(rows), users):
                chunk = rows[start : start + users]
                chosen = slice(start, start + len(chunk))
                loss, seen = self._backward(slab, scale, chosen, chunk, share)
                losses[chosen] += loss
                tokens[chosen] += seen
        return losses, tokens

    def _backward(self, slab: Tensor, scale: Tensor, chosen: slice, examples: Sequence[Sequence[Example]], share: float) -> tuple[Tensor, Tensor]:
        """Run forward and backward for some users and one kind of rows."""
        batch = ExampleBatch.of(examples, pad_id=self._backbone.pad_id, device=self._backbone.device)
        memory = MemoryBatch.training(slab[:, chosen], scale[:, chosen], self._backbone, rows_per_memory=len(examples[0]))
        logits = self._engine.logits(batch.input_ids, memory=memory, positions=batch.positions)
        by_user = share * mean_by_user(batch.losses(logits), batch.rows, batch.row_weights, batch.n_users)
        by_user.sum().backward()  # type: ignore[no-untyped-call]
        seen = torch.tensor([sum(example.n_tokens for example in user) for user in examples])
        return by_user.detach().cpu(), seen

    def _draw(self, stream: _Streams) -> tuple[list[Example], list[Example]]:
        """Draw one user's rows of a step: study items, and neutral text."""
        settings = self._settings
        items: list[Example] = []
        for _ in range(settings.items_per_step):
            kind = stream.rng.random()
            if kind < settings.negative_share and stream.negative.elements:
                items.append(stream.negative.take())
            elif stream.rehearsed.elements and (not stream.fresh.elements or kind < settings.negative_share + settings.rehearsal_share):
                items.append(stream.rehearsed.take())
            else:
                items.append(stream.fresh.take())
        items = [self._noisy(item, stream.rng) for item in items]
        if self._neutral.windows and stream.rng.random() < settings.window_share * settings.items_per_step:
            at = stream.rng.randrange(len(items))
            window = self._backbone.encode_chat(stream.rng.choice(self._neutral.windows), generation_prompt=False)
            items[at] = replace(items[at], prompt=(*window, *items[at].prompt))
        return items, [stream.anchors.take()]

    def _noisy(self, example: Example, rng: Random) -> Example:
        """Leave out some tokens of the question; what the chat template puts around it stays."""
        noise = self._settings.question_noise
        if not noise or len(example.prompt) <= 2 * TEMPLATE_TOKENS:
            return example
        middle = [token for token in example.prompt[TEMPLATE_TOKENS:-TEMPLATE_TOKENS] if rng.random() >= noise]
        return replace(example, prompt=(*example.prompt[:TEMPLATE_TOKENS], *middle, *example.prompt[-TEMPLATE_TOKENS:]))


def question_example(backbone: Backbone, item: Item) -> Example:
    """Return a study item as it is trained and measured: the question alone in front, the teacher's answer to be given."""
    return Example(tuple(backbone.encode_chat(question(item.question))), item.answer_ids, item.teacher)


def _clip_each(slab: Tensor, limit: float) -> None:
    """Scale each user's gradient to at most `limit`; a norm over all users would couple them."""
    if slab.grad is None:
        return
    norms = torch.linalg.vector_norm(slab.grad, dim=(0, 2, 3, 4), keepdim=True)  # (1, U, 1, 1, 1)
    slab.grad.mul_((limit / norms.clamp_min(1e-12)).clamp_max(1.0))

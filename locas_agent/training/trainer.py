"""Training: from study sets and former memories to new memories, many users in one forward.

Knows no store, no session and no admission.

In each step users are rows of one slab of shape (L, U, 3, W, D). The loss is the sum over users of each user's mean,
every user's gradient is clipped by its own norm, and each has a learning rate of its own, which begins to fall when its
held-out probes are answered: each user gets what training alone would give, up to rounding.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from locas_agent.config import LocasConfig, TrainingSettings
from locas_agent.inference import Engine
from locas_agent.memory import LocasMemory
from locas_agent.memory.placement import placement
from locas_agent.training.initialization import initialize_many
from locas_agent.training.last_layer import Readout
from locas_agent.training.neutral import NeutralText
from locas_agent.training.sampler import Curriculum, Lesson, Stream, rate_factor
from locas_agent.training.student import Student, student_for
from locas_agent.types import Progress

logger = logging.getLogger(__name__)

DEFAULT_WIDTH = 48
"""Slots per layer of a new memory where the settings name none and the FFN has as many neurons."""


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


class _Pupil:
    """One user's memory in training: its rows, its draws, its losses."""

    def __init__(self, memory: LocasMemory, stream: Stream, device: torch.device) -> None:
        self.memory = memory
        self.stream = stream
        self.slab = memory.slab.detach().clone().to(device).requires_grad_(True)  # (L, 3, W, D)
        self.losses: list[float] = []
        self.tokens = 0

    def trained(self, seconds: float) -> Trained:
        """Return the memory as it is now, on the CPU, with its figures."""
        memory = replace(self.memory, slab=self.slab.detach().cpu().contiguous())
        is_finite = bool(torch.isfinite(memory.slab).all()) and math.isfinite(self.losses[-1])
        return Trained(memory, len(self.losses), self.tokens, seconds, self.losses[0], self.losses[-1], is_finite)


class Trainer:
    """Trains the memories of many users on one backbone."""

    def __init__(self, engine: Engine, config: LocasConfig, neutral: NeutralText, readout: Readout | None) -> None:
        """Take the parts.

        Args:
            engine: runs the backbone.
            config: settings.
            neutral: anchors and windows.
            readout: the end of the backbone, None where it has none that is known; a whole forward serves then.
        """
        self._engine = engine
        self._readout = readout
        self._backbone = engine.backbone
        self._config = config
        self._settings: TrainingSettings = config.training
        self._neutral = neutral
        self._curriculum = Curriculum(engine, config, neutral)

    def train(self, lessons: Sequence[Lesson], *, progress: Progress | None = None) -> list[Trained]:
        """Train one memory per lesson.

        Memories of one width beside the same layers share each step; what a lesson becomes does not depend on the
        others.

        Raises:
            ConfigurationError: a lesson holds nothing to learn from.
        """
        memories = self.starting_memories(lessons)
        by_shape: dict[tuple[tuple[int, ...], int], list[int]] = {}
        for index, memory in enumerate(memories):
            by_shape.setdefault((memory.layers, memory.width), []).append(index)
        trained: dict[int, Trained] = {}
        for chosen in by_shape.values():
            found = self._train([lessons[index] for index in chosen], [memories[index] for index in chosen], progress)
            trained.update(zip(chosen, found, strict=True))
        return [trained[index] for index in range(len(lessons))]

    def _train(
        self, lessons: Sequence[Lesson], memories: Sequence[LocasMemory], progress: Progress | None
    ) -> list[Trained]:
        started = time.perf_counter()
        settings, device = self._settings, self._backbone.device
        pupils = [
            _Pupil(memory, self._curriculum.stream(lesson), device)
            for lesson, memory in zip(lessons, memories, strict=True)
        ]
        groups = [{"params": [pupil.slab]} for pupil in pupils]
        optimizer = torch.optim.AdamW(
            groups, lr=settings.learning_rate, betas=(0.9, 0.98), weight_decay=0.0, fused=True
        )
        seen = [example for pupil in pupils for example in pupil.stream.examples]
        student = student_for(self._engine, self._readout, memories, seen, max_batch_tokens=settings.max_batch_tokens)
        falling = settings.fall_of(settings.max_steps)
        for step in range(settings.max_steps):
            for group in optimizer.param_groups:
                group["lr"] = settings.learning_rate * rate_factor(step, settings.max_steps - falling, falling)
            self._step(student, pupils)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            if progress is not None:
                progress("train", step + 1, settings.max_steps)
        seconds = (time.perf_counter() - started) / len(lessons)
        return [pupil.trained(seconds) for pupil in pupils]

    def _step(self, student: Student, pupils: Sequence[_Pupil]) -> None:
        """Give every pupil the gradient of its next draw, clipped by its own norm."""
        draws = [pupil.stream.draw() for pupil in pupils]
        slab = torch.stack([pupil.slab.detach() for pupil in pupils], dim=1)  # (L, U, 3, W, D)
        slab.grad = torch.zeros_like(slab)
        scale = torch.stack([pupil.memory.scale for pupil in pupils], dim=1).to(slab.device)  # (L, U)
        loss = torch.zeros(len(pupils))
        for (first, weight), *others in zip(*(draw.weighted(self._settings) for draw in draws), strict=True):
            if first:
                rows = [first, *(rows for rows, _ in others)]
                loss += student.learn(slab, scale, rows, weight, layers=pupils[0].memory.layers)
        clip_by_user(slab.grad, self._settings.gradient_clip)
        for at, (pupil, draw) in enumerate(zip(pupils, draws, strict=True)):
            pupil.slab.grad = slab.grad[:, at].contiguous()
            pupil.losses.append(float(loss[at]))
            pupil.tokens += draw.n_tokens

    def starting_memories(self, lessons: Sequence[Lesson]) -> list[LocasMemory]:
        """Return each lesson's former memory, or a new one cloned from the neurons its own text activates.

        Without any, neutral text does.
        """
        fresh = [index for index, lesson in enumerate(lessons) if lesson.memory is None]
        texts = [
            [self._backbone.encode_chat(piece.messages, generation_prompt=False) for piece in lessons[index].pieces]
            or [[*example.prompt, *example.target] for example in self._neutral.anchors]
            for index in fresh
        ]
        settings = self._config.memory
        made = initialize_many(
            self._engine.backbone,
            texts,
            width=min(DEFAULT_WIDTH, self._backbone.ffn_width) if settings.width is None else settings.width,
            layers=placement(settings.layers, self._backbone.n_layers),
            method=settings.initialization,
            scale_rule=settings.scale_rule,
            seed=self._settings.seed,
        )
        new = dict(zip(fresh, made, strict=True))
        return [new[index] if lesson.memory is None else lesson.memory for index, lesson in enumerate(lessons)]


def clip_by_user(gradient: Tensor, largest: float) -> None:
    """Shorten each user's gradient to a norm, in place; a norm over all users would couple them.

    Args:
        gradient: of a slab, shape (L, U, 3, W, D).
        largest: norm that is left alone.
    """
    norms = torch.linalg.vector_norm(gradient, dim=(0, 2, 3, 4), keepdim=True)  # (1, U, 1, 1, 1)
    gradient.mul_((largest / norms.clamp_min(1e-12)).clamp_max(1.0))

"""Training: from study sets and former memories to new memories, many users in one forward.

In each step users are rows of one slab of shape (L, U, 3, W, D). The loss is the sum over users of each user's mean,
and every user's gradient is clipped by its own norm: each user gets what training alone would give, up to rounding.
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
from locas_agent.memory.slab import DOWN
from locas_agent.training.loss.backend import LossBackend, loss_backend_for
from locas_agent.training.loss.last_layer import LastLayer
from locas_agent.training.loss.local_anchor import LocalAnchor
from locas_agent.training.neutral import NeutralText
from locas_agent.training.sampling.builder import ExampleBuilder, TrainingTask
from locas_agent.training.sampling.sampler import ExampleSampler
from locas_agent.training.schedule import Schedule, schedule_of
from locas_agent.training.starting import StartingMemories
from locas_agent.types import Progress

logger = logging.getLogger(__name__)

RUNAWAY, RUNAWAY_NATS = 1.5, 0.25
"""A training has run away when its losses at the end are above so many times the first one and so much more. Anchors
are part of a loss, so a memory that drifts shows there."""


@dataclass(frozen=True, eq=False)
class Trained:
    """A trained memory with the figures of its training; whether it is any good is for the admission gate to say.

    Attributes:
        memory: the memory.
        steps: steps taken, those of a training that ran away left out.
        tokens: tokens of its rows.
        seconds: wall time, the user's share of it; a training that ran away included.
        first_loss, last_loss: loss of the first and the last step, nats.
        is_finite: rows and loss are numbers.
        learning_rate: peak rate.
        restarts: how often it was begun again at half the rate, because loss or rows ran away.
    """

    memory: LocasMemory
    steps: int
    tokens: int
    seconds: float
    first_loss: float
    last_loss: float
    is_finite: bool
    learning_rate: float
    restarts: int = 0


class _UserTraining:
    """One user's memory in training: its rows, its sampler, its losses."""

    def __init__(self, memory: LocasMemory, sampler: ExampleSampler, device: torch.device, former_pace: float) -> None:
        self.memory = memory
        self.sampler = sampler
        self.slab = memory.slab.detach().clone().to(device).requires_grad_(True)  # (L, 3, W, D)
        self.losses: list[float] = []
        self.tokens = 0
        # Rows that start from inputs are few and their facts' own; others are shared by all that is ever learnt.
        is_paced = memory.initialization == "inputs" and former_pace != 1.0
        former = self.slab.detach()[:, DOWN].any(dim=-1) & is_paced  # (L, W): slots that hold something
        self._pace = torch.where(former, former_pace, 1.0)[:, None, :, None] if former.any() else None
        self._before = None if self._pace is None else self.slab.detach().clone()

    def keep_pace(self) -> None:
        """Take back, after a step, what slots of former consolidations have moved beyond their pace."""
        if self._pace is None or self._before is None:
            return
        with torch.no_grad():
            self.slab.copy_(self._before + self._pace * (self.slab - self._before))
            self._before.copy_(self.slab)

    def trained(self, seconds: float, learning_rate: float) -> Trained:
        """Return the memory as it is now, on the CPU, with its figures."""
        memory = replace(self.memory, slab=self.slab.detach().cpu().contiguous())
        is_finite = bool(torch.isfinite(memory.slab).all()) and math.isfinite(self.losses[-1])
        first, last = self.losses[0], self.losses[-1]
        return Trained(memory, len(self.losses), self.tokens, seconds, first, last, is_finite, learning_rate)

    @property
    def has_run_away(self) -> bool:
        """Whether rows or losses are no numbers, or the last quarter of the losses is far above the first one."""
        last = self.losses[-max(1, len(self.losses) // 4) :]
        is_low = sum(last) / len(last) <= RUNAWAY * self.losses[0] + RUNAWAY_NATS  # False where one is not a number
        return not is_low or not bool(torch.isfinite(self.slab.detach()).all())


class Trainer:
    """Trains the memories of many users on one backbone."""

    def __init__(self, engine: Engine, config: LocasConfig, neutral: NeutralText, last_layer: LastLayer | None) -> None:
        """Take the parts.

        Args:
            engine: runs the backbone.
            config: settings.
            neutral: anchors and windows.
            last_layer: the end of the backbone, None where it has none that is known; a whole forward serves then.
        """
        self._engine = engine
        self._last_layer = last_layer
        self._backbone = engine.backbone
        self._settings: TrainingSettings = config.training
        self._neutral = neutral
        self._builder = ExampleBuilder(engine, config, neutral)
        self._starting = StartingMemories(engine, config, neutral)

    def train(self, tasks: Sequence[TrainingTask], *, progress: Progress | None = None) -> list[Trained]:
        """Train one memory per task.

        Memories of one width beside the same layers share each step; what a task becomes does not depend on the
        others.

        Raises:
            ConfigurationError: a task holds nothing to learn from.
        """
        memories = self._starting.of(tasks)
        together: dict[tuple[tuple[int, ...], int, Schedule], list[int]] = {}
        for index, (task, memory) in enumerate(zip(tasks, memories, strict=True)):
            schedule = schedule_of(self._settings, memory.layers, task.new, task.earlier)
            together.setdefault((memory.layers, memory.width, schedule), []).append(index)
        trained: dict[int, Trained] = {}
        for (_, _, schedule), chosen in together.items():
            found = self._train([(tasks[index], memories[index]) for index in chosen], schedule, progress)
            trained.update(zip(chosen, found, strict=True))
        return [trained[index] for index in range(len(tasks))]

    def _train(
        self, starts: Sequence[tuple[TrainingTask, LocasMemory]], schedule: Schedule, progress: Progress | None
    ) -> list[Trained]:
        """Train memories of one shape; those that run away are begun again at half the rate, once."""
        started = time.perf_counter()
        users = self._run(starts, schedule, progress)
        astray = [at for at, user in enumerate(users) if user.has_run_away]
        rates = [schedule.learning_rate] * len(users)
        if astray:
            slower = replace(schedule, learning_rate=schedule.learning_rate / 2)
            logger.warning(
                "training ran away and is begun again at half the rate",
                extra={"action": "train", "users": len(astray), "learning_rate": slower.learning_rate},
            )
            for at, user in zip(astray, self._run([starts[at] for at in astray], slower, progress), strict=True):
                users[at], rates[at] = user, slower.learning_rate
        seconds = (time.perf_counter() - started) / len(starts)
        trained = [user.trained(seconds, rate) for user, rate in zip(users, rates, strict=True)]
        return [replace(one, restarts=int(at in astray)) for at, one in enumerate(trained)]

    def _run(
        self, starts: Sequence[tuple[TrainingTask, LocasMemory]], schedule: Schedule, progress: Progress | None
    ) -> list[_UserTraining]:
        settings, device = self._settings, self._backbone.device
        memories = [memory for _, memory in starts]
        users = [
            _UserTraining(memory, self._builder.sampler(task, schedule), device, schedule.former_pace)
            for task, memory in starts
        ]
        groups = [{"params": [user.slab]} for user in users]
        optimizer = torch.optim.AdamW(
            groups, lr=schedule.learning_rate, betas=(0.9, 0.98), weight_decay=0.0, fused=True
        )
        seen = [example for user in users for example in user.sampler.examples]
        loss_backend = loss_backend_for(
            self._engine, self._last_layer, memories, seen, max_batch_tokens=settings.max_batch_tokens
        )
        local_anchor = None
        if schedule.local_anchor_weight:
            local_anchor = LocalAnchor(
                self._engine, self._neutral, memories[0].layers, weight=schedule.local_anchor_weight
            )
        for step in range(schedule.steps):
            for group in optimizer.param_groups:
                group["lr"] = schedule.rate(step)
            self._step(loss_backend, users, local_anchor)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            for user in users:
                user.keep_pace()
            if progress is not None:
                progress("train", step + 1, schedule.steps)
        return users

    def _step(
        self, loss_backend: LossBackend, users: Sequence[_UserTraining], local_anchor: LocalAnchor | None
    ) -> None:
        """Give every user the gradient of the next batch, clipped by its own norm."""
        step = len(users[0].losses)
        batches = [user.sampler.next_batch() for user in users]
        slab = torch.stack([user.slab.detach() for user in users], dim=1)  # (L, U, 3, W, D)
        slab.grad = torch.zeros_like(slab)
        scale = torch.stack([user.memory.scale for user in users], dim=1).to(slab.device)  # (L, U)
        loss = torch.zeros(len(users))
        for (first, weight), *others in zip(*(batch.weighted(self._settings) for batch in batches), strict=True):
            if first:
                rows = [first, *(rows for rows, _ in others)]
                loss += loss_backend.accumulate_gradients(slab, scale, rows, weight, layers=users[0].memory.layers)
        if local_anchor is not None:
            loss += local_anchor.accumulate_gradients(slab, scale, step=step)
        clip_by_user(slab.grad, self._settings.gradient_clip)
        for at, (user, batch) in enumerate(zip(users, batches, strict=True)):
            user.slab.grad = slab.grad[:, at].contiguous()
            user.losses.append(float(loss[at]))
            user.tokens += batch.n_tokens


def clip_by_user(gradient: Tensor, largest: float) -> None:
    """Shorten each user's gradient to a norm, in place; a norm over all users would couple them.

    Args:
        gradient: of a slab, shape (L, U, 3, W, D).
        largest: norm that is left alone.
    """
    norms = torch.linalg.vector_norm(gradient, dim=(0, 2, 3, 4), keepdim=True)  # (1, U, 1, 1, 1)
    gradient.mul_((largest / norms.clamp_min(1e-12)).clamp_max(1.0))

"""What the peers of the tables have in common: one PEFT adapter per user, trained on the tasks that train a memory.

The same study items, negatives, rehearsal, neutral windows and anchors in the same order, the same loss and the same
number of steps; what differs is what is trained, how far a step goes, and that users are trained and asked one after
another.
"""

from __future__ import annotations

import copy
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from locas_agent.backbone import Backbone
from locas_agent.config import LocasConfig
from locas_agent.errors import ConfigurationError, IncompatibleMemory, MissingExtra
from locas_agent.inference import Engine
from locas_agent.inference.engine import MAX_BATCH_TOKENS
from locas_agent.memory.placement import placement
from locas_agent.training.examples import Example, ExampleBatch
from locas_agent.training.loss.losses import mean_by_user
from locas_agent.training.neutral import NeutralText
from locas_agent.training.sampling.builder import ExampleBuilder, TrainingTask
from locas_agent.training.schedule import schedule_of, wsd_factor
from locas_agent.types import Progress

AdapterState = Mapping[str, Tensor]
"""One user's adapter: tensors by PEFT's parameter names, fp32, on the CPU."""


@dataclass(frozen=True, eq=False)
class AdapterTrained:
    """A trained adapter with the figures of its training.

    Attributes:
        state: the adapter; hand it to the next `train` of the same user.
        seconds: wall time of this training.
        steps: optimiser steps taken.
        parameters: numbers trained and kept per user.
        first_loss, last_loss: loss of the first and the last step, nats.
    """

    state: AdapterState
    seconds: float
    steps: int
    parameters: int
    first_loss: float
    last_loss: float


class AdapterPeer(ABC):
    """Trains and serves adapters on a private copy of a backbone, one user at a time; not for several threads.

    The adapter in the copy is overwritten at the start of every call, so nothing of one user is left for the next.
    """

    def __init__(
        self, backbone: Backbone, config: LocasConfig, neutral: NeutralText, adapter: Any, *, learning_rate: float
    ) -> None:
        """Copy the backbone and put an adapter into the copy.

        Args:
            backbone: stays untouched, and is the teacher where an objective asks one.
            config: training settings; all but the learning rate are used.
            neutral: anchors and windows, those the memories are trained with.
            adapter: PEFT's configuration of it.
            learning_rate: peak rate.

        Raises:
            ConfigurationError: the rate is not above 0.
        """
        if not learning_rate > 0:
            raise ConfigurationError(f"learning_rate is above 0, got {learning_rate}")
        self._settings = config.training
        self._rate = learning_rate
        self._layers = placement(config.memory.layers, backbone.n_layers)
        self._builder = ExampleBuilder(Engine(backbone), config, neutral)
        self._engine = Engine(
            Backbone(
                copy.deepcopy(backbone.model),
                backbone.tokenizer,
                name=f"{backbone.name} with {adapter.peft_type.value}",
            )
        )
        with (
            torch.random.fork_rng(devices=[]),
            warnings.catch_warnings(),
        ):  # PEFT draws values of its own; those of `_start` replace them
            warnings.filterwarnings(
                "ignore", message="`is_gradient_checkpointing`", category=FutureWarning
            )  # PEFT 0.21 asks transformers 5.23 so
            self._adapted: Any = peft().get_peft_model(self._engine.backbone.model, adapter)
        self._adapted.eval()
        self._parameters: dict[str, nn.Parameter] = {
            name: each for name, each in self._adapted.named_parameters() if each.requires_grad
        }
        self._empty = self._start()

    @abstractmethod
    def _start(self) -> dict[str, Tensor]:
        """Return what every new user starts from."""

    @property
    def parameter_count(self) -> int:
        """Numbers one user's adapter holds."""
        return sum(parameter.numel() for parameter in self._parameters.values())

    def empty_state(self) -> AdapterState:
        """Return what every new user starts from."""
        return {name: tensor.clone() for name, tensor in self._empty.items()}

    def train(
        self,
        task: TrainingTask,
        previous: AdapterState | None = None,
        *,
        steps: int | None = None,
        progress: Progress | None = None,
    ) -> AdapterTrained:
        """Train one user's adapter.

        Args:
            task: what is learnt; its memory is not looked at.
            previous: the user's former adapter; None starts afresh. It is not changed.
            steps: steps to take; None means as many as a new memory's training takes on this task.
            progress: called after each step.

        Raises:
            ConfigurationError: the task holds nothing to learn from, or `steps` is under 1.
            IncompatibleMemory: `previous` is of another backbone, rank or length.
        """
        started = time.perf_counter()
        schedule = schedule_of(self._settings, self._layers, task.new, task.earlier, is_memory=False)
        total = schedule.steps if steps is None else steps
        decay_steps = self._settings.decay_steps_of(total)
        if total < 1:
            raise ConfigurationError(f"steps is at least 1, got {total}")
        sampler = self._builder.sampler(task, schedule)
        self._load(self._empty if previous is None else previous)
        parameters = list(self._parameters.values())
        optimizer = torch.optim.AdamW(parameters, lr=self._rate, betas=(0.9, 0.98), weight_decay=0.0, fused=False)
        losses: list[float] = []
        for step in range(total):
            for group in optimizer.param_groups:
                group["lr"] = self._rate * wsd_factor(step, total - decay_steps, decay_steps)
            losses.append(
                sum(
                    self._backward(rows, weight)
                    for rows, weight in sampler.next_batch().weighted(self._settings)
                    if rows
                )
            )
            nn.utils.clip_grad_norm_(parameters, self._settings.gradient_clip)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            if progress is not None:
                progress("train", step + 1, total)
        state = {name: parameter.detach().cpu().clone() for name, parameter in self._parameters.items()}
        return AdapterTrained(
            state, time.perf_counter() - started, len(losses), self.parameter_count, losses[0], losses[-1]
        )

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        state: AdapterState | None,
        *,
        max_new_tokens: int = 48,
        max_batch_tokens: int = MAX_BATCH_TOKENS,
    ) -> list[str]:
        """Answer one user's prompts greedily, all in one batch.

        Args:
            prompts: token ids, none empty.
            state: the user's adapter; None is the bare backbone.
            max_new_tokens: most tokens per answer.
            max_batch_tokens: budget of one micro-batch.
        """
        engine = self.engine_with(state)
        generations = engine.generate(prompts, max_new_tokens=max_new_tokens, max_batch_tokens=max_batch_tokens)
        return [engine.backbone.decode(generation.ids) for generation in generations]

    def engine_with(self, state: AdapterState | None) -> Engine:
        """Return an engine whose backbone carries this adapter, until the next call of this object.

        For scoring and drift.
        """
        self._load(state)
        return self._engine

    def _load(self, state: AdapterState | None) -> None:
        """Overwrite the adapter in the copy; None makes the copy the bare backbone."""
        state = self._empty if state is None else state
        found = {name: tuple(tensor.shape) for name, tensor in state.items()}
        wanted = {name: tuple(parameter.shape) for name, parameter in self._parameters.items()}
        if found != wanted:
            wrong = sorted(name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name))
            raise IncompatibleMemory(
                f"the adapter is of another backbone, rank or length: {len(wrong)} tensors differ, such as {wrong[0]}"
            )
        with torch.no_grad():
            for name, parameter in self._parameters.items():
                parameter.copy_(state[name])

    def _backward(self, examples: Sequence[Example], share: float) -> float:
        """Accumulate the gradient of one kind of rows and return its loss."""
        backbone = self._engine.backbone
        batch = ExampleBatch.of([examples], pad_id=backbone.pad_id, device=backbone.device)
        logits = self._engine.logits(batch.input_ids, positions=batch.positions)
        loss = share * mean_by_user(batch.losses(logits), batch.rows, batch.row_weights, 1).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return float(loss.detach())


def peft() -> Any:
    """Return the package PEFT.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        import peft as package
    except ImportError as error:
        raise MissingExtra.of("eval", "a peer of the tables") from error
    return package

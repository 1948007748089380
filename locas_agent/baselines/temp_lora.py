"""The LoRA peer: one PEFT adapter per user on all linear layers, taught by the lessons that teach a memory.

The same study items, negatives, rehearsal, neutral windows and anchors in the same order, the same loss and the same number of steps; what differs
is what is trained, how far a step goes, and that users are trained and asked one after another. Knows no store, no session and no admission.
"""

from __future__ import annotations

import copy
import math
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from locas_agent.backbone import Backbone
from locas_agent.config import LocasConfig
from locas_agent.curriculum import Curriculum, Lesson, rate_factor
from locas_agent.engine import MAX_BATCH_TOKENS, Engine
from locas_agent.errors import ConfigurationError, IncompatibleMemory, MissingExtra
from locas_agent.examples import Example, ExampleBatch
from locas_agent.neutral import NeutralText
from locas_agent.objectives import mean_by_user
from locas_agent.progress import Progress

LoraState = Mapping[str, Tensor]
"""One user's adapter: tensors by PEFT's parameter names, fp32, on the CPU."""

LEARNING_RATE = 2e-3
"""Peak rate of AdamW: what the prototype of the learning recipe used for adapters; a memory's own rate is five times that."""


@dataclass(frozen=True, eq=False)
class LoraTrained:
    """A trained adapter with the figures of its training.

    Attributes:
        state: the adapter; hand it to the next `train` of the same user.
        seconds: wall time of this training.
        steps: optimiser steps taken.
        parameters: numbers trained and kept per user.
        first_loss, last_loss: loss of the first and the last step, nats.
    """

    state: LoraState
    seconds: float
    steps: int
    parameters: int
    first_loss: float
    last_loss: float


class TempLora:
    """Trains and serves adapters on a private copy of a backbone, one user at a time; not for several threads.

    The adapter in the copy is overwritten at the start of every call, so nothing of one user is left for the next.
    """

    def __init__(
        self, backbone: Backbone, config: LocasConfig, neutral: NeutralText, *, rank: int = 16, learning_rate: float = LEARNING_RATE
    ) -> None:
        """Copy the backbone and put empty adapters beside all its linear layers but the output projection.

        Args:
            backbone: stays untouched, and is the teacher where an objective asks one.
            config: training settings; all but the learning rate are used.
            neutral: anchors and windows, those the memories are trained with.
            rank: of every adapter; alpha is the same number, so their scale is 1.
            learning_rate: peak rate.

        Raises:
            MissingExtra: PEFT is not installed.
            ConfigurationError: an argument is out of bounds.
        """
        if rank < 1 or not learning_rate > 0:
            raise ConfigurationError(f"rank >= 1 and learning_rate > 0, got {rank} and {learning_rate}")
        try:
            from peft import LoraConfig, get_peft_model
        except ImportError as error:
            raise MissingExtra.of("eval", "the LoRA peer") from error
        self._settings = config.training
        self._rate = learning_rate
        self._curriculum = Curriculum(Engine(backbone), config, neutral)
        own = Backbone(copy.deepcopy(backbone.model), backbone.tokenizer, name=f"{backbone.name} with LoRA")
        options: dict[str, Any] = {"r": rank, "lora_alpha": rank, "lora_dropout": 0.0, "target_modules": "all-linear", "task_type": "CAUSAL_LM"}
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():  # PEFT draws rows of its own; those of `_empty_state` replace them
            warnings.filterwarnings("ignore", message="`is_gradient_checkpointing`", category=FutureWarning)  # PEFT 0.21 asks transformers 5.23 so
            model: nn.Module = get_peft_model(own.model, LoraConfig(**options))  # layers are replaced in place: `own` carries the adapter from here
        model.eval()
        self._parameters = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        self._empty = _empty_state(self._parameters, seed=self._settings.seed)
        self._engine = Engine(own)

    @property
    def parameter_count(self) -> int:
        """Numbers one user's adapter holds."""
        return sum(parameter.numel() for parameter in self._parameters.values())

    def empty_state(self) -> LoraState:
        """Return an adapter that changes nothing: what every new user starts from."""
        return {name: tensor.clone() for name, tensor in self._empty.items()}

    def train(self, lesson: Lesson, previous: LoraState | None = None, *, steps: int | None = None, progress: Progress | None = None) -> LoraTrained:
        """Train one user's adapter.

        Args:
            lesson: what is learnt; its memory is not looked at.
            previous: the user's former adapter; None starts an empty one. It is not changed.
            steps: steps to take, where a memory's training stopped early; None means `training.max_steps`.
            progress: called after each step.

        Raises:
            ConfigurationError: the lesson holds nothing to learn from, or `steps` is under 1.
            IncompatibleMemory: `previous` belongs to another backbone or rank.
        """
        started = time.perf_counter()
        total = self._settings.max_steps if steps is None else steps
        fall = self._settings.fall_of(total)
        if total < 1:
            raise ConfigurationError(f"steps is at least 1, got {total}")
        stream = self._curriculum.stream(lesson)
        self._load(previous)
        parameters = list(self._parameters.values())
        optimizer = torch.optim.AdamW(parameters, lr=self._rate, betas=(0.9, 0.98), weight_decay=0.0, fused=False)
        losses: list[float] = []
        for step in range(total):
            for group in optimizer.param_groups:
                group["lr"] = self._rate * rate_factor(step, total - fall, fall)
            losses.append(sum(self._backward(rows, weight) for rows, weight in stream.draw().weighted(self._settings) if rows))
            nn.utils.clip_grad_norm_(parameters, self._settings.gradient_clip)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            if progress is not None:
                progress("train", step + 1, total)
        state = {name: parameter.detach().cpu().clone() for name, parameter in self._parameters.items()}
        return LoraTrained(state, time.perf_counter() - started, len(losses), self.parameter_count, losses[0], losses[-1])

    def generate(
        self, prompts: Sequence[Sequence[int]], state: LoraState | None, *, max_new_tokens: int = 48, max_batch_tokens: int = MAX_BATCH_TOKENS
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

    def engine_with(self, state: LoraState | None) -> Engine:
        """Return an engine whose backbone carries this adapter, until the next call of this object; for scoring and drift."""
        self._load(state)
        return self._engine

    def _load(self, state: LoraState | None) -> None:
        """Overwrite the adapter in the copy."""
        state = self._empty if state is None else state
        found = {name: tuple(tensor.shape) for name, tensor in state.items()}
        wanted = {name: tuple(parameter.shape) for name, parameter in self._parameters.items()}
        if found != wanted:
            wrong = sorted(name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name))
            raise IncompatibleMemory(f"the adapter does not fit this backbone and rank: {len(wrong)} tensors differ, such as {wrong[0]}")
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


def _empty_state(parameters: Mapping[str, nn.Parameter], *, seed: int) -> dict[str, Tensor]:
    """Return what PEFT starts from, A uniform and B zero, drawn from a stream of its own."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, parameter in parameters.items():
        state[name] = torch.zeros(parameter.shape)
        if ".lora_A." in name:
            nn.init.kaiming_uniform_(state[name], a=math.sqrt(5), generator=generator)
    return state

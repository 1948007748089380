"""GRPO through TRL's trainer.

A memory's rows are the policy's only trainable parameters, and the bare backbone is the reference policy.

For a memory that already recalls something: where no answer of a group earns a reward there is no gradient.
Needs the extra `grpo`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from torch import nn

from locas_agent.backbone import Backbone
from locas_agent.backbone.hooks import Intercept, reside
from locas_agent.errors import ConfigurationError, MissingExtra
from locas_agent.memory import LocasMemory, MemoryBatch
from locas_agent.memory.attach import SideFfns
from locas_agent.memory.batch import check_fits

if TYPE_CHECKING:
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

Reward = Callable[..., list[float]]
"""TRL's form: `completions`, `prompts` and the columns of the data set by name, in lists of one length; one number for
each completion."""

PARAMETER = "locas_memory"
"""Name of the trained rows among the parameters of the policy's model."""


class MemoryPolicy:
    """A private copy of a backbone with one memory attached to every forward, its rows a parameter.

    Not for several threads.

    Attributes:
        model: what a trainer of transformers or TRL is given. All parameters but `PARAMETER`, shape (L, 1, 3, W, D),
            fp32, are frozen.
        tokenizer: a copy of the backbone's.
    """

    def __init__(self, backbone: Backbone, memory: LocasMemory) -> None:
        """Copy the backbone and attach a copy of the memory; both stay as they are.

        Args:
            backbone: any; its device and dtype are the copy's.
            memory: where training starts, of this backbone.

        Raises:
            IncompatibleMemory: the memory belongs to another backbone.
        """
        check_fits(memory, backbone)
        self._start = memory
        tokenizer = copy.deepcopy(backbone.tokenizer)  # trainers set its padding
        self._own = Backbone(
            copy.deepcopy(backbone.model), tokenizer, name=f"{backbone.name} with a memory in training"
        )
        self._rows = nn.Parameter(memory.slab.detach()[:, None].to(backbone.device, copy=True))  # (L, 1, 3, W, D)
        self._scale = memory.scale.detach()[:, None].to(backbone.device)  # (L, 1)
        self._is_on = True
        self.model: Any = self._own.model
        self.tokenizer: Any = tokenizer
        self.model.register_parameter(PARAMETER, self._rows)
        # The decoder's forward, not the whole model's: TRL's fused head calls the decoder past the model's own forward.
        reside(self._own.decoder, self._own.hook_key, self._side_ffns)

    @contextmanager
    def off(self) -> Iterator[None]:
        """Make the model the bare backbone inside the block."""
        before, self._is_on = self._is_on, False
        try:
            yield
        finally:
            self._is_on = before

    def memory(self) -> LocasMemory:
        """Return the memory as it is trained so far, clipped, on the CPU; not part of the graph."""
        return replace(
            self._start,
            slab=self._rows.detach()[:, 0].cpu().clone(),
            scale=self._start.scale.cpu(),
            neuron_indices=self._start.neuron_indices.cpu(),
        ).clipped()

    def reference(self) -> nn.Module:
        """Return the memory-off policy as a module that is called like `model`.

        It holds no second copy of the weights.
        """
        return _Off(self)

    def _side_ffns(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Intercept | None:
        """Return what a forward of these arguments carries.

        The memory for each of its rows, or nothing while it is off.
        """
        if not self._is_on:
            return None
        given = (*args, kwargs.get("input_ids"), kwargs.get("inputs_embeds"))
        return SideFfns(self._batch(next(each for each in given if each is not None).shape[0]), self._own.sites)

    def _batch(self, rows: int) -> MemoryBatch:
        scale = self._scale.to(self._rows.device)
        return MemoryBatch.training(self._rows, scale, self._own, rows_per_memory=rows, layers=self._start.layers)


class _Off(nn.Module):
    def __init__(self, policy: MemoryPolicy) -> None:
        super().__init__()
        self._policy = policy  # no module itself, so its parameters do not occur twice

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the policy's model without the memory."""
        with self._policy.off():
            return self._policy.model(*args, **kwargs)


def memory_trainer(
    policy: MemoryPolicy, rewards: Reward | list[Reward], args: GRPOConfig, data: Dataset, **options: Any
) -> GRPOTrainer:
    """Build TRL's GRPO trainer for a memory. Call its `train()`, then take `policy.memory()`.

    With G answers to a prompt, rewards R_i and p_off the bare backbone, TRL's loss of one token is

        - (p / p_old) (R_i - mean R) / std R  +  beta (p_off / p - log(p_off / p) - 1)

    the first term clipped. Right answers are what the bare backbone does not know, so the second term pulls away from
    them: `beta` is small, about 0.001 to 0.01, and 0 leaves the reference out.

    Args:
        policy: what is trained.
        rewards: functions that score completions.
        args: TRL's settings. Two of its defaults have to be changed: `activation_checkpointing=False`,
            `save_strategy="no"`.
        data: a column `prompt`, and what the rewards look at.
        **options: more arguments of `GRPOTrainer`, such as callbacks.

    Raises:
        MissingExtra: TRL is not installed.
        ConfigurationError: a setting under which another policy than this one would be trained, sampled or written.
    """
    try:
        from trl import GRPOTrainer
    except ImportError as error:
        raise MissingExtra.of("grpo", "GRPO on a memory") from error
    _check(args)
    # TRL loads a reference by the name in the model's config when beta is not 0; ours is the same weights with the
    # memory off.
    settings = copy.copy(args)
    settings.beta = 0.0
    trainer = GRPOTrainer(
        model=policy.model,
        reward_funcs=rewards,
        args=settings,
        train_dataset=data,
        processing_class=policy.tokenizer,
        **options,
    )
    if args.beta != 0.0:
        trainer.ref_model = policy.reference()
        trainer.beta = settings.beta = args.beta
    return trainer


def _check(args: GRPOConfig) -> None:
    """Raise unless the settings keep the memory in every forward and its rows off the disk."""
    reasons = {
        "activation_checkpointing": "the backward would run the layers again without the memory",
        "use_vllm": "another process would answer without the memory",
        "use_transformers_continuous_batching": "the memory's rows would be cast to half precision",
        "sync_ref_model": "the reference is the bare backbone",
    }
    for name, reason in reasons.items():
        if getattr(args, name):
            raise ConfigurationError(f"{name}=True does not go with a memory ({reason}); set it to False")
    if args.save_strategy != "no":
        raise ConfigurationError(
            f"save_strategy={str(args.save_strategy)!r} would write the memory, personal data, into checkpoints of the "
            "whole backbone; "
            "set it to 'no' and export policy.memory()"
        )
    if args.world_size > 1:
        raise ConfigurationError(f"a memory is trained in one process, got {args.world_size}")

"""The LoRA peer: one PEFT adapter per user on all linear layers, trained on the tasks that train a memory."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from locas_agent.backbone import Backbone
from locas_agent.config import LocasConfig
from locas_agent.errors import ConfigurationError
from locas_agent.evaluation.baselines.peer import AdapterPeer, peft
from locas_agent.training.neutral import NeutralText

LEARNING_RATE = 2e-3
"""Peak rate of AdamW: what the prototype of the learning recipe used for adapters; a memory's own rate is five times
that."""


class TempLora(AdapterPeer):
    """Adapters beside all linear layers but the output projection. An empty one changes nothing."""

    def __init__(
        self,
        backbone: Backbone,
        config: LocasConfig,
        neutral: NeutralText,
        *,
        rank: int = 16,
        learning_rate: float = LEARNING_RATE,
    ) -> None:
        """Copy the backbone and put empty adapters into the copy.

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
        if rank < 1:
            raise ConfigurationError(f"rank is at least 1, got {rank}")
        adapter = peft().LoraConfig(
            r=rank, lora_alpha=rank, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM"
        )
        super().__init__(backbone, config, neutral, adapter, learning_rate=learning_rate)

    def _start(self) -> dict[str, Tensor]:
        """Return what PEFT starts from, A uniform and B zero, drawn from a stream of its own."""
        generator = torch.Generator().manual_seed(self._settings.seed)
        state = {}
        for name, parameter in self._parameters.items():
            state[name] = torch.zeros(parameter.shape)
            if ".lora_A." in name:
                nn.init.kaiming_uniform_(state[name], a=math.sqrt(5), generator=generator)
        return state

"""What `eval pg19` can be asked for, and the two sets of settings it is run with."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from locas_agent.config import Layers
from locas_agent.types import LinearLayers, NeuronChoice, ScaleRule

Arm = Literal["none", "temp_lora", "locas"]
ARMS: tuple[Arm, ...] = ("none", "temp_lora", "locas")


class StepSettings(BaseModel):
    """How one arm learns a chunk after it has been scored: AdamW without weight decay, gradients clipped at norm 1."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    steps: int = Field(default=1, ge=1)
    """Optimiser steps on each chunk."""
    rate: float = Field(gt=0)
    """Learning rate; constant after the warm-up."""
    warmup_chunks: int = Field(default=0, ge=0)
    """Chunks over which the rate rises from 0; 0 starts at the full rate."""
    eps: float = Field(default=1e-8, gt=0)
    """AdamW's epsilon."""


class LocasSettings(StepSettings):
    """The memory's."""

    rate: float = Field(default=1e-2, gt=0)
    """Learning rate; chosen with the scale on a book that is not reported, see docs/results.md."""
    width: int = Field(default=64, ge=1)
    """Slots per layer; the paper's main setting."""
    layers: Layers = "all"
    """Beside which layers it stands, as `MemorySettings.layers`; all, as in the paper. No gradient goes below the
    lowest of them: a step beside the upper layers alone costs less."""
    initialization: NeuronChoice = "highest"
    """Where gate and up rows come from; "random" are Gaussian rows, the others clones."""
    scale: ScaleRule = "none"
    """What the output scale is divided by: the width (the paper's), its root, or nothing; chosen with the rate."""


class LoraSettings(StepSettings):
    """The adapter's."""

    rate: float = Field(default=3e-3, gt=0)
    """Learning rate; chosen on the same text as the memory's."""
    rank: int = Field(default=64, ge=1)
    """Of every adapter; alpha is the same number."""
    beside: LinearLayers = "all"
    """Which linear layers have one; a memory stands beside the FFNs, and changes no attention."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """On an adapter's input while it learns; above 0 the first step cannot reuse the forward that scored."""


class Pg19Options(BaseModel):
    """One run."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    arms: tuple[Arm, ...] = ARMS
    """What is measured, each on every book."""
    window_tokens: int = Field(default=1024, ge=1)
    """Tokens before a chunk that every arm sees, at most."""
    stride_tokens: int = Field(default=1024, ge=1)
    """Tokens of a chunk."""
    max_tokens: int | None = Field(default=None, ge=2)
    """Only so many tokens from the beginning of each book; None reads it whole."""
    seed: int = Field(default=0, ge=0)
    """Of random rows, adapters and dropout."""
    locas: LocasSettings = LocasSettings()
    """How the memory learns."""
    temp_lora: LoraSettings = LoraSettings()
    """How the adapter learns."""

    @model_validator(mode="after")
    def _each_arm_once(self) -> Self:
        if not self.arms or len(set(self.arms)) != len(self.arms):
            raise ValueError(
                f"arms names each of {', '.join(ARMS)} at most once and one at least, got "
                f"{', '.join(self.arms) or 'none of them'}"
            )
        return self

    def about(self, arm: Arm) -> dict[str, object]:
        """Return the options on which an arm's figures depend; those of another arm change nothing."""
        shared = self.model_dump(include={"window_tokens", "stride_tokens", "max_tokens"})
        match arm:
            case "none":
                return shared
            case "temp_lora":
                return shared | {"seed": self.seed} | self.temp_lora.model_dump()
            case "locas":
                return shared | {"seed": self.seed} | self.locas.model_dump()


PAPER_LOCAS = LocasSettings(rate=1e-3, scale="width")
"""One step on each chunk at the rate of the reference implementation's example. Steps are not stated there: one fits
the times that are."""
PAPER_LORA = LoraSettings(rate=5e-5, steps=2, warmup_chunks=2, eps=1e-7, dropout=0.05)
"""The defaults of the Temp-LoRA repository. Its training prefix of 3,072 tokens is not among them here: every arm sees
the same window."""

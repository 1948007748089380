"""What a memory is before its training: a user's former one, or a new one, with slots for what is new.

Where rows start from inputs, a slot answers to the input of an FFN just before an answer, and changes nothing yet.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, zip_longest
from random import Random

import torch
from torch import Tensor

from locas_agent.config import LocasConfig
from locas_agent.inference import Engine
from locas_agent.memory import LocasMemory
from locas_agent.memory.placement import LAST_LAYER, placement
from locas_agent.study.items import NEGATIVE, PROBE, fact_of
from locas_agent.training.examples import Example
from locas_agent.training.initialization import (
    COMMON_INPUTS,
    Method,
    empty_memory,
    ffn_inputs,
    initialize_many,
    special_directions,
)
from locas_agent.training.loss.local_anchor import neutral_inputs
from locas_agent.training.neutral import NeutralText
from locas_agent.training.sampling.builder import TrainingTask
from locas_agent.training.sampling.question_rows import question_example
from locas_agent.training.schedule import MOST_SLOTS, SLOTS_OF, SLOTS_PER_FACT

DEFAULT_WIDTH = 48
"""Slots per layer of a new memory where the settings name none and the FFN has as many neurons."""


class StartingMemories:
    """Makes them, for one backbone and one configuration."""

    def __init__(self, engine: Engine, config: LocasConfig, neutral: NeutralText) -> None:
        """Take the parts.

        Args:
            engine: runs the backbone.
            config: where memories stand, how wide they are and how their rows start.
            neutral: text that slots do not answer to.
        """
        self._engine = engine
        self._backbone = engine.backbone
        self._config = config
        self._neutral = neutral

    def of(self, tasks: Sequence[TrainingTask]) -> list[LocasMemory]:
        """Return each task's former memory, or a new one.

        Where rows start from inputs, both get slots for what is new; else a new one is cloned from the neurons its own
        text activates, or neutral text without any, or has Gaussian rows.
        """
        placed = placement(self._config.memory.layers, self._backbone.n_layers)
        if self._starts_from_inputs(placed):
            made = [self._empty(placed) if task.memory is None else task.memory for task in tasks]
            return [
                self._with_slots(memory, task) if memory.initialization == "inputs" else memory
                for memory, task in zip(made, tasks, strict=True)
            ]
        fresh = [index for index, task in enumerate(tasks) if task.memory is None]
        texts = [
            [self._backbone.encode_chat(chunk.messages, generation_prompt=False) for chunk in tasks[index].chunks]
            or [[*example.prompt, *example.target] for example in self._neutral.anchors]
            for index in fresh
        ]
        settings = self._config.memory
        wanted = settings.initialization
        method: Method = "random" if wanted is None or wanted == "inputs" else wanted
        made = initialize_many(
            self._backbone,
            texts,
            width=min(DEFAULT_WIDTH, self._backbone.ffn_width) if settings.width is None else settings.width,
            layers=placed,
            method=method,
            scale_rule=settings.scale_rule,
            seed=self._config.training.seed,
        )
        new = dict(zip(fresh, made, strict=True))
        return [new[index] if task.memory is None else task.memory for index, task in enumerate(tasks)]

    def _starts_from_inputs(self, layers: tuple[int, ...]) -> bool:
        wanted = self._config.memory.initialization
        is_asked = self._config.training.objective == "self_study"  # without questions there are no such inputs
        return is_asked and (wanted == "inputs" or (wanted is None and layers != LAST_LAYER))

    def _empty(self, layers: tuple[int, ...]) -> LocasMemory:
        settings = self._config.memory
        width = min(SLOTS_OF, self._backbone.ffn_width) if settings.width is None else settings.width
        return empty_memory(self._engine, layers, width=width, scale_rule=settings.scale_rule)

    def _with_slots(self, memory: LocasMemory, task: TrainingTask) -> LocasMemory:
        """Give a memory slots that answer to the task's new questions, some for each fact."""
        rng = Random(f"{self._config.training.seed}:slots")
        by_fact: dict[object, list[Example]] = {}
        for item in task.new:
            if item.kind not in (PROBE, NEGATIVE):
                by_fact.setdefault(fact_of(item), []).append(question_example(self._backbone, item))
        most = MOST_SLOTS - memory.width if self._config.memory.width is None else memory.width
        slots = min(most, -(-SLOTS_PER_FACT * len(by_fact) // SLOTS_OF) * SLOTS_OF)
        if slots < 1 or not by_fact:
            return memory
        chosen = [example for examples in by_fact.values() for example in rng.sample(examples, min(2, len(examples)))]
        ends = list(accumulate(example.n_scored for example in chosen))
        places = [[*range(end - example.n_scored, end)] for example, end in zip(chosen, ends, strict=True)]
        order = [at for turn in zip_longest(*(rng.sample(own, len(own)) for own in places)) for at in turn]
        picked = [at for at in order if at is not None][:slots]  # one position of each example after the other
        inputs = ffn_inputs(self._engine, chosen, memory.layers)
        common = self._common_inputs(memory.layers)
        rows = [special_directions(inputs[layer][picked], common[layer]) for layer in memory.layers]
        return memory.with_slots(torch.stack(rows), grows=self._config.memory.width is None)

    def _common_inputs(self, layers: tuple[int, ...]) -> dict[int, Tensor]:
        """What enters FFNs on neutral text, as many positions of each layer as are compared with."""
        ends = accumulate(example.n_scored for example in self._neutral.anchors)
        end = next((end for end in ends if end >= COMMON_INPUTS), None)
        known = neutral_inputs(self._engine, self._neutral, layers)
        return {layer: known[layer][:end] for layer in layers}

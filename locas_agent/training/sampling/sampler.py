"""Draws of one task without end: each batch is what one step looks at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Generic, TypeVar

from locas_agent.config import TrainingSettings
from locas_agent.training.examples import Example
from locas_agent.training.schedule import Schedule

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class StepBatch:
    """One user's rows of one step.

    Attributes:
        standalone: items asked without anything before them, or all of them behind one beginning; the same number in
            every batch.
        in_conversation: one row of items asked behind a window, as in a running conversation; none where the settings
            ask for none.
        anchors: one row of neutral text.
        anchor_weight: its weight.
    """

    standalone: list[Example]
    in_conversation: list[Example]
    anchors: list[Example]
    anchor_weight: float

    def weighted(self, settings: TrainingSettings) -> tuple[tuple[list[Example], float], ...]:
        """Return each kind of rows with its weight in the loss; a kind may be empty."""
        return (
            (self.standalone, 1.0),
            (self.in_conversation, settings.window_weight),
            (self.anchors, self.anchor_weight),
        )

    @property
    def examples(self) -> list[Example]:
        """All rows."""
        return [*self.standalone, *self.in_conversation, *self.anchors]

    @property
    def n_tokens(self) -> int:
        """Tokens of all rows."""
        return sum(example.n_tokens for example in self.examples)


class ExampleSampler:
    """Draws endless batches that cover one task evenly."""

    def __init__(
        self,
        settings: TrainingSettings,
        schedule: Schedule,
        items: ItemCycles[Example],
        groups: ShuffledCycle[list[Example]],
        in_conversation: ShuffledCycle[Example],
        anchors: ShuffledCycle[Example],
    ) -> None:
        self._settings = settings
        self._schedule = schedule
        self._drawn = 0
        self._items, self._groups, self._in_conversation, self._anchors = items, groups, in_conversation, anchors

    @property
    def examples(self) -> list[Example]:
        """Everything that may be drawn."""
        together = [example for group in self._groups.elements for example in group]
        return [*self._items.elements, *together, *self._in_conversation.elements, *self._anchors.elements]

    def next_batch(self) -> StepBatch:
        """Return the rows of the next step."""
        items, schedule, settings = self._step_items(), self._schedule, self._settings
        is_in_conversation = (
            self._in_conversation.elements and settings.window_weight and self._drawn % schedule.window_every == 0
        )
        every = schedule.anchor_every
        is_neutral = self._anchors.elements and schedule.anchor_weight and self._drawn % every == every // 2
        in_conversation = [self._in_conversation.take()] if is_in_conversation else []
        anchors = [self._anchors.take()] if is_neutral else []
        self._drawn += 1
        return StepBatch(items, in_conversation, anchors, schedule.anchor_weight)

    def _step_items(self) -> list[Example]:
        every = self._schedule.group_every
        if self._groups.elements and self._drawn % every == every - 1:
            return self._groups.take()
        return [self._items.take() for _ in range(self._schedule.items_per_step)]


class ItemCycles(Generic[T]):
    """New items, rehearsed ones and questions never answered, drawn by the shares of a schedule."""

    def __init__(
        self,
        schedule: Schedule,
        fresh: Sequence[T],
        rehearsed: Sequence[T],
        negative: Sequence[T],
        rng: Random,
    ) -> None:
        self._schedule = schedule
        self._fresh, self._rehearsed, self._negative = (
            ShuffledCycle(each, rng) for each in (fresh, rehearsed, negative)
        )
        self._rng = rng

    @property
    def elements(self) -> list[T]:
        """Everything that may be drawn."""
        return [*self._fresh.elements, *self._rehearsed.elements, *self._negative.elements]

    def take(self) -> T:
        """Return the next item."""
        share, kind = self._schedule.negative_share, self._rng.random()
        if kind < share and self._negative.elements:
            return self._negative.take()
        if self._rehearsed.elements and (not self._fresh.elements or kind < share + self._schedule.rehearsal_share):
            return self._rehearsed.take()
        return self._fresh.take()


class ShuffledCycle(Generic[T]):
    """Walks through a list again and again, shuffled again each time, so that every element comes equally often."""

    def __init__(self, elements: Sequence[T], rng: Random) -> None:
        self.elements = list(elements)
        self._rng = rng
        self._queue: list[T] = []

    def take(self) -> T:
        """Return the next element."""
        if not self._queue:
            self._queue = self._rng.sample(self.elements, len(self.elements))
        return self._queue.pop()

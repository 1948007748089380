"""What one consolidation measured: `ConsolidationMetrics`, kept as JSON with the revision that it made.

Every record takes keys that it does not know: a revision of a newer or an older version is read, its other keys are
kept in `model_extra` and written back as they were, and so is a known key that holds another type.
"""

import math
from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, ValidationError, model_serializer

from locas_storage.errors import InvalidRevision
from locas_storage.records.bounds import plain_json


class _Figures(BaseModel):
    """Figures under their names; one that was not measured is None and has no key in the JSON."""

    model_config = ConfigDict(frozen=True, extra="allow", use_attribute_docstrings=True)

    @model_serializer(mode="wrap")
    def _given(self, serialized: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what was not given, and write a number that is not finite as its name: JSON has none."""
        given = self.model_fields_set | set(self.model_extra or ())
        return {
            name: str(value) if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in serialized(self).items()
            if name in given
        }


class MemoryMetrics(_Figures):
    """What a memory answers, and how far it moves neutral text."""

    new_recall: float | None = None
    """Share of the new, trained items answered, 0 to 1; None without items."""
    probe_recall: float | None = None
    """Share of the new, held-out wordings answered, 0 to 1; None without probes."""
    earlier_recall: float | None = None
    """Share of the items of earlier sessions that still hold and are answered, 0 to 1; None without any."""
    drift_nats: float | None = None
    """Mean KL(bare backbone || with memory) per token of neutral text, nats."""
    drift_p99_nats: float | None = None
    """Its 99th percentile over tokens, nats."""


class CoverageMetrics(_Figures):
    """How well the study set covers the turns, in turns unless said otherwise."""

    turns: int | None = None
    """Turns that may be asked about."""
    carrying: int | None = None
    """Turns the backbone found something to ask about."""
    covered: int | None = None
    """Of these, turns with at least one kept item."""
    nothing: int | None = None
    """Turns about which the backbone said that there is nothing to remember."""
    sampled: int | None = None
    """Questions sampled."""
    dropped: int | None = None
    """Items that no store would take, left out before anything was trained."""
    share: float | None = None
    """Covered turns among those that carry a fact, 0 to 1; 1.0 when none does."""


class NormMetrics(_Figures):
    """The norms of a memory's rows."""

    mean_down_norm: float | None = None
    """Mean norm of the down rows."""
    mean_gate_up_norm: float | None = None
    """Mean norm of the gate and up rows."""
    clipped_share: float | None = None
    """Share of rows at the clip, 0 to 1."""


class ConsolidationMetrics(_Figures):
    """Everything that one consolidation measured.

    A refused consolidation has the same figures as an admitted one. One that found nothing to remember trained nothing
    and has none of the training.
    """

    before: MemoryMetrics | None = None
    """The former memory, or the bare backbone, on the questions of this consolidation."""
    after: MemoryMetrics | None = None
    """The trained memory on the same questions."""
    steps: int | None = None
    """Steps of the training."""
    tokens: int | None = None
    """Tokens trained on."""
    train_seconds: float | None = None
    """How long the training took."""
    first_loss: float | None = None
    """Loss of the first step; not finite where the training diverged."""
    last_loss: float | None = None
    """Loss of the last step."""
    restarts: int | None = None
    """How often the training began again with a smaller learning rate."""
    learning_rate: float | None = None
    """The learning rate of the training that was kept."""
    trainings: int | None = None
    """How many trainings it took: a second one rehearses more, where the first forgot."""
    coverage: CoverageMetrics | None = None
    """What was asked about."""
    items: int | None = None
    """Study items kept."""
    retired_items: int | None = None
    """Study items of earlier consolidations that hold no longer."""
    study_seconds: float | None = None
    """How long writing the study set took, the share of one user."""
    seed: int | None = None
    """Seed of the training."""
    left_out_turns: int | None = None
    """Turns that the backbone cannot read."""
    norms: NormMetrics | None = None
    """The rows of the memory."""
    forms: dict[str, Any] | None = None
    """How the backbone was asked, as JSON of `Chosen`."""
    config: dict[str, Any] | None = None
    """The settings that made the revision, as JSON of `LocasConfig`."""
    imported: dict[str, Any] | None = None
    """For a revision that `import_memory` made: what the export says about itself."""

    @classmethod
    def of(cls, figures: Mapping[str, Any]) -> Self:
        """Return figures that are given as plain JSON; unknown keys are kept.

        Raises:
            InvalidRevision: they are not plain JSON, or a known key holds another type.
        """
        try:
            return cls.model_validate(plain_json("metrics", figures))
        except ValidationError as error:
            wrong = ", ".join(".".join(map(str, each["loc"])) for each in error.errors(include_input=False))
            raise InvalidRevision(
                f"metrics: another type than expected under {wrong}; see ConsolidationMetrics"
            ) from None

    @classmethod
    def stored(cls, figures: Mapping[str, Any]) -> Self:
        """Return figures as they stand in a store, whichever version wrote them.

        A known key that holds another type reads as None; its value is kept in `model_extra` with the unknown ones.
        """
        try:
            return cls.model_validate(figures)
        except ValidationError as error:
            other = {str(each["loc"][0]) for each in error.errors(include_input=False)}
        made = cls.model_validate({name: value for name, value in figures.items() if name not in other})
        assert made.model_extra is not None
        made.model_extra.update({name: value for name, value in figures.items() if name in other})
        return made

    def __eq__(self, other: object) -> bool:
        """Compare the JSON: a loss that is not a number equals itself."""
        return isinstance(other, ConsolidationMetrics) and self.as_json() == other.as_json()

    def as_json(self) -> dict[str, Any]:
        """Return the figures that were given, as plain JSON: nothing for one that was not measured.

        Raises:
            InvalidRevision: an unknown key holds something that is not plain JSON.
        """
        return plain_json("metrics", self.model_dump())

"""What a backbone can read and write: the result of the measurement, as reports, files and settings have it."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from locas_agent.study.forms.reading import READING_FORMS, ReadingForm
from locas_agent.study.forms.writing import SEED, WRITING_FORMS, WritingForm

GOOD_READER = 0.9
"""Share of the questions that a backbone has to read right from one turn, from which study asks it as well. Origin:
`docs/decisions.md`, a backbone that reads well."""
VERSION = 1
"""Of the measurement: of its talk, its forms and its scoring. What was measured by another is measured again."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ReadingScore(_Record):
    """How often a form brings the right answer, 0..1: from the turn that tells it, and from all turns of a session."""

    form: str
    near: float
    wide: float


class WritingScore(_Record):
    """What a form of writing gives: the share of samples that became items, and of told facts that got one, 0..1."""

    form: str
    kept: float
    covered: float


class Chosen(_Record):
    """What study uses on a backbone.

    Attributes:
        near: form of reading one turn, or a few.
        wide: form of reading a session.
        writing: forms of writing, the best first; `seed` alone is the protocol of the bundled backbone.
        min_confidence: least mean probability of the tokens of an answer that is believed.
    """

    near: str
    wide: str
    writing: tuple[str, ...] = Field(min_length=1)
    min_confidence: float = Field(ge=0, lt=1)

    @property
    def unknown(self) -> tuple[str, ...]:
        """Names that stand in no table of forms, and `seed` where it does not stand alone."""
        reading = [name for name in dict.fromkeys((self.near, self.wide)) if name not in READING_FORMS]
        writing = [name for name in self.writing if name not in WRITING_FORMS]
        return (*reading, *(() if writing == [SEED] and len(self.writing) == 1 else writing))


class Calibration(_Record):
    """The measurement of one backbone."""

    version: int = VERSION
    fingerprint: str
    dtype: str
    reading: tuple[ReadingScore, ...] = ()
    writing: tuple[WritingScore, ...] = ()
    chosen: Chosen
    seconds: float = 0.0

    @property
    def near(self) -> ReadingForm:
        """The form in which one turn is read."""
        return READING_FORMS[self.chosen.near]

    @property
    def wide(self) -> ReadingForm:
        """The form in which a session is read."""
        return READING_FORMS[self.chosen.wide]

    @property
    def good_reader(self) -> ReadingForm | None:
        """The form in which one turn is read, where that is done well enough to judge what others write about it."""
        share = next((score.near for score in self.reading if score.form == self.chosen.near), 0.0)
        return self.near if share >= GOOD_READER else None

    @property
    def writers(self) -> tuple[WritingForm, ...]:
        """The opened forms of writing, the best first; none where the backbone speaks the seed protocol."""
        return tuple(WRITING_FORMS[name] for name in self.chosen.writing if name != SEED)

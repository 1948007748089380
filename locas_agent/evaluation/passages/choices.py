"""What can be chosen for `eval passages`, and the arms there are."""

from __future__ import annotations

from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field

ARMS = {
    "none": "nothing in the prompt, no memory",
    "raw_text": "a memory of the passage, trained on its text by next-token loss",
    "memory": "a memory of the passage, as the settings learn it",
    "memory_all": "one memory of all passages, learnt at once",
    "context": "the passage in the prompt (the ceiling)",
}
"""What each arm has."""


class ToldAs(StrEnum):
    """What one turn of the user holds."""

    SENTENCES = "sentences"
    PASSAGES = "passages"


class PassagesLeftOut(StrEnum):
    """Arms that can be left out."""

    RAW_TEXT = "raw_text"
    MEMORY_ALL = "memory_all"


class PassagesOptions(BaseModel):
    """What is evaluated."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    limit: int | None = Field(None, ge=1)
    """Only so many passages, drawn by the seed."""
    seed: int = Field(0, ge=0)
    """Draws the passages and their order, and the neutral text that drift is measured on."""
    sequence: int | None = Field(None, ge=2)
    """Learn the first so many of the passages one after another in one memory, and ask after each."""
    told_as: ToldAs = ToldAs.SENTENCES
    """What one turn holds: questions are written about each turn."""
    short: bool = False
    """Ask for a few words in every arm."""
    without: tuple[PassagesLeftOut, ...] = ()
    """Arms that are not learnt or asked."""

"""What an answer about a LoCoMo conversation is, and the forms in which a question is put."""

from __future__ import annotations

from dataclasses import dataclass

OPEN = "open"
"""The question as it is, answered freely."""
TRAP_FIRST, TRAP_SECOND = "trap first", "trap second"
"""Category 5 with two answers to choose from, in either order."""

Place = tuple[str, int, str, str]
"""Conversation, number of the question, arm, form."""


@dataclass(frozen=True, slots=True)
class Given:
    """One answer."""

    dialogue: str
    question: int
    arm: str
    form: str
    answer: str
    prompt_tokens: int

    @property
    def place(self) -> Place:
        """What it answers."""
        return (self.dialogue, self.question, self.arm, self.form)

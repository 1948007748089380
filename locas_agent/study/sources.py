"""Who may be learnt from: which turns the teacher reads, and about which of them it asks.

A policy over what a turn says of itself, its role, its name and its label `trust`; nothing is guessed from its text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from locas_agent.config import SourceSettings
from locas_storage import Turn


@dataclass(frozen=True, slots=True)
class Sources:
    """The policy, applied to one span of turns."""

    settings: SourceSettings
    is_among_people: bool
    """Whether the user's turns carry names: then a named turn of the assistant is another person's."""

    @classmethod
    def of(cls, turns: Sequence[Turn], settings: SourceSettings) -> Sources:
        """Look at who speaks in a span."""
        return cls(settings, settings.named_speakers and any(turn.role == "user" and turn.name for turn in turns))

    def may_be_read(self, turn: Turn) -> bool:
        """Tell whether the teacher may have a turn before it at all."""
        return turn.trust in (*self.settings.user, *self.settings.assistant, *self.settings.context)

    def may_be_learnt(self, turn: Turn) -> bool:
        """Tell whether the teacher may ask about a turn, and so keep what it says as a fact."""
        if turn.role == "assistant" and not (turn.name and self.is_among_people):
            return turn.trust in self.settings.assistant
        return turn.role in ("user", "assistant") and turn.trust in self.settings.user

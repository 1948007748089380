"""When to consolidate: a pure decision over what is pending.

It is told what it needs. It imports no torch: an import contract holds that, so that commands start without it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from locas_agent.config import PolicySettings


@dataclass(frozen=True, slots=True)
class Pending:
    """The overflow of one user: turns that left the window and are not learnt yet."""

    turns: int
    """How many."""
    tokens: int
    """Their tokens."""
    oldest_age_seconds: float
    """Time since the oldest of them was said."""
    gap_seconds: float
    """Longest silence before a turn that came after the oldest pending one, the newest turn included."""
    refused_tokens: int = 0
    """Tokens that were pending when the last consolidation was refused; 0 when none was since the last revision."""


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether to consolidate now, and why, in one word."""

    is_due: bool
    reason: Literal[
        "manual",
        "nothing pending",
        "refused before",
        "too little",
        "overflow tokens",
        "overflow turns",
        "age",
        "session ended",
        "below every limit",
    ]


def decide(pending: Pending, settings: PolicySettings) -> Decision:
    """Decide whether the pending overflow is to be learnt now.

    After a refusal the overflow must double before the next automatic attempt, so that a backbone which cannot learn a
    text costs at most twice the work of one that can.
    """
    if not settings.automatic:
        return Decision(False, "manual")
    if pending.turns == 0:
        return Decision(False, "nothing pending")
    if pending.refused_tokens and pending.tokens < 2 * pending.refused_tokens:
        return Decision(False, "refused before")
    if pending.tokens >= settings.overflow_tokens:
        return Decision(True, "overflow tokens")
    if pending.turns >= settings.overflow_turns:
        return Decision(True, "overflow turns")
    if pending.tokens < settings.min_overflow_tokens:
        return Decision(False, "too little")
    if pending.oldest_age_seconds >= settings.max_age_seconds:
        return Decision(True, "age")
    if pending.gap_seconds >= settings.session_gap_seconds:
        return Decision(True, "session ended")
    return Decision(False, "below every limit")

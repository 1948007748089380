"""When overflow is consolidated: a pure decision."""

from __future__ import annotations

import pytest

from locas_agent.config import PolicySettings
from locas_agent.consolidation.policy import Pending, decide

SETTINGS = PolicySettings(
    overflow_tokens=100, overflow_turns=10, max_age_seconds=1000, session_gap_seconds=50, min_overflow_tokens=20
)


@pytest.mark.parametrize(
    ("pending", "due", "reason"),
    [
        (Pending(0, 0, 0, 0), False, "nothing pending"),
        (Pending(3, 100, 0, 0), True, "overflow tokens"),
        (Pending(3, 99, 0, 0), False, "below every limit"),
        (Pending(10, 30, 0, 0), True, "overflow turns"),
        (Pending(9, 30, 1000, 0), True, "age"),
        (Pending(9, 30, 999, 50), True, "session ended"),
        (Pending(9, 30, 999, 49), False, "below every limit"),
        (Pending(2, 19, 5000, 5000), False, "too little"),
        (Pending(3, 199, 0, 0, refused_tokens=100), False, "refused before"),
        (Pending(3, 200, 0, 0, refused_tokens=100), True, "overflow tokens"),
    ],
)
def test_each_limit_decides_at_its_bound(pending: Pending, due: bool, reason: str) -> None:
    decision = decide(pending, SETTINGS)
    assert (decision.is_due, decision.reason) == (due, reason)


def test_manual_policy_never_fires() -> None:
    assert not decide(Pending(1000, 10**6, 10**9, 10**9), PolicySettings(automatic=False)).is_due


def test_refused_overflow_costs_at_most_twice_the_work() -> None:
    """A text that is always refused is tried at 100, 200, 400 ... tokens.

    The sum of all attempts is under twice the text.
    """
    refused, worked = 0, 0
    for tokens in range(10, 5001, 10):
        if decide(Pending(1, tokens, 0, 0, refused_tokens=refused), SETTINGS).is_due:
            refused, worked = tokens, worked + tokens
    assert worked > 0
    assert worked <= 2 * 5000

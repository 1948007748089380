"""The admission gate's decision, case by case. Figures are given, no model runs."""

from __future__ import annotations

import math

import pytest

from locas_agent.config import AdmissionSettings
from locas_agent.consolidation.admission import Measurement, admit

SETTINGS = AdmissionSettings(min_gain=0.05, max_old_loss=0.1, max_drift_nats=0.05)
BEFORE = Measurement(0.0, 0.0, 1.0, 0.0, 0.0)
GOOD = Measurement(1.0, 0.9, 0.95, 0.02, 0.1)
UNASKED = Measurement(None, None, None, 0.02, 0.1)
"""Of objectives that ask nothing."""


def reason(after: Measurement, before: Measurement = BEFORE, *, is_finite: bool = True) -> str:
    decision = admit(before, after, is_finite=is_finite, settings=SETTINGS)
    assert decision.admitted == (decision.reason == "admitted")
    return decision.reason


def test_a_memory_that_helps_and_harms_nothing_is_admitted() -> None:
    assert reason(GOOD) == "admitted"
    assert reason(UNASKED, UNASKED) == "admitted"


def test_one_that_knew_it_already_need_not_gain() -> None:
    assert reason(Measurement(1.0, 1.0, 1.0, 0.02, 0.1), Measurement(1.0, 1.0, 1.0, 0.01, 0.1)) == "admitted"


@pytest.mark.parametrize(
    ("after", "why"),
    [
        (Measurement(1.0, 0.9, 0.95, 0.06, 0.1), "drift"),
        (Measurement(1.0, 0.9, 0.95, math.nan, math.nan), "drift"),
        (Measurement(1.0, 0.9, 0.95, math.inf, math.inf), "drift"),
        (Measurement(None, None, None, math.nan, math.nan), "drift"),
        (Measurement(1.0, 0.9, 0.8, 0.02, 0.1), "forgets"),
        (Measurement(0.04, 0.04, 1.0, 0.02, 0.1), "no gain"),
    ],
)
def test_anything_less_is_refused_with_the_reason(after: Measurement, why: str) -> None:
    assert reason(after) == why


def test_rows_that_are_not_finite_are_refused_whatever_they_answer() -> None:
    assert reason(GOOD, is_finite=False) == "diverged"

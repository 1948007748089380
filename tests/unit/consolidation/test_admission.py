"""The admission gate's decision, case by case. Figures are given, no model runs."""

from __future__ import annotations

import math

import pytest
import torch

from locas_agent.config import AdmissionSettings
from locas_agent.consolidation.admission import Measurement, Questions, admit
from locas_agent.inference import Engine
from locas_agent.inference.generation import TopK
from locas_agent.study.items import NEGATIVE, PROBE, QUESTION, Item
from locas_agent.study.prompts import ABSTENTION
from locas_agent.training.sampling.builder import TrainingTask

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


def test_what_the_backbone_says_by_itself_is_no_recall(engine: Engine) -> None:
    """Else a dozen such answers, the same before and after, hide that a memory learnt a fact, or lost one."""

    def item(number: int, kind: str, answer: str) -> Item:
        ids = tuple(engine.backbone.encode(answer))
        teacher = TopK(torch.tensor([[token] for token in ids], dtype=torch.int32), torch.zeros(len(ids), 1))
        return Item(f"{number:032x}", kind, 1, 1, 1, "Who?", answer, ids, teacher)

    told, held_out = item(1, QUESTION, "Rex"), item(2, PROBE, "Rex")
    anyway, abstained = item(3, NEGATIVE, "It is a"), item(4, NEGATIVE, ABSTENTION)
    task = TrainingTask((told, held_out, anyway, abstained), (anyway, told), (), None)
    questions = Questions.of(engine.backbone, task)
    assert [example.target for example in questions.new] == [told.answer_ids, abstained.answer_ids]
    assert [example.target for example in questions.probes] == [held_out.answer_ids]
    assert [example.target for example in questions.earlier] == [told.answer_ids]

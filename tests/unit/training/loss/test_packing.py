"""How rows are put into forwards: what they begin with is run once, however long it is."""

from __future__ import annotations

import pytest
import torch

from locas_agent.training.examples import Example
from locas_agent.training.loss.packing import SEQUENCE_TOKENS, layouts

OWN = 25
"""Tokens of a row behind the common beginning."""


@pytest.mark.parametrize("shared", [0, 4, SEQUENCE_TOKENS // 3, SEQUENCE_TOKENS, 2 * SEQUENCE_TOKENS])
def test_a_common_beginning_is_run_once_for_six_short_rows(shared: int) -> None:
    common = tuple(range(100, 100 + shared))
    rows = [Example((*common, *(1000 * row + at for at in range(1, OWN))), (row, row), None) for row in range(6)]
    found = list(
        layouts(
            rows,
            [0] * 6,
            is_packed=True,
            pad_id=0,
            max_batch_tokens=4096,
            dtype=torch.float32,
            device=torch.device("cpu"),
        )
    )
    (layout,) = found
    assert layout.ids.shape == (1, shared + 6 * OWN)
    for row, places in zip(layout.rows, layout.places, strict=True):
        assert layout.ids.flatten()[places].tolist() == [*rows[row].prompt, *rows[row].target][:-1]

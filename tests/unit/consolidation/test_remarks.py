"""What a consolidation says beside its decision."""

from __future__ import annotations

import pytest

from locas_agent.backbone import Backbone
from locas_agent.config import MemorySettings
from locas_agent.consolidation.remarks import of_coverage, of_shape
from locas_agent.study.items import Coverage
from tests.conftest import MakeMemory


def test_a_memory_that_keeps_its_shape_says_what_was_asked_for(backbone: Backbone, make_memory: MakeMemory) -> None:
    memory = make_memory()
    same = MemorySettings(width=memory.width, layers=memory.n_layers)
    assert of_shape(memory, same, n_layers=backbone.n_layers) == []
    assert of_shape(None, MemorySettings(width=1), n_layers=backbone.n_layers) == []
    (said,) = of_shape(
        memory, MemorySettings(width=memory.width + 1, layers=memory.n_layers), n_layers=backbone.n_layers
    )
    assert f"keeps its {memory.width} slots" in said
    assert f"{memory.width + 1} beside {memory.n_layers} layers are asked for" in said


@pytest.mark.parametrize(
    ("carrying", "covered", "dropped", "said"),
    [
        (5, 2, 0, ["2 of 5 turns"]),
        (3, 3, 0, []),
        (0, 0, 0, []),
        (4, 0, 0, []),
        (4, 1, 2, ["1 of 4 turns", "2 questions were dropped"]),
    ],
)
def test_what_was_not_covered_is_said_in_numbers(carrying: int, covered: int, dropped: int, said: list[str]) -> None:
    remarks = of_coverage(Coverage(9, carrying, covered, 0, 30, dropped))
    assert [found.startswith(each) for found, each in zip(remarks, said, strict=True)] == [True] * len(said)

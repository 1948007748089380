"""Which layers carry a memory: what the settings say, and what names none."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from locas_agent.config import MemorySettings
from locas_agent.errors import ConfigurationError
from locas_agent.memory.placement import DEEP_FROM, placement


@pytest.mark.parametrize(
    ("layers", "n_layers", "expected"),
    [
        (2, 30, (-2, -1)),
        ("all", 3, (-3, -2, -1)),
        (None, 3, (-3, -2, -1)),
        ([1, 0], 4, (-4, -3)),
        ("0.5-0.8", 30, tuple(range(-15, -6))),
        ("0-1", 4, (-4, -3, -2, -1)),
        ("0.99-1", 4, (-1,)),
        ("auto", DEEP_FROM - 1, (-1,)),
        ("auto", 30, tuple(range(-10, 0))),
    ],
)
def test_settings_mean_the_layers_they_say(layers: Any, n_layers: int, expected: tuple[int, ...]) -> None:
    assert placement(MemorySettings(layers=layers).layers, n_layers) == expected


def test_layers_that_are_none_are_refused() -> None:
    for wrong in (0, "0.8-0.5", "0.5-1.5", "top", [], [-1], [2, 2]):
        with pytest.raises(ValidationError):
            MemorySettings(layers=wrong)  # type: ignore[arg-type]
    for wrong in (5, [4]):
        with pytest.raises(ConfigurationError, match="4 layers"):
            placement(MemorySettings(layers=wrong).layers, 4)  # type: ignore[arg-type]

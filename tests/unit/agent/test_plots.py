"""The pictures of a memory and of an explanation."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import pytest

from locas_agent.errors import ConfigurationError, ExchangeError, MissingExtra
from locas_agent.memory.stats import layer_stats
from locas_agent.plots import plot_explanation, plot_layers
from locas_agent.results import ExplainedToken, Explanation
from tests.conftest import MakeMemory

SIGNATURES = {".png": b"\x89PNG", ".pdf": b"%PDF", ".svg": b"<?xml"}


@pytest.mark.parametrize("suffix", SIGNATURES)
def test_pictures_are_drawn_of_any_text(make_memory: MakeMemory, tmp_path: Path, suffix: str) -> None:
    texts = ("It", " costs", " $5", "_{x}", "\n", "\x1b", "…", "long" * 30)
    tokens = tuple(ExplainedToken(text, -0.1 * at, -0.3 * at) for at, text in enumerate(texts))
    drawn = [
        plot_explanation(Explanation(tokens, 1, ()), tmp_path / f"text{suffix}"),
        plot_layers(layer_stats(make_memory(1)), tmp_path / f"layers{suffix}"),
    ]
    assert all(path.read_bytes().startswith(SIGNATURES[suffix]) for path in drawn)


def test_picture_needs_a_name_a_place_and_the_extra(
    make_memory: MakeMemory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = layer_stats(make_memory(1))
    with pytest.raises(ConfigurationError, match=r"ends in \.png"):
        plot_layers(figures, tmp_path / "layers.exe")
    with pytest.raises(ExchangeError, match=r"cannot write 'layers\.png'"):
        plot_layers(figures, tmp_path / "no" / "layers.png")
    found = builtins.__import__

    def without_matplotlib(name: str, *rest: Any) -> Any:
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return found(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without_matplotlib)
    with pytest.raises(MissingExtra, match=r"locas-agent\[plot\]"):
        plot_layers(figures, tmp_path / "layers.png")

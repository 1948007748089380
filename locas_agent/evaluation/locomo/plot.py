"""A picture of a LoCoMo report: one panel for each category, one bar for each arm.

Needs the extra `plot`. Knows only the finished report.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from locas_agent.plots import blank_figure, save_figure

_PANEL_INCHES = 3.2
_SMALLEST_SCALE = 0.05
_FOUND, _MEMORY = "0.7", "tab:blue"


def plot_locomo(report: dict[str, Any], path: Path) -> Path:
    """Draw every arm's official F1 with its interval, by category.

    Args:
        report: from `run_locomo`.
        path: a file that ends in .png, .svg or .pdf; it is overwritten.

    Raises:
        MissingExtra: matplotlib is not installed.
        ConfigurationError: another ending.
        ExchangeError: the file cannot be written.
    """
    arms = report["arms"]
    kinds = next(iter(arms.values()))
    figure = blank_figure(path, width=_PANEL_INCHES * len(kinds))
    panels = figure.subplots(1, len(kinds), sharey=True, squeeze=False)[0]
    for axes, (key, kind) in zip(panels, kinds.items(), strict=True):
        cells = [found[key] for found in arms.values()]
        values = [cell["f1"] for cell in cells]
        axes.barh(list(arms), values, color=[_MEMORY if "memory" in name else _FOUND for name in arms])
        for at, cell in enumerate(cells):
            if cell["ci95"] is not None:
                axes.plot(cell["ci95"], [at, at], color="black", linewidth=1)
        axes.set_title(f"{key} {kind['name']} (n={kind['n']})")
        # Each panel has its own scale: floors of a few hundredths would not be seen beside the constant of category 5,
        # which is 1.
        axes.set_xlim(
            0, 1.05 * max(_SMALLEST_SCALE, *values, *(cell["ci95"][1] for cell in cells if cell["ci95"] is not None))
        )
    panels[0].invert_yaxis()
    figure.supxlabel(f"official F1, backbone {report['backbone']}")
    return save_figure(figure, path)

"""A picture of a LoCoMo report: one panel for each category, one bar for each arm.

Needs the extra `plot`. Knows only the finished report.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from locas_agent.plots import blank_figure, draw_arms, save_figure

_PANEL_INCHES = 3.2


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
    panels = figure.subplots(1, len(kinds), squeeze=False)[0]
    for axes, (key, kind) in zip(panels, kinds.items(), strict=True):
        # Each panel has its own scale: floors of a few hundredths would not be seen beside the constant of category 5,
        # which is 1.
        draw_arms(axes, {name: (found[key]["f1"], found[key]["ci95"]) for name, found in arms.items()})
        axes.set_title(f"{key} {kind['name']} (n={kind['n']})")
    figure.supxlabel(f"official F1, backbone {report['backbone']}")
    return save_figure(figure, path)

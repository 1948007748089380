"""A picture of a report of `eval mmlu`: accuracy with each memory off and on. Needs the extra `plot`.

Knows only the finished report.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from locas_agent.plots import blank_figure, draw_arms, save_figure


def plot_forgetting(report: dict[str, Any], path: Path) -> Path:
    """Draw two bars for each memory, accuracy without and with it, and name how many answers turned.

    Args:
        report: from `measure_forgetting`.
        path: a file that ends in .png, .svg or .pdf; it is overwritten.

    Raises:
        MissingExtra: matplotlib is not installed.
        ConfigurationError: another ending.
        ExchangeError: the file cannot be written.
    """
    figure = blank_figure(path, width=8.0)
    axes = figure.subplots()
    bars: dict[str, tuple[float, None]] = {}
    for one in report["memories"]:
        if one["accuracy_off"] is None:
            continue
        turned = f"{one['gained']} gained, {one['lost']} lost"
        bars[f"{one['memory']}, off"] = (one["accuracy_off"], None)
        bars[f"{one['memory']}, memory on\n{turned}"] = (one["accuracy_on"], None)
    draw_arms(axes, bars)
    axes.set_xlabel(f"accuracy, {report['questions']} questions, backbone {Path(report['backbone']).name}")
    return save_figure(figure, path)

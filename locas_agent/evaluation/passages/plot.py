"""A picture of a report of `eval passages`: every arm by two scores, and recall while one memory learns on.

Needs the extra `plot`. Knows only the finished report.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from locas_agent.plots import blank_figure, draw_arms, save_figure

_PANEL_INCHES = 4.5


def plot_passages(report: dict[str, Any], path: Path) -> Path:
    """Draw each arm's exact match by containment and SQuAD F1, with intervals; and the sequence, where one was asked.

    Args:
        report: from `run_passages`.
        path: a file that ends in .png, .svg or .pdf; it is overwritten.

    Raises:
        MissingExtra: matplotlib is not installed.
        ConfigurationError: another ending.
        ExchangeError: the file cannot be written.
    """
    steps = report["sequence"]
    figure = blank_figure(path, width=_PANEL_INCHES * (3 if steps else 2))
    match, f1, *others = figure.subplots(1, 3 if steps else 2)
    asked = {name: arm for name, arm in report["arms"].items() if arm is not None}
    draw_arms(match, {name: (arm["exact_match"], arm["ci95"]) for name, arm in asked.items()})
    match.set_xlabel("answer stands in what is said")
    draw_arms(f1, {name: (arm["squad_f1"], arm["squad_f1_ci95"]) for name, arm in asked.items()})
    f1.set_xlabel("SQuAD F1")
    for axes in others:
        axes.plot(range(1, len(steps) + 1), [step["exact_match"] for step in steps], marker="o", color="tab:blue")
        axes.set_xticks(range(1, len(steps) + 1))
        axes.set_ylim(bottom=0)
        axes.set_xlabel("passages learnt one after another")
    figure.suptitle(
        f"{report['questions']} questions about {report['passages']} passages, backbone {Path(report['backbone']).name}"
    )
    return save_figure(figure, path)

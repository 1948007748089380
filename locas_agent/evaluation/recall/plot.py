"""A picture of a report of `eval recall`: every arm, and what is left of facts by their age.

Needs the extra `plot`. Knows only the finished report.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from locas_agent.plots import blank_figure, draw_arms, save_figure


def plot_recall(report: dict[str, Any], path: Path) -> Path:
    """Draw the share of questions that each arm answers, with its interval, and that of memory by age of the fact.

    Args:
        report: from `run_recall`.
        path: a file that ends in .png, .svg or .pdf; it is overwritten.

    Raises:
        MissingExtra: matplotlib is not installed.
        ConfigurationError: another ending.
        ExchangeError: the file cannot be written.
    """
    figure = blank_figure(path, width=10.0)
    arms, ages = figure.subplots(1, 2)
    asked = {name: arm for name, arm in report["arms"].items() if arm is not None}
    draw_arms(arms, {name: (arm["exact_match"], arm["ci95"]) for name, arm in asked.items()})
    arms.set_xlabel("share of questions answered")
    by_age = report["retention_by_age"]
    known = [(at, value) for at, value in enumerate(by_age, 1) if value is not None]
    ages.plot([at for at, _ in known], [value for _, value in known], marker="o", color="tab:blue")
    ages.set_xticks(range(1, len(by_age) + 1))
    ages.set_ylim(bottom=0)
    ages.set_xlabel("facts of a person by age, oldest first")
    ages.set_ylabel("share answered from the memory")
    figure.suptitle(f"{report['users']} people of {report['source']}, backbone {Path(report['backbone']).name}")
    return save_figure(figure, path)

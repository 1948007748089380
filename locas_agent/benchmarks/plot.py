"""A picture of benchmark rows: each ratio with its spread, its limit and its target.

Needs the extra `plot`. Knows only finished rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from locas_agent.plots import blank_figure, save_figure

_WIDTH_INCHES = 9.0


def plot_rows(rows: Sequence[Mapping[str, Any]], path: Path) -> Path:
    """Draw the rows, one line each, on a logarithmic scale.

    Args:
        rows: from `suite.run`.
        path: a file that ends in .png, .svg or .pdf; it is overwritten.

    Raises:
        MissingExtra: matplotlib is not installed.
        ConfigurationError: another ending.
        ExchangeError: the file cannot be written.
    """
    figure = blank_figure(path, width=_WIDTH_INCHES)
    axes = figure.add_subplot()
    for at, row in enumerate(rows):
        color = "tab:blue" if row["holds"] else "tab:red"
        axes.plot(row["spread"], [at, at], color=color, linewidth=1)
        axes.plot([row["ratio"]], [at], "o", color=color)
        axes.plot([row["limit"]], [at], "|", color="black", markersize=14)
        axes.plot([row["target"]], [at], "|", color="0.6", markersize=14)
    axes.set_xscale("log")
    axes.set_yticks(range(len(rows)))
    at_least = {True: "at least", False: "at most"}
    axes.set_yticklabels([f"{row['name']} ({at_least[row['target'] > row['limit']]} {row['limit']:g})" for row in rows])
    axes.invert_yaxis()
    axes.set_xlabel("ratio: median, least and greatest; black: limit, grey: target; red: does not hold")
    return save_figure(figure, path)

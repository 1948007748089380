"""A picture of a PG-19 report: one panel for each book, perplexity so far against position. Needs the extra `plot`.

Knows only the finished report.
"""

from __future__ import annotations

import math
from itertools import accumulate
from pathlib import Path
from typing import Any

from locas_agent.evaluation.pg19.report import perplexity
from locas_agent.plots import blank_figure, save_figure

_COLUMNS = 4
_PANEL_INCHES = (4.0, 3.0)
_COLOURS = {"none": "0.5", "temp_lora": "tab:orange", "locas": "tab:blue"}


def plot_pg19(report: dict[str, Any], path: Path) -> Path:
    """Draw each arm's cumulative perplexity over each book.

    Args:
        report: from `run_pg19`.
        path: a file that ends in .png, .svg or .pdf; it is overwritten.

    Raises:
        MissingExtra: matplotlib is not installed.
        ConfigurationError: another ending.
        ExchangeError: the file cannot be written.
    """
    books = report["books"]
    columns = min(_COLUMNS, len(books))
    rows = math.ceil(len(books) / columns)
    figure = blank_figure(path, width=_PANEL_INCHES[0] * columns)
    figure.set_figheight(_PANEL_INCHES[1] * rows + 1.0)
    panels = figure.subplots(rows, columns, squeeze=False).flatten()
    for axes, book in zip(panels, books, strict=False):
        for arm, own in book["arms"].items():
            tokens = list(accumulate(tokens for tokens, _ in own["chunks"]))
            nll = accumulate(nll for _, nll in own["chunks"])
            axes.plot(
                tokens,
                [perplexity(total, seen) for total, seen in zip(nll, tokens, strict=True)],
                color=_COLOURS[arm],
                label=arm,
            )
        axes.set_title(book["book"], parse_math=False)
    for axes in panels[len(books) :]:
        axes.set_axis_off()
    panels[0].legend()
    figure.supxlabel(f"tokens read, backbone {Path(report['backbone']).name}")
    figure.supylabel("perplexity of all tokens so far")
    return save_figure(figure, path)

"""The command `bench`: its options, and the tables of its report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from locas_agent.cli.model import DeviceOption, SeedOption
from locas_agent.cli.options import JsonOption, PlotOption
from locas_agent.cli.output import deliver, progress_bar, table


def bench(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME]...", help="Rows to measure, such as decode-base; all unless given."),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Small sizes, two rounds: checks what is computed; its times mean nothing.")
    ] = False,
    plot: PlotOption = None,
    backbone: Annotated[
        str,
        typer.Option(help="Of the rows on real shapes: smollm2, or qwen3-0.6b with random weights, in fewer rounds."),
    ] = "smollm2",
    budget: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="Begin nothing more after so long; the rows so far are given."),
    ] = None,
    device: DeviceOption = None,
    seed: SeedOption = 0,
    json: JsonOption = None,
) -> None:
    """Speed and size beside peers in one process on one thread, as ratios with limits.

    A missed limit is a result: the exit code stays 0.
    """
    from locas_agent.benchmarks.suite import real_name, run

    rows: list[dict[str, Any]] = []
    try:
        with progress_bar() as progress:
            for row in run(
                names or (),
                is_quick=quick,
                seed=seed,
                device=device,
                real=real_name(backbone),
                budget_seconds=budget,
                progress=progress,
            ):
                rows.append(row)
    except BaseException:  # Ctrl-C too: what was measured before it is not lost
        if rows:
            _show(rows, plot, json)
        raise
    _show(rows, plot, json)


def _show(rows: list[dict[str, Any]], plot: Path | None, json: str | None) -> None:
    """Deliver what was measured."""
    from locas_agent.benchmarks.plot import plot_rows

    if plot is not None:
        plot_rows(rows, plot)
    heads = ["row", "ours", "peer", "unit", "ratio", "spread", "limit", "target", "holds"]
    deliver(json, rows, table(heads, [_cells(row) for row in rows]))


def _cells(row: dict[str, Any]) -> list[object]:
    """Return a row as people read it."""
    least, greatest = row["spread"]
    sign = "at least" if row["target"] > row["limit"] else "at most"
    figures = [f"{row[name]:g}" for name in ("ours", "peer")]
    return [
        row["name"],
        *figures,
        row["unit"],
        f"{row['ratio']:g}",
        f"{least:g} to {greatest:g}",
        f"{sign} {row['limit']:g}",
        f"{row['target']:g}",
        "yes" if row["holds"] else "no",
    ]

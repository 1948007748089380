"""The report of `eval mmlu` as people read it. Knows only the report."""

from __future__ import annotations

from typing import Any

from rich.table import Table

COLUMNS = ("memory", "off", "on", "flips", "lost", "gained", "McNemar p", "mean |ΔNLL|", "KL on neutral text")


def forgetting_table(report: dict[str, Any]) -> Table:
    """Return one row for each memory, and one over all where there are several."""
    title = (
        f"{report['questions']} questions of {report['tasks']} tasks, memory off and on, backbone {report['backbone']}"
    )
    cut = f"{report['cut_prompts']} prompts were too long and lost their beginning" if report["cut_prompts"] else None
    table = Table(title=title, title_justify="left", caption=cut, caption_justify="left")
    for column in COLUMNS:
        table.add_column(column, justify="left" if column == "memory" else "right")
    for one in report["memories"]:
        table.add_row(*_row(one["memory"], one))
    if len(report["memories"]) > 1:
        table.add_section()
        table.add_row(*_row("all", report))
    return table


def _row(name: str, figures: dict[str, Any]) -> list[str]:
    formats = {
        "accuracy_off": ".4f",
        "accuracy_on": ".4f",
        "flips": "d",
        "lost": "d",
        "gained": "d",
        "mcnemar_p": ".3f",
        "mean_abs_delta_nll": ".4f",
        "drift_kl_nats": ".5f",
    }
    return [name, *("-" if figures[key] is None else format(figures[key], form) for key, form in formats.items())]

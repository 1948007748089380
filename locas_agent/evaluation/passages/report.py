"""The report of `eval passages` as people read it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.table import Table

from locas_agent.evaluation.passages.choices import ARMS


def passages_table(report: dict[str, Any]) -> Table:
    """Return every arm's scores, what each memory adds, and what the learning took."""
    table = Table(
        title=f"{report['questions']} questions about {report['passages']} passages of {report['source']}, told as "
        f"{report['told_as']}, backbone {report['backbone']}, {report['objective']}",
        title_justify="left",
    )
    for column in ("arm", "what it has"):
        table.add_column(column)
    for column in ("exact match (containment)", "SQuAD exact match", "SQuAD F1", "share of what reading adds"):
        table.add_column(column, justify="right")
    for name, arm in report["arms"].items():
        if arm is None:
            continue
        over = report["over_none"].get(name)
        table.add_row(
            name,
            ARMS[name],
            _figure(arm["exact_match"], arm["ci95"]),
            _figure(arm["squad_exact_match"], arm["squad_exact_match_ci95"]),
            _figure(arm["squad_f1"], arm["squad_f1_ci95"]),
            _figure(over["exact_match"]["share"], over["exact_match"]["share_ci95"]) if over else "",
        )
    return table


def learning_table(report: dict[str, Any]) -> Table:
    """Return what the learning of each arm came to."""
    table = Table(title=f"Learning; {report['seconds_per_passage']} seconds a passage in memory", title_justify="left")
    table.add_column("arm")
    columns = {
        "memories": "memories",
        "refused": "consolidations_refused",
        "study items": "study_items",
        "coverage": "coverage",
        "study seconds": "study_seconds",
        "training seconds": "train_seconds",
        "drift, nats": "drift_kl_nats",
        "numbers a memory": "numbers_per_memory",
    }
    for column in columns:
        table.add_column(column, justify="right")
    for name, found in report["learnt"].items():
        table.add_row(name, *(f"{found[key]:,}" for key in columns.values()))
    return table


def sequence_table(report: dict[str, Any]) -> Table | None:
    """Return recall while passage after passage is learnt in one memory; None where that was not asked for."""
    if not report["sequence"]:
        return None
    none, fall = report["sequence_none"], report["sequence_fall"]
    table = Table(
        title=f"In sequence: nothing learnt {_figure(none['exact_match'], none['ci95'])}; just after its own passage "
        f"minus after the last {_figure(fall['difference'], fall['ci95'])}",
        title_justify="left",
    )
    for column in ("passages learnt", "exact match (containment)", "SQuAD F1", "by passage, oldest first"):
        table.add_column(column, justify="right")
    for number, (step, rates) in enumerate(zip(report["sequence"], report["sequence_by_passage"], strict=True), 1):
        table.add_row(
            str(number),
            _figure(step["exact_match"], step["ci95"]),
            _figure(step["squad_f1"], step["squad_f1_ci95"]),
            " ".join(f"{rate:.2f}" for rate in rates),
        )
    return table


def _figure(value: float | None, interval: Sequence[float] | None) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if interval is None else f"{value:.3f} ({interval[0]:.2f} to {interval[1]:.2f})"

"""The report of `eval recall` as people read it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.table import Table

_MEANING = {
    "none": "nothing in the prompt, no memory",
    "context": "only the session that holds the fact (the ceiling)",
    "context_turn": "only the turn that tells the fact",
    "full_context": "every session, oldest dropped if they do not fit",
    "memory": "nothing in the prompt: answered from the weights",
    "window_memory": "the newest turns and the memory",
    "search": "three turns found by BM25",
    "search_memory": "three turns found by BM25 and the memory",
    "wrong_user": "another user's memory",
    "temp_lora": "a LoRA of rank 16 on the same study sets",
    "prefix": "a tuned prefix of 32 tokens on the same study sets",
}
_PEERS = (("LoRA", "temp_lora"), ("prefix", "prefix"))


def recall_table(report: dict[str, Any]) -> Table:
    """Return the report as people read it."""
    told = f"{report['users']} people, {report['sessions']} sessions of {report['facts_per_session']} facts"
    steps = report["consolidations"]
    learnt = f", learnt in {steps} steps" if steps else ""
    title = f"{told}{learnt}, {report['source']}, backbone {report['backbone']}, {report['objective']}"
    table = Table(title=title, title_justify="left")
    for column in ("arm", "what it has", "exact match", "95 %", "n"):
        table.add_column(column, justify="left" if column in ("arm", "what it has") else "right")
    for name, arm in report["arms"].items():
        if arm is not None:
            low, high = arm["ci95"]
            table.add_row(name, _MEANING[name], f"{arm['exact_match']:.3f}", f"{low:.2f} to {high:.2f}", str(arm["n"]))
    table.add_section()
    for label, value in [*_answered(report), *_learnt(report)]:
        table.add_row(label, "", value, "", "")
    return table


def groups_table(report: dict[str, Any]) -> Table:
    """Return recall and coverage by style of person and by who told the fact."""
    table = Table(title="By style, and by who tells the fact", title_justify="left")
    columns = ("none", "context", "memory", "memory_over_context", "coverage")
    table.add_column("")
    for column in (*columns, "n"):
        table.add_column(column.replace("memory_over_context", "memory / context"), justify="right")
    for groups in (report["styles"], report["tellers"]):
        table.add_section()
        for name, rates in groups.items():
            table.add_row(name, *(_figure(rates[column]) for column in columns), str(rates["n"]))
    return table


def _answered(report: dict[str, Any]) -> list[tuple[str, str]]:
    """Return what the answers come to, as text."""
    updated, abstention, never = report["updated_facts"], report["abstention"], report["never_told"]
    return [
        ("share of what reading adds", _figure(report["share"])),
        ("retention by session", _row(report["retention"])),
        ("retention by age, oldest first", _row(report["retention_by_age"])),
        (
            "facts told anew",
            f"{updated['exact_match']:.3f} (former value {updated['stale']:.3f}, in context {updated['context']:.3f})"
            if updated
            else "none",
        ),
        ("newest value among newest and former", _figure(updated["new_among_answered"]) if updated else "none"),
        ("abstention", f"{abstention['exact_match']:.3f}" if abstention else "none"),
        (
            "never told: names a told value",
            f"{never['names_a_told_value']:.3f} (without memory {never['bare_names_a_told_value']:.3f})"
            if never
            else "none",
        ),
        ("memory names another fact's value", _figure(report["names_other_fact"]["memory"])),
        ("drift, nats per token", f"{report['drift_kl_nats']:.4f}"),
    ]


def _learnt(report: dict[str, Any]) -> list[tuple[str, str]]:
    """Return what the learning covered and took, as text."""
    peers = [
        (label, report.get(f"{name}_seconds_per_user"), report.get(f"{name}_params_per_user")) for label, name in _PEERS
    ]
    reading = report["reading_form"]
    return [
        ("reading form, near and wide", f"{reading['near']}, {reading['wide']}"),
        ("coverage of told facts", f"{report['coverage']:.3f}"),
        ("refused consolidations", str(report["refused_consolidations"])),
        (
            "training seconds per user",
            f"{report['seconds_per_user']:.2f}"
            + "".join(f" ({label} {spent:.2f})" for label, spent, _ in peers if spent),
        ),
        ("seconds per turn, study and training", _figure(report["seconds_per_turn"])),
        ("times one forward over the same turns", _figure(report["cost"])),
        (
            "numbers per user",
            f"{report['params_per_user']:,}" + "".join(f" ({label} {count:,})" for label, _, count in peers if count),
        ),
    ]


def _row(values: Sequence[float | None]) -> str:
    return " ".join("-" if value is None else f"{value:.2f}" for value in values)


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"

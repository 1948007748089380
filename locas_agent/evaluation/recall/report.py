"""The report of `eval recall` as people read it."""

from __future__ import annotations

from typing import Any

from rich.table import Table

_MEANING = {
    "none": "nothing in the prompt, no memory",
    "context": "only the session that holds the fact (the ceiling)",
    "full_context": "every session, oldest dropped if they do not fit",
    "memory": "nothing in the prompt: answered from the weights",
    "window_memory": "the newest turns and the memory",
    "search": "three turns found by BM25",
    "wrong_user": "another user's memory",
    "temp_lora": "a LoRA of rank 16 on the same study sets",
    "prefix": "a tuned prefix of 32 tokens on the same study sets",
}
_PEERS = (("LoRA", "temp_lora"), ("prefix", "prefix"))


def recall_table(report: dict[str, Any]) -> Table:
    """Return the report as people read it."""
    told = f"{report['users']} people, {report['sessions']} sessions of {report['facts_per_session']} facts"
    title = f"{told}, backbone {report['backbone']}, {report['objective']}"
    table = Table(title=title, title_justify="left")
    for column in ("arm", "what it has", "exact match", "95 %", "n"):
        table.add_column(column, justify="left" if column in ("arm", "what it has") else "right")
    for name, arm in report["arms"].items():
        if arm is not None:
            low, high = arm["ci95"]
            table.add_row(name, _MEANING[name], f"{arm['exact_match']:.3f}", f"{low:.2f} to {high:.2f}", str(arm["n"]))
    table.add_section()
    for label, value in _figures(report):
        table.add_row(label, "", value, "", "")
    return table


def _figures(report: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the figures below the arms, as text."""
    updated, abstention = report["updated_facts"], report["abstention"]
    peers = [
        (label, report.get(f"{name}_seconds_per_user"), report.get(f"{name}_params_per_user")) for label, name in _PEERS
    ]
    rows = [
        ("retention by session", " ".join("-" if value is None else f"{value:.2f}" for value in report["retention"])),
        ("study coverage", f"{report['study_coverage']:.3f}"),
        (
            "facts told anew",
            f"{updated['exact_match']:.3f} (former value {updated['stale']:.3f}, in context {updated['context']:.3f})"
            if updated
            else "none",
        ),
        ("abstention", f"{abstention['exact_match']:.3f}" if abstention else "none"),
        ("drift, nats per token", f"{report['drift_kl_nats']:.4f}"),
        ("refused consolidations", str(report["refused_consolidations"])),
        (
            "training seconds per user",
            f"{report['seconds_per_user']:.2f}"
            + "".join(f" ({label} {spent:.2f})" for label, spent, _ in peers if spent),
        ),
        (
            "numbers per user",
            f"{report['params_per_user']:,}" + "".join(f" ({label} {count:,})" for label, _, count in peers if count),
        ),
    ]
    return rows

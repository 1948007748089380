"""Prints what a run of the gates found as the table of docs/reliability.md: `python -m tests.reliability.table [FILE]`.

Knows nothing of the gates: every figure they recorded is a part of the row.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

ABOUT_THE_RUN = ("form", "at", "seconds")


def row(gate: str, figures: dict[str, Any]) -> str:
    """Return one gate's line."""
    shown = [f"{name.replace('_', ' ')} {_plain(value)}" for name, value in figures.items() if name not in ABOUT_THE_RUN]
    return f"| {gate} | {figures['form']} | {figures['at'][:10]} | {figures['seconds']:,} | {'; '.join(shown)} |"


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_plain(one)}" for name, one in value.items())
    return f"{value:,}" if isinstance(value, int | float) else str(value)


def main(path: Path) -> None:
    """Print the table."""
    found = json.loads(path.read_text(encoding="utf-8"))
    lines = ["| gate | form | date | seconds | figures |", "|---|---|---|---|---|", *(row(gate, found[gate]) for gate in found)]
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main(Path(*sys.argv[1:2] or ["build/reliability.json"]))

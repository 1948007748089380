"""Writes what the last runs of the gates found as a table.

`python -m tests.reliability.report_table [PAGE]`, to standard output or between a page's marks.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

BUILD = Path(__file__).parents[2] / "build"
RECORDS = [BUILD / "reliability.json", BUILD / "reliability-quick.json"]
"""Of the full form and of the quick one; one that is not there is left out."""
ABOUT_THE_RUN = ("form", "at", "seconds")
NUMBERS = {
    "killed processes": "G1",
    "paused holders": "G2",
    "mutated payloads": "G3",
    "appending threads": "G4",
    "immediate stops": "G5",
    "promoted standby": "G5",
    "cancelled calls": "G6",
    "canary batches": "G8",
    "erased users": "G9",
    "ciphertext swaps": "G10",
    "canary strings": "G11",
    "canary strings with failures": "G11",
    "named mutants": "G12",
    "disk full": "R5",
    "stateful run": "R18",
    "served load": "S1",
    "idle connections": "S2",
    "killed server": "S3",
    "database away": "S4",
    "killed Ray workers": "C1",
    "Ray workers side by side": "C1",
    "killed Ray replicas": "C2",
    "Ray routing": "C2",
}
"""Of the gate, or of the failure without one, in the design; by what a record's name begins with."""
BEGINS, ENDS = (
    "<!-- figures: python -m tests.reliability.report_table docs/reliability.md -->\n",
    "<!-- end of figures -->\n",
)


def row(case: str, figures: dict[str, Any]) -> str:
    """Return one case's line."""
    number = NUMBERS[case.partition(",")[0]]
    shown = [
        f"{name.replace('_', ' ')} {_plain(value)}" for name, value in figures.items() if name not in ABOUT_THE_RUN
    ]
    when, took = figures["at"][:10], f"{figures['seconds']:,}"
    return f"| {number} | {case} | {figures['form']} | {when} | {took} | {'; '.join(shown)} |"


def table(records: list[dict[str, dict[str, Any]]]) -> str:
    """Return the lines of every case, in the order of the gates, the full form before the quick one."""
    found = [(case, figures) for record in records for case, figures in record.items()]
    found.sort(key=lambda one: _order(one[0]))
    return (
        "\n".join(
            [
                "| gate | case | form | date | seconds | figures |",
                "|---|---|---|---|---|---|",
                *(row(*one) for one in found),
            ]
        )
        + "\n"
    )


def put_into(page: str, figures: str) -> str:
    """Return a page with other figures between its marks."""
    before, after = page.split(BEGINS)[0], page.split(ENDS)[1]
    return f"{before}{BEGINS}\n{figures}\n{ENDS}{after}"


def _order(case: str) -> tuple[str, int, str]:
    number = NUMBERS[case.partition(",")[0]]
    return number[0], int(number[1:]), case


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_plain(one)}" for name, one in value.items())
    return f"{value:,}" if isinstance(value, int | float) else str(value)


def main(page: Path | None) -> None:
    """Print the table, or put it into a page."""
    figures = table([json.loads(path.read_text(encoding="utf-8")) for path in RECORDS if path.exists()])
    if page is None:
        sys.stdout.write(figures)
    else:
        page.write_text(put_into(page.read_text(encoding="utf-8"), figures), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)

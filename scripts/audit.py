#!/usr/bin/env python3
"""Look up the known holes of everything that is pinned, and say so where nobody could be asked.

    python -m scripts.audit                                     # `make check` does
    python -m scripts.audit --osv-url http://mirror:8080/query  # an OSV mirror of your own

pip-audit has no advisories of its own, and calls a package that it could not look up harmless. So each source is first
asked about a version that is known to have holes: one that does not name them knows nothing, and its silence about our
pins would say nothing. Where no source does, nothing was audited: that is said, and it is no failure, since `make
check` has to work without a network. A hole that is found is one.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

PINS = Path(__file__).resolve().parents[1] / "constraints.txt"
KNOWN_HOLE = "jinja2==2.4.1"
"""Every source of advisories has several about it."""
SOURCES = (("--vulnerability-service", "pypi"), ("--vulnerability-service", "osv"))
"""Options of pip-audit; the first that knows something is asked about all pins."""
_ANSWER_SECONDS = 5
"""Longest time for one answer of a source."""


@dataclass(frozen=True)
class Advice:
    """What a source says of some packages."""

    looked_up: int
    unknown: tuple[str, ...]
    holes: tuple[str, ...]


LookUp = Callable[[Path, Sequence[str]], Advice | None]
"""Asks a source, given by options of pip-audit, about a file of pins; None where it does not answer."""


def look_up(pins: Path, source: Sequence[str]) -> Advice | None:
    """Ask a source by pip-audit."""
    asked = ("--requirement", str(pins), "--no-deps", "--disable-pip", *source)
    shown = ("--format", "json", "--desc", "off", "--progress-spinner", "off", "--timeout", str(_ANSWER_SECONDS))
    done = subprocess.run(
        [sys.executable, "-m", "pip_audit", *asked, *shown], check=False, capture_output=True, text=True
    )
    if done.returncode not in (0, 1) or not done.stdout.startswith("{"):
        return None
    found = json.loads(done.stdout)["dependencies"]
    return Advice(
        looked_up=sum("skip_reason" not in each for each in found),
        unknown=tuple(each["name"] for each in found if "skip_reason" in each),
        holes=tuple(
            f"{each['name']} {each['version']}: {hole['id']}, mended in {', '.join(hole['fix_versions']) or 'none yet'}"
            for each in found
            for hole in each.get("vulns", ())
        ),
    )


def audit(pins: Path, sources: Sequence[Sequence[str]], *, ask: LookUp = look_up) -> tuple[int, list[str]]:
    """Return the exit status, and the lines to be printed."""
    with tempfile.TemporaryDirectory() as folder:
        known = Path(folder) / "known.txt"
        known.write_text(f"{KNOWN_HOLE}\n", encoding="utf-8")
        knowing = next((source for source in sources if (said := ask(known, source)) is not None and said.holes), None)
    told = ask(pins, knowing) if knowing is not None else None
    if told is None:
        return 0, [
            "pip-audit WAS NOT RUN: no source of advisories answered (none names the holes of "
            f"{KNOWN_HOLE}), so nothing is known about the pins; run `python -m scripts.audit` where there is a network"
        ]
    lines = [f"pip-audit: {told.looked_up} pins looked up, {len(told.holes)} known holes"]
    if told.unknown:
        lines.append(f"not known to the source: {', '.join(told.unknown)}")
    return int(bool(told.holes)), [*lines, *told.holes]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--osv-url", help="A source that speaks OSV's protocol, in place of those on the internet.")
    url = parser.parse_args().osv_url
    sources = SOURCES if url is None else (("--vulnerability-service", "osv", "--osv-url", url),)
    status, lines = audit(PINS, sources)
    print("\n".join(lines))
    sys.exit(status)


if __name__ == "__main__":
    main()

"""The look-up of known holes: what is found fails, and that nobody could be asked is said and not called clean."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from scripts.audit import KNOWN_HOLE, PINS, SOURCES, Advice, audit

HOLES = {"jinja2": "PYSEC-1", "leaky": "PYSEC-2"}


class Osv(BaseHTTPRequestHandler):
    """Knows the holes of two packages, as OSV tells them."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        name = asked["package"]["name"]
        ranges = [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "9.1"}]}]
        affected = [{"package": {"name": name, "ecosystem": "PyPI"}, "ranges": ranges}]
        found = {"vulns": [{"id": HOLES[name], "affected": affected}]} if name in HOLES else {}
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(found).encode())

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


@pytest.fixture
def osv() -> Iterator[Sequence[str]]:
    with HTTPServer(("127.0.0.1", 0), Osv) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield ("--vulnerability-service", "osv", "--osv-url", f"http://127.0.0.1:{server.server_port}/query")
        server.shutdown()
        thread.join()


@pytest.mark.slow  # pip-audit is begun three times
def test_a_known_hole_is_found_by_pip_audit_and_a_source_that_is_away_is_passed_over(
    osv: Sequence[str], tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        away = ("--vulnerability-service", "osv", "--osv-url", f"http://127.0.0.1:{taken.getsockname()[1]}/query")
    pins = tmp_path / "pins.txt"
    pins.write_text("leaky==1.0\nsound==2.0\n", encoding="utf-8")
    status, lines = audit(pins, [away, osv])
    assert status == 1
    assert lines == ["pip-audit: 2 pins looked up, 1 known holes", "leaky 1.0: PYSEC-2, mended in 9.1"]


@pytest.mark.parametrize("said", [None, Advice(1, (), ()), Advice(0, ("jinja2",), ())])
def test_a_source_that_knows_nothing_is_not_believed(said: Advice | None) -> None:
    asked: list[str] = []

    def ask(pins: Path, source: Sequence[str]) -> Advice | None:
        asked.append(pins.read_text(encoding="utf-8").strip())
        return said

    status, lines = audit(PINS, SOURCES, ask=ask)
    assert (status, asked) == (0, [KNOWN_HOLE] * len(SOURCES))
    assert "WAS NOT RUN" in lines[0]


def test_pins_without_a_known_hole_pass_and_those_nobody_knows_are_named() -> None:
    def ask(pins: Path, source: Sequence[str]) -> Advice | None:
        return Advice(2, ("own",), ()) if pins == PINS else Advice(1, (), ("jinja2 2.4.1: PYSEC-1",))

    assert audit(PINS, SOURCES, ask=ask) == (
        0,
        ["pip-audit: 2 pins looked up, 0 known holes", "not known to the source: own"],
    )

"""Owns a process that has imported everything, and forks a child for each victim.

That takes milliseconds instead of seconds.

A process of its own, since pytest's may have threads.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.reliability import crash_targets

ROOT = Path(__file__).parents[2]


@dataclass
class Victim:
    """A child that lives, or did.

    Attributes:
        pid: its process.
        notes: the file of what it was told.
    """

    pid: int
    notes: Path
    process_pool: ProcessPool

    def wait(self) -> int:
        """Wait until it ends or stops; return the status as `os.waitpid` gives it."""
        return int(self.process_pool.ask(wait=self.pid)["status"])

    def kill(self) -> int:
        """Kill it and wait for the end."""
        os.kill(self.pid, signal.SIGKILL)
        return self.wait()

    def told(self) -> list[dict[str, Any]]:
        """Return what it wrote down."""
        return crash_targets.read_notes(self.notes)


class ProcessPool:
    """The process that forks; one request at a time."""

    def __init__(self) -> None:
        path = os.pathsep.join(map(str, (ROOT / "storage", ROOT / "integrations", ROOT)))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.reliability.process_pool"],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(self, act: str, notes: Path, **how: Any) -> Victim:
        """Fork a victim and return once it has begun; for the arguments see `crash_targets.live`."""
        return Victim(self.ask(start={"act": act, "notes": str(notes), **how})["pid"], notes, self)

    def ask(self, **request: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def close(self) -> None:
        """End it, and whatever it still has."""
        self._process.communicate()


@contextmanager
def a_process_pool() -> Iterator[ProcessPool]:
    process_pool = ProcessPool()
    try:
        yield process_pool
    finally:
        process_pool.close()


def serve() -> None:
    """Answer requests until there are no more."""
    crash_targets.warm_up()
    alive: set[int] = set()
    for line in sys.stdin:
        request = json.loads(line)
        if "start" in request:
            pid = _fork(request["start"])
            alive.add(pid)
            answer = {"pid": pid}
        else:
            pid, status = os.waitpid(request["wait"], os.WUNTRACED)
            if not os.WIFSTOPPED(status):
                alive.remove(pid)
            answer = {"status": status}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
    for pid in alive:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _fork(how: dict[str, Any]) -> int:
    has_begun, begun = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            crash_targets.live(begun, **how)
            os._exit(0)
        except BaseException:  # noqa: BLE001  nothing of the child may go on
            traceback.print_exc()
        finally:
            os._exit(3)
    os.close(begun)
    os.read(has_begun, 1)  # also returns when the child ends before it begins
    os.close(has_begun)
    return pid


if __name__ == "__main__":
    serve()

"""Owns a process that forks children which kill themselves at each step of each change.

Usage: `python crash_worker.py FOLDER POINT...`; each point leaves a database `POINT.db`.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from storage_samples import ADA, draft, item, say

from locas_storage import SqlMemoryStore, TurnDraft

LATE = [
    TurnDraft("user", "late 1", idempotency_key="late-1"),
    TurnDraft("assistant", "late 2", idempotency_key="late-2"),
]
OLD_ITEM, NEW_ITEM = item(question="old"), item(question="new")


def live(folder: Path, point: str) -> None:
    """Do acknowledged work, then the change that is cut short at `point`."""
    url = f"sqlite:///{folder / point}.db"
    if point != "append.user":  # the first turn of all is cut short there
        store = SqlMemoryStore(url)
        say(store, 3)
        store.commit(ADA, draft(0, 1, 2, b"acknowledged", new_items=(OLD_ITEM,)))
        store.queue.enqueue(ADA, 3)

    def die_here(reached: str) -> None:
        if reached == point:
            os.kill(os.getpid(), signal.SIGKILL)

    fragile = SqlMemoryStore(url, fault_point=die_here)
    changes: dict[str, Callable[[], object]] = {
        "append": lambda: fragile.append(ADA, LATE),
        "commit": lambda: fragile.commit(
            ADA, draft(1, 3, 3, b"late", new_items=(NEW_ITEM,), retired_items=(OLD_ITEM.item_id,))
        ),
        "rollback": lambda: fragile.rollback(ADA, 0),
        "cut_over": lambda: fragile.cut_over(
            ADA, [draft(0, 1, 2, b"anew", new_items=(NEW_ITEM,))], fingerprint="f" * 64, fence=1
        ),
        "claim": lambda: fragile.queue.claim("victim", lease_seconds=0),
        "forget": lambda: fragile.forget(ADA, [2]),
        "correct": lambda: fragile.correct(ADA, 2, TurnDraft("user", "corrected")),
        "erase": lambda: fragile.erase(ADA),
    }
    changes[point.partition(".")[0]]()


def main(folder: Path, points: list[str]) -> None:
    """Fork a child for each point and check that it died there."""
    for point in points:
        child = os.fork()
        if child == 0:
            try:
                live(folder, point)
            finally:
                os._exit(3)
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status) or os.WTERMSIG(status) != signal.SIGKILL:
            sys.exit(f"{point}: the child was not killed there, status {status}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])

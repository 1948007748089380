"""How a command that runs until it is stopped learns that it is.

The first SIGTERM or SIGINT asks it to end, the second ends it.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def stop_on_signals() -> Iterator[Event]:
    """Give an event that the first signal sets; handlers are put back at the end."""
    stop = Event()
    former = {one: signal.getsignal(one) for one in SIGNALS}

    def ask(number: int, _frame: FrameType | None) -> None:
        stop.set()
        signal.signal(number, former[signal.Signals(number)])

    for one in SIGNALS:
        signal.signal(one, ask)
    try:
        yield stop
    finally:
        for one, handler in former.items():
            signal.signal(one, handler)

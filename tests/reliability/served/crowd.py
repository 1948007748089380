"""Owns `Crowd`, connections that say nothing, or not all, and are opened again when the server closes them."""

from __future__ import annotations

import resource
import select
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

SPARE = 200
"""Descriptors beside those of the crowd."""
BEGINNINGS = (
    b"",
    b"POST /v1/chat/comp",
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer KEY\r\nContent-Length: 1000\r\n\r\n{",
    b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n",
)
"""What they say: nothing, half a line, a body that never comes, a request after which nothing follows."""


class Crowd:
    """Idle connections to a server.

    Args:
        port: of the server.
        key: with which some of them begin.
        size: how many there are at any time.

    Attributes:
        opened: so far.
        closed: by the server.
    """

    def __init__(self, port: int, key: str, size: int) -> None:
        self._port = port
        self._beginnings = [beginning.replace(b"KEY", key.encode()) for beginning in BEGINNINGS]
        self._size = size
        self._sockets: dict[int, socket.socket] = {}
        self._over = threading.Event()
        self._keeping_up = threading.Thread(target=self._keep_up)
        self.opened = 0
        self.closed = 0

    def __enter__(self) -> Crowd:
        allow_descriptors(self._size + SPARE)
        for _ in range(self._size):
            self._open()
        self._keeping_up.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stay()
        for each in self._sockets.values():
            each.close()

    def stay(self) -> None:
        """Open none again from here on."""
        self._over.set()
        if self._keeping_up.is_alive():
            self._keeping_up.join()

    @property
    def left(self) -> int:
        """How many of them the server has not closed; to be asked after `stay`."""
        self._drop_closed()
        return len(self._sockets)

    def _open(self) -> None:
        made = socket.create_connection(("127.0.0.1", self._port), timeout=30)
        made.sendall(self._beginnings[self.opened % len(self._beginnings)])
        made.setblocking(False)
        self._sockets[made.fileno()] = made
        self.opened += 1

    def _keep_up(self) -> None:
        while not self._over.wait(0.5):
            with suppress(OSError):  # the server is gone, or as busy as can be: the next round tries again
                self._drop_closed()
                while len(self._sockets) < self._size:
                    self._open()

    def _drop_closed(self) -> None:
        poll = select.poll()
        for number in self._sockets:
            poll.register(number, select.POLLIN)
        for number, _ in poll.poll(0):
            if _is_at_end(self._sockets[number]):
                self._sockets.pop(number).close()
                self.closed += 1


def _is_at_end(connection: socket.socket) -> bool:
    try:
        while connection.recv(1 << 16):
            pass
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def allow_descriptors(count: int) -> None:
    """Let this process have so many open at once, or skip the test."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count:
        if hard < count:
            pytest.skip(f"a process may have {hard} descriptors here, of the {count} that this needs")
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))


def sockets_of(pid: int) -> int:
    """Return how many sockets a process has open."""
    count = 0
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed since the folder was read
            count += path.readlink().name.startswith("socket:")
    return count


def settled(pid: int, most: int, *, seconds: float) -> int:
    """Wait until a process has no more sockets than so many; return how many it has at the end."""
    until = time.monotonic() + seconds
    while (count := sockets_of(pid)) > most and time.monotonic() < until:
        time.sleep(0.05)
    return count


def resident_mebibytes(pid: int) -> int:
    """Return how much memory of the machine a process uses."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * resource.getpagesize() >> 20

"""Refuses, for the life of a process, every connection and look-up that leaves it.

Loaded by `pytest -p` before anything is imported.

An audit hook sees what a replaced `socket.socket` does not: sockets made while modules are imported, and by C code.
Unix sockets stay, event loops talk to themselves through one.
"""

from __future__ import annotations

import socket
import sys
from typing import Any

_OUTWARD = frozenset(
    {
        "socket.connect",
        "socket.sendto",
        "socket.sendmsg",
        "socket.getaddrinfo",
        "socket.gethostbyname",
        "socket.gethostbyaddr",
    }
)


class NetworkRefused(RuntimeError):
    """Something reached out."""


def refuse(event: str, args: tuple[Any, ...]) -> None:
    """Raise on an event that leads out of this process."""
    if event in _OUTWARD and getattr(args[0], "family", None) != socket.AF_UNIX:
        raise NetworkRefused(f"{event}: the standard suites run without a network")


sys.addaudithook(refuse)

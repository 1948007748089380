"""What belongs to users and was used last, up to a number of bytes; the least recently used goes first.

Knows nothing of what it keeps. Whatever is kept stands under its user, a digest and a fingerprint: another memory is another entry.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from threading import Lock
from typing import Generic, TypeVar

from locas_storage import UserKey

V = TypeVar("V")
Key = tuple[UserKey, str, str]
"""User, digest of the memory's payload ("" without one), fingerprint of the backbone."""


@dataclass(frozen=True, slots=True)
class Counts:
    """What became of what was asked for since the start, and what is kept now."""

    found: int
    dropped: int
    entries: int
    n_bytes: int


class Recent(Generic[V]):
    """A cache with a byte budget. May be called from several threads; values are handed out as they are, so they must not change."""

    def __init__(self) -> None:
        self._entries: OrderedDict[Key, tuple[V, int]] = OrderedDict()
        self._found = self._dropped = self._bytes = 0
        self._lock = Lock()

    @property
    def counts(self) -> Counts:
        """Count what was found, dropped for want of room, and is kept."""
        with self._lock:
            return Counts(self._found, self._dropped, len(self._entries), self._bytes)

    def get(self, key: Key) -> V | None:
        """Return what is kept under a key, which is now the most recently used."""
        with self._lock:
            if key not in self._entries:
                return None
            self._found += 1
            self._entries.move_to_end(key)
            return self._entries[key][0]

    def put(self, key: Key, value: V, *, n_bytes: int, limit: int) -> None:
        """Keep a value in place of what stood there; others go until all take at most `limit` bytes, but never this one."""
        with self._lock:
            self._remove(key)
            self._entries[key] = (value, n_bytes)
            self._bytes += n_bytes
            while self._bytes > limit and len(self._entries) > 1:
                self._dropped += 1
                self._remove(next(iter(self._entries)))

    def drop(self, user: UserKey, *, but: Key | None = None) -> None:
        """Let go of whatever is kept of a user, one entry excepted."""
        with self._lock:
            for key in [key for key in self._entries if key[0] == user and key != but]:
                self._remove(key)

    def _remove(self, key: Key) -> None:
        """Let go of one entry, if it is kept; the lock is held."""
        if (entry := self._entries.pop(key, None)) is not None:
            self._bytes -= entry[1]

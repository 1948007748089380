"""One answer of a user at a time, within this process.

The next question is journalled after the answer to the one before.

Other processes are not kept waiting: there a prompt ends with its own question all the same, see `replies.py`.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from threading import Lock
from weakref import WeakValueDictionary

from locas_storage import UserKey

PAUSE_SECONDS = 1.0
"""A stream whose reader has not asked for the next piece for so long lets others pass: it may never be read to its
end."""


class Hold:
    """One call's turn with one user, until it ends or is passed.

    A stream is ended by whichever thread collects it, even one that is just looking for its own turn. So everything
    here is done by single operations of plain locks, none of which waits.
    """

    def __init__(self, place: _Place) -> None:
        self._place = place
        self._has_ended = Lock()
        self._paused_at: float | None = None

    @property
    def is_left_alone(self) -> bool:
        """Whether a reader has been pausing for too long."""
        paused_at = self._paused_at
        return paused_at is not None and time.monotonic() - paused_at >= PAUSE_SECONDS

    @contextmanager
    def pausing(self) -> Iterator[None]:
        """Tell that the call waits for its reader."""
        self._paused_at = time.monotonic()
        try:
            yield
        finally:
            self._paused_at = None

    def end(self) -> None:
        """Let the next one in, once: the first to say so does it."""
        if self._has_ended.acquire(blocking=False):
            self._place.holder = None
            self._place.lock.release()


class _Place:
    """Where the calls of one user wait; kept as long as there are any."""

    def __init__(self) -> None:
        self.lock = Lock()
        self.holder: Hold | None = None

    def take(self) -> Hold:
        while not self.lock.acquire(timeout=PAUSE_SECONDS / 8):
            holder = self.holder
            if holder is not None and holder.is_left_alone:
                holder.end()
        self.holder = hold = Hold(self)
        return hold


class OneAtATime:
    """Has the calls of each user wait for each other, those of different users never.

    May be called from several threads.
    """

    def __init__(self) -> None:
        self._places: WeakValueDictionary[UserKey, _Place] = WeakValueDictionary()
        self._lock = Lock()

    def __len__(self) -> int:
        """Count the users of whom a call is under way or waits."""
        return len(self._places)

    @contextmanager
    def of(self, user: UserKey) -> Iterator[Hold]:
        """Wait until nobody else answers this user; the block may say that it waits for a reader."""
        with self._lock:
            place = self._places.get(user) or self._places.setdefault(user, _Place())
        hold = place.take()
        try:
            yield hold
        finally:
            hold.end()

    @contextmanager
    def all_of(self, users: Iterable[UserKey]) -> Iterator[None]:
        """Wait for several users, everybody in the same order, so that no two calls wait for each other."""
        with ExitStack() as held:
            for user in sorted(set(users), key=lambda one: (one.tenant, one.user)):
                held.enter_context(self.of(user))
            yield

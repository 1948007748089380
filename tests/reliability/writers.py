"""Owns many threads that append at once, and the ledger of what they were told."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from locas_storage import SqlMemoryStore, StoreUnavailable, TurnDraft, UserKey

EVERY_RETRIED = 10
"""Of so many turns one is sent again although it was acknowledged, as by a writer that did not hear the answer."""


@dataclass
class Writers:
    """Threads that say something as fast as they can, each for one of some users, again until it is acknowledged.

    Args:
        store: shared by all of them.
        users: thread number n writes to user n modulo their number.
        threads: how many.
        with_keys: whether a repeated turn has the same key.

    Attributes:
        acknowledged: the number in the journal of each text that was acknowledged, by user.
        retried: turns sent again because the answer was an error, by the name of the error's cause.
        errors: what ended a thread.
    """

    store: SqlMemoryStore
    users: Sequence[UserKey]
    threads: int
    with_keys: bool = True
    acknowledged: dict[UserKey, dict[str, int]] = field(init=False)
    retried: Counter[str] = field(default_factory=Counter)
    errors: list[BaseException] = field(default_factory=list)
    _over: threading.Event = field(default_factory=threading.Event)
    _running: list[threading.Thread] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.acknowledged = {key: {} for key in self.users}

    def __enter__(self) -> Writers:
        self._running = [threading.Thread(target=self._run, args=(number,)) for number in range(self.threads)]
        for thread in self._running:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._running:
            thread.join()

    def said_so_far(self) -> int:
        """Return how many turns are acknowledged."""
        return sum(map(len, self.acknowledged.values()))

    def _run(self, number: int) -> None:
        key = self.users[number % len(self.users)]
        count = 0
        try:
            while not self._over.is_set():
                text = f"thread {number} says {count}"
                self.acknowledged[key][text] = self._say(key, text, count)
                count += 1
        except BaseException as error:  # noqa: BLE001  a thread must not die unseen
            self.errors.append(error)

    def _say(self, key: UserKey, text: str, count: int) -> int:
        made = self._until_acknowledged(key, text, enqueue=1 << 40)
        if count % EVERY_RETRIED == 0:
            made = self._until_acknowledged(key, text)
        return made

    def _until_acknowledged(self, key: UserKey, text: str, **more: Any) -> int:
        while True:
            try:
                return self.store.append(
                    key,
                    [TurnDraft("user", text, idempotency_key=text if self.with_keys else None, token_count=5)],
                    **more,
                )[0].seq
            except StoreUnavailable as error:
                self.retried[type(error.__cause__).__name__] += 1
                time.sleep(0.05)


@dataclass(frozen=True)
class Kept:
    """What a store has of what it acknowledged.

    Attributes:
        acknowledged: turns.
        lost: how many of them are not there under the number that was told.
        doubled: texts that are there twice.
        gaps: numbers that are missing.
    """

    acknowledged: int
    lost: int
    doubled: int
    gaps: int


def kept_of(store: SqlMemoryStore, acknowledged: dict[UserKey, dict[str, int]]) -> Kept:
    """Compare a store with the ledger."""
    lost = doubled = gaps = 0
    for key, told in acknowledged.items():
        turns = store.turns(key)
        by_text: dict[str, int] = {turn.content: turn.seq for turn in turns}
        lost += sum(by_text.get(text) != seq for text, seq in told.items())
        doubled += len(turns) - len(by_text)
        gaps += gaps_in(turn.seq for turn in turns)
    return Kept(sum(map(len, acknowledged.values())), lost, doubled, gaps)


def gaps_in(seqs: Iterable[int]) -> int:
    """Return how many numbers are missing below the largest."""
    present = set(seqs)
    return max(present, default=0) - len(present)

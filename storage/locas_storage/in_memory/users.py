"""All users of an `InMemoryStore`, under one lock: what is kept of each, and who is told when it changes."""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from locas_storage.in_memory.user_data import UserData
from locas_storage.records.turns import UserKey
from locas_storage.rules import commit

Save = Callable[[UserData], None]
"""Called with everything of one user after each change of it, under the lock and before the change is acknowledged."""


class Users:
    """What belongs to each user.

    Args:
        kept: what an earlier process saved.
        save: keeps what changed; None keeps nothing beyond this process.
    """

    def __init__(self, kept: Iterable[UserData] = (), save: Save | None = None) -> None:
        self.lock = threading.RLock()
        self.of: dict[UserKey, UserData] = {data.state.key: data for data in kept}
        self._save = save

    @contextmanager
    def changing(self, key: UserKey) -> Iterator[None]:
        """Hold the lock while a user is changed, and save what belongs to the user if that went well."""
        with self.lock:
            yield
            self.changed(key)

    def changed(self, key: UserKey) -> None:
        """Save what belongs to a user; the lock is held."""
        if self._save is not None and (data := self.of.get(key)) is not None:
            self._save(data)

    def living(self, key: UserKey) -> UserData:
        """Return what belongs to a user who is known and not erased.

        Raises:
            UnknownUser: there never was such a user.
            UserErased: the user was erased.
        """
        data = self.known(key)
        if data.is_erased:
            raise commit.erased(key)
        return data

    def known(self, key: UserKey) -> UserData:
        """Return what belongs to a user, a tombstone included.

        Raises:
            UnknownUser: there never was such a user.
        """
        data = self.of.get(key)
        commit.require_user(data.state if data else None, key)
        assert data is not None
        return data

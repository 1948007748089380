"""Owns the way from a user's row to the seal of the user's content: whether there is a data key, unwrapping it, making one, wrapping it anew.

Knows nothing of what is sealed. Every method that takes a connection works within the caller's transaction.
"""

import os
import threading
from collections import OrderedDict

from sqlalchemy import Connection, select, update

from locas_storage import counters, rows
from locas_storage.crypto import KEY_BYTES, OPEN_WITH_KEYS, Clear, Encrypted, Seal, aes_gcm, packed
from locas_storage.errors import EncryptionMismatch, KeyUnavailable
from locas_storage.keys import KeyProvider
from locas_storage.records import UserKey, UserState
from locas_storage.schema import subject

CLEAR = Clear()
_MOST_REMEMBERED = 1024
"""Users whose data key is kept in this process, so that a key service is not asked for each turn."""


class Vault:
    """The data keys of a store's users.

    Args:
        provider: wraps and unwraps them; None for a store that keeps content as it is.

    Raises:
        StoreUnavailable: `cryptography` is not installed.
    """

    def __init__(self, provider: KeyProvider | None) -> None:
        self._provider = provider
        self._remembered: OrderedDict[tuple[UserKey, bytes], Encrypted] = OrderedDict()
        self._lock = threading.Lock()
        if provider is not None:
            aes_gcm(bytes(KEY_BYTES))

    def seal(self, connection: Connection, key: UserKey) -> Seal:
        """Return how a user's content is kept; of an unknown or erased user nothing can be opened.

        Raises:
            EncryptionMismatch: the user's content is encrypted and this store has no keys, or the other way round.
            KeyUnavailable: the data key cannot be unwrapped.
        """
        query = select(subject.c.next_seq, subject.c.wrapped_dek, subject.c.kek_id).where(rows.of(subject, key), subject.c.erased_at.is_(None))
        row = connection.execute(query).one_or_none()
        if self._provider is None:
            if row is not None and row.wrapped_dek is not None:
                raise _locked(key)
            return CLEAR
        if row is None:
            return Encrypted(key, os.urandom(KEY_BYTES))  # opens nothing: a clear row put there is refused, not shown
        if row.wrapped_dek is None:
            raise _plain(key)
        return self._opened(self._provider, key, row.kek_id, bytes(row.wrapped_dek))

    def seal_for_append(self, connection: Connection, state: UserState) -> Seal:
        """Return how the content of a locked user is kept; one who has no turns yet gets a data key.

        Raises:
            EncryptionMismatch: the user's content is encrypted and this store has no keys, or the other way round.
            KeyUnavailable: the data key cannot be wrapped or unwrapped.
        """
        if self._provider is None:
            if state.is_encrypted:
                raise _locked(state.key)
            return CLEAR
        if state.is_encrypted or state.next_seq > 1:
            return self.seal(connection, state.key)
        data_key, kek_id = os.urandom(KEY_BYTES), self._provider.current_key_id
        wrapped = self._provider.wrap(kek_id, data_key, context(state.key))
        connection.execute(update(subject).where(rows.of(subject, state.key)).values(wrapped_dek=wrapped, kek_id=kek_id))
        return Encrypted(state.key, data_key)

    def rewrap(self, connection: Connection, key: UserKey) -> bool:
        """Wrap the data key of a user under the provider's current key; tell whether it was under another. Content stays as it is.

        Raises:
            EncryptionMismatch: this store has no keys.
            KeyUnavailable: the data key cannot be wrapped or unwrapped.
        """
        if self._provider is None:
            raise EncryptionMismatch(f"keys cannot be rotated without any; {OPEN_WITH_KEYS}")
        if counters.locked_if_there(connection, key, skip_locked=False) is None:
            return False
        row = connection.execute(select(subject.c.wrapped_dek, subject.c.kek_id).where(rows.of(subject, key))).one()
        current = self._provider.current_key_id
        if row.wrapped_dek is None or row.kek_id == current:
            return False
        data_key = self._provider.unwrap(row.kek_id, bytes(row.wrapped_dek), context(key))
        wrapped = self._provider.wrap(current, data_key, context(key))
        connection.execute(update(subject).where(rows.of(subject, key)).values(wrapped_dek=wrapped, kek_id=current))
        return True

    def forget(self, key: UserKey) -> None:
        """Drop the data keys of an erased user from this process."""
        with self._lock:
            for known in [known for known in self._remembered if known[0] == key]:
                del self._remembered[known]

    def _opened(self, provider: KeyProvider, key: UserKey, kek_id: str | None, wrapped: bytes) -> Encrypted:
        with self._lock:
            known = self._remembered.get((key, wrapped))
            if known is not None:
                self._remembered.move_to_end((key, wrapped))
                return known
        data_key = provider.unwrap(kek_id or "", wrapped, context(key))
        if len(data_key) != KEY_BYTES:
            raise KeyUnavailable(f"the key provider gave a data key of {len(data_key)} bytes, expected {KEY_BYTES}")
        made = Encrypted(key, data_key)
        with self._lock:
            self._remembered[key, wrapped] = made
            while len(self._remembered) > _MOST_REMEMBERED:
                self._remembered.popitem(last=False)
        return made


def context(key: UserKey) -> bytes:
    """Return what a wrapped data key is bound to: one user's key does not open as another's."""
    return packed(key.tenant, key.user)


def _locked(key: UserKey) -> EncryptionMismatch:
    return EncryptionMismatch(f"the content of user #{key.short_hash} is encrypted and the store was opened without keys; {OPEN_WITH_KEYS}")


def _plain(key: UserKey) -> EncryptionMismatch:
    return EncryptionMismatch(
        f"the content of user #{key.short_hash} is kept in the clear and this store encrypts: open it without key_provider=, or put the journal "
        "into a new encrypted database"
    )

"""Owns the way from a user's row to the cipher of the user's content.

Whether there is a data key, unwrapping it, making one, wrapping it again.

Every method that takes a connection works within the caller's transaction.
"""

import os
import threading
from collections import OrderedDict

from sqlalchemy import Connection, select, update

from locas_storage.encryption.envelope import CLEAR, KEY_BYTES, OPEN_WITH_KEYS, Cipher, Encrypted, aes_gcm, packed
from locas_storage.encryption.keys import KeyProvider
from locas_storage.errors import EncryptionMismatch, KeyUnavailable
from locas_storage.records.turns import UserKey
from locas_storage.sql.statements import users
from locas_storage.sql.tables import rows
from locas_storage.sql.tables.schema import subject

_MOST_REMEMBERED = 1024
"""Users whose data key is kept in this process, so that a key service is not asked for each turn."""


class DataKeys:
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

    @property
    def has_keys(self) -> bool:
        """Whether content is kept encrypted."""
        return self._provider is not None

    @property
    def remembered(self) -> int:
        """How many data keys this process holds."""
        return len(self._remembered)

    def cipher(self, connection: Connection, key: UserKey) -> Cipher:
        """Return how a user's content is kept; of an unknown or erased user nothing can be opened.

        Raises:
            EncryptionMismatch: the user's content is encrypted and this store has no keys, or the other way round.
            KeyUnavailable: the data key cannot be unwrapped.
        """
        query = select(subject.c.next_seq, subject.c.wrapped_dek, subject.c.kek_id).where(
            rows.belongs_to(subject, key), subject.c.erased_at.is_(None)
        )
        row = connection.execute(query).one_or_none()
        if row is None or (
            row.wrapped_dek is None and row.next_seq == 1
        ):  # nobody, or somebody who has begun again and said nothing yet
            # What a store with keys then has opens nothing: a clear row put there is refused, not shown.
            return CLEAR if self._provider is None else Encrypted(key, os.urandom(KEY_BYTES))
        return self._known(key, row.kek_id, row.wrapped_dek)

    def cipher_for_append(self, connection: Connection, user: users.Reserved) -> Cipher:
        """Return how the content of a locked user is kept; one who has no turns yet gets a data key.

        Raises:
            EncryptionMismatch: the user's content is encrypted and this store has no keys, or the other way round.
            KeyUnavailable: the data key cannot be wrapped or unwrapped.
        """
        if user.wrapped_dek is not None or user.first > 1 or self._provider is None:
            return self._known(user.key, user.kek_id, user.wrapped_dek)
        return self.give_key(connection, user.key)

    def give_key(self, connection: Connection, key: UserKey) -> Cipher:
        """Make a data key for a locked user whose content is in the clear or not there yet; return how it is kept then.

        Raises:
            EncryptionMismatch: this store has no keys.
            KeyUnavailable: the data key cannot be wrapped.
        """
        provider = self.require_keys()
        data_key, kek_id = os.urandom(KEY_BYTES), provider.current_key_id
        wrapped = provider.wrap(kek_id, data_key, context(key))
        connection.execute(
            update(subject).where(rows.belongs_to(subject, key)).values(wrapped_dek=wrapped, kek_id=kek_id)
        )
        return Encrypted(key, data_key)

    def require_keys(self) -> KeyProvider:
        """Return what wraps data keys.

        Raises:
            EncryptionMismatch: this store has no keys.
        """
        if self._provider is None:
            raise EncryptionMismatch(f"this cannot be done without keys; {OPEN_WITH_KEYS}")
        return self._provider

    def rewrap(self, connection: Connection, key: UserKey) -> bool:
        """Wrap the data key of a user under the provider's current key; tell whether it was under another.

        Content stays as it is.

        Raises:
            EncryptionMismatch: this store has no keys.
            KeyUnavailable: the data key cannot be wrapped or unwrapped.
        """
        provider = self.require_keys()
        if users.locked_if_there(connection, key, skip_locked=False) is None:
            return False
        row = connection.execute(
            select(subject.c.wrapped_dek, subject.c.kek_id).where(rows.belongs_to(subject, key))
        ).one()
        current = provider.current_key_id
        if row.wrapped_dek is None or row.kek_id == current:
            return False
        data_key = provider.unwrap(row.kek_id, bytes(row.wrapped_dek), context(key))
        wrapped = provider.wrap(current, data_key, context(key))
        connection.execute(
            update(subject).where(rows.belongs_to(subject, key)).values(wrapped_dek=wrapped, kek_id=current)
        )
        return True

    def forget(self, key: UserKey) -> None:
        """Drop the data keys of an erased user from this process."""
        with self._lock:
            for known in [known for known in self._remembered if known[0] == key]:
                del self._remembered[known]

    def _known(self, key: UserKey, kek_id: str | None, wrapped: bytes | None) -> Cipher:
        """Return how the content of a user is kept who has some."""
        if self._provider is None:
            if wrapped is not None:
                raise _locked(key)
            return CLEAR
        if wrapped is None:
            raise _plain(key)
        return self._opened(self._provider, key, kek_id, bytes(wrapped))

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
    return EncryptionMismatch(
        f"the content of user #{key.short_hash} is encrypted and the store was opened without keys; {OPEN_WITH_KEYS}"
    )


def _plain(key: UserKey) -> EncryptionMismatch:
    return EncryptionMismatch(
        f"the content of user #{key.short_hash} is kept in the clear and this store encrypts: open it without "
        "key_provider=, or encrypt "
        "it with `locas-agent keys encrypt`"
    )

"""Owns the envelope around a user's content: how bytes are encrypted, bound to their place, and digested.

AES-256-GCM; `cryptography` is imported only where something is encrypted (extra `encryption`).

A ciphertext is bound to its user and its place: read as another row's it is refused. Digests of encrypted content are
keyed, so that they tell nobody which texts are equal. Kept form: two bytes that no UTF-8 text begins with (a mark and
the version of the format), 12 bytes of random nonce, 16 bytes of tag, then as many bytes as the content has.
"""

import hashlib
import hmac
import os
from collections.abc import Iterable
from typing import Any, Protocol

from locas_storage.errors import CorruptPayload, EncryptionMismatch, StoreUnavailable
from locas_storage.records.turns import UserKey
from locas_storage.rules import commit

Place = tuple[str, ...]
"""Where a content belongs within its user: kind, number or id, and what else tells it from its neighbours."""

MARK = b"\xff\x01"
OPEN_WITH_KEYS = "open it with key_provider=, on the command line with --key-file"
KEY_BYTES = 32
_NONCE_BYTES, _TAG_BYTES = 12, 16
HEADER_BYTES = len(MARK) + _NONCE_BYTES + _TAG_BYTES


def turn_place(seq: int) -> Place:
    """Return the place of a turn's text."""
    return "turn", str(seq)


def item_place(item_id: str, field: str) -> Place:
    """Return the place of one field of a study item."""
    return "item", item_id, field


def payload_place(number: int, fingerprint: str, digest: str) -> Place:
    """Return the place of a payload: the revision that made it, its backbone, and the digest of the clear bytes."""
    return "payload", str(number), fingerprint, digest


class Cipher(Protocol):
    """How one user's content is kept: as it is, or encrypted."""

    @property
    def is_encrypting(self) -> bool:
        """Whether what is kept is a ciphertext."""
        ...

    def encrypt(self, place: Place, content: bytes) -> bytes:
        """Return content in the form it is kept in."""
        ...

    def decrypt(self, place: Place, kept: bytes) -> bytes:
        """Return the content that is kept.

        Raises:
            EncryptionMismatch: it is clear and should be encrypted, or the other way round.
            CorruptPayload: it was altered, or belongs to another place, user or key.
        """
        ...

    def encrypt_apart(self, place: Place, content: bytes) -> tuple[bytes | None, bytes]:
        """Return a header and bytes as long as the content; None as a header where nothing is encrypted."""
        ...

    def decrypt_apart(self, place: Place, header: bytes | None, kept: bytes) -> bytes:
        """Return the content that is kept beside a header; raises as `decrypt` does."""
        ...

    def digest(self, place: Place, content: bytes) -> bytes:
        """Return 32 bytes that change with the content."""
        ...

    def span_digest(self, digests: Iterable[bytes]) -> str:
        """Return the digest of a span of turns, over the digests of their contents, hexadecimal."""
        ...


class Plaintext:
    """Content as it is, with plain SHA-256. A ciphertext is refused."""

    is_encrypting = False

    def encrypt(self, place: Place, content: bytes) -> bytes:
        """See `Cipher.encrypt`."""
        return content

    def decrypt(self, place: Place, kept: bytes) -> bytes:
        """See `Cipher.decrypt`."""
        if kept.startswith(MARK) and place[-1] != "teacher":  # opaque bytes may begin so; its question is opened before
            raise EncryptionMismatch(
                f"{place[0]} is kept encrypted and the store was opened without keys; {OPEN_WITH_KEYS}"
            )
        return kept

    def encrypt_apart(self, place: Place, content: bytes) -> tuple[bytes | None, bytes]:
        """See `Cipher.encrypt_apart`."""
        return None, content

    def decrypt_apart(self, place: Place, header: bytes | None, kept: bytes) -> bytes:
        """See `Cipher.decrypt_apart`."""
        if header is not None:
            raise EncryptionMismatch(
                f"{place[0]} is kept encrypted and the store was opened without keys; {OPEN_WITH_KEYS}"
            )
        return kept

    def digest(self, place: Place, content: bytes) -> bytes:
        """See `Cipher.digest`."""
        return hashlib.sha256(content).digest()

    def span_digest(self, digests: Iterable[bytes]) -> str:
        """See `Cipher.span_digest`."""
        return commit.turns_digest(digests)


class Encrypted:
    """Content under one user's data key.

    Args:
        key: whose content; every ciphertext is bound to it.
        data_key: 32 bytes. Encryption and digests use a key of their own each, derived from it.
    """

    is_encrypting = True

    def __init__(self, key: UserKey, data_key: bytes) -> None:
        self._owner = (key.tenant, key.user)
        self._cipher = aes_gcm(_derived(data_key, b"encrypt"))
        self._digest_key = _derived(data_key, b"digest")

    def __repr__(self) -> str:
        return "Encrypted(...)"

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Encrypted)
            and self._owner == other._owner
            and hmac.compare_digest(self._digest_key, other._digest_key)
        )

    __hash__ = None  # type: ignore[assignment]  # compared, never looked up

    def encrypt(self, place: Place, content: bytes) -> bytes:
        """See `Cipher.encrypt`."""
        return b"".join(self.encrypt_apart(place, content))

    def decrypt(self, place: Place, kept: bytes) -> bytes:
        """See `Cipher.decrypt`."""
        return self.decrypt_apart(place, kept[:HEADER_BYTES], kept[HEADER_BYTES:])

    def encrypt_apart(self, place: Place, content: bytes) -> tuple[bytes, bytes]:
        """See `Cipher.encrypt_apart`."""
        nonce = os.urandom(_NONCE_BYTES)
        sealed = self._cipher.encrypt(nonce, content, self._bound(place))
        return MARK + nonce + sealed[len(content) :], sealed[: len(content)]

    def decrypt_apart(self, place: Place, header: bytes | None, kept: bytes) -> bytes:
        """See `Cipher.decrypt_apart`."""
        from cryptography.exceptions import InvalidTag

        if header is None or len(header) != HEADER_BYTES or not header.startswith(MARK):
            raise EncryptionMismatch(
                f"{place[0]} is kept in the clear and the store encrypts; it was put there by another program"
            )
        nonce, tag = header[len(MARK) : len(MARK) + _NONCE_BYTES], header[-_TAG_BYTES:]
        try:
            return bytes(self._cipher.decrypt(nonce, kept + tag, self._bound(place)))
        except InvalidTag:
            raise CorruptPayload(
                f"{place[0]} was altered or belongs to another place, user or key; restore the database from a backup"
            ) from None

    def digest(self, place: Place, content: bytes) -> bytes:
        """See `Cipher.digest`."""
        return hmac.digest(self._digest_key, packed(*place) + content, "sha256")

    def span_digest(self, digests: Iterable[bytes]) -> str:
        """See `Cipher.span_digest`."""
        return hmac.digest(self._digest_key, packed("span") + b"".join(digests), "sha256").hex()

    def _bound(self, place: Place) -> bytes:
        return packed("locas-agent", MARK.hex(), *self._owner, *place)


def aes_gcm(key: bytes) -> Any:
    """Return AES-256-GCM under a key.

    Raises:
        StoreUnavailable: `cryptography` is not installed.
    """
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    except ImportError as error:
        raise StoreUnavailable("encryption needs the package cryptography; install locas-agent[encryption]") from error
    return AESGCM(key)


def packed(*parts: str) -> bytes:
    """Return parts as bytes, each behind its length, so that no two tuples give the same bytes."""
    encoded = [part.encode() for part in parts]
    return len(parts).to_bytes(4, "big") + b"".join(len(part).to_bytes(4, "big") + part for part in encoded)


def _derived(data_key: bytes, purpose: bytes) -> bytes:
    return hmac.digest(data_key, b"locas-agent " + purpose, "sha256")


CLEAR = Plaintext()

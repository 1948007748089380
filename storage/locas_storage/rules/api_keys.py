"""Owns the form of an API key's secret, its digest, and how it is compared.

A secret is `locas-`, 16 hexadecimal digits that name the key, `-`, and 256 random bits. A store keeps the SHA-256 of
all of it: what is that random cannot be guessed from its digest, so no slow hash is needed.
"""

import hashlib
import hmac
import re
import secrets

from locas_storage.errors import ApiKeyNotFound

_SECRET = re.compile(r"locas-([0-9a-f]{16})-[A-Za-z0-9_-]{43}")
_NOBODY = bytes(32)
"""What the digest of a key that there is not is compared with."""


def new_secret() -> tuple[str, str]:
    """Return a fresh key's id, and its secret."""
    key_id = secrets.token_hex(8)
    return key_id, f"locas-{key_id}-{secrets.token_urlsafe(32)}"


def id_in(secret: str) -> str | None:
    """Return which key a secret names; None where it has not the form of one."""
    found = _SECRET.fullmatch(secret)
    return found and found[1]


def digest(secret: str) -> bytes:
    """Return what a store keeps of a secret, 32 bytes."""
    return hashlib.sha256(secret.encode()).digest()


def is_same(secret: str, kept: bytes | None) -> bool:
    """Tell whether a secret is the one of which a digest was kept, in a time that does not depend on either.

    Args:
        secret: what a client sent, in the form of a secret.
        kept: the digest; None where there is no such key.
    """
    return hmac.compare_digest(digest(secret), _NOBODY if kept is None else kept) and kept is not None


def not_found(key_id: str) -> ApiKeyNotFound:
    """Word the error of a key that there is not."""
    shown = f"{key_id!r}" if re.fullmatch(r"[0-9a-f]{16}", key_id) else f"a text of {len(key_id)} characters"
    return ApiKeyNotFound(
        f"no API key in force has the id {shown}; `locas-agent keys api list` shows those there are, by their ids of "
        "16 hexadecimal digits"
    )

"""What a request to vLLM names: the model of one memory, and the salt of its user's prefixes.

It knows a store and nothing of vLLM.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass
from typing import Self

from locas_agent.errors import ConfigurationError
from locas_storage import MemoryStore, UserKey

MIN_SECRET_BYTES = 16
"""Shortest secret of salts: one that can be guessed lets a stranger share prefixes."""

_NUMBER = r"[1-9][0-9]{0,17}"
_NAME = re.compile(rf"(?P<user>.+)@(?:(?P<life>{_NUMBER})\.)?(?P<revision>{_NUMBER})", re.ASCII | re.DOTALL)


@dataclass(frozen=True, slots=True)
class MemoryName:
    """The name of one memory, used for it and never again.

    Written `user@revision`. Erasing a user begins the numbers of revisions anew, so those of a user who came back are
    written `user@life.revision`, with `life` counting the erasures. Each memory has one spelling.

    Attributes:
        user: within the tenant that the server serves; may hold any character, an @ too.
        life: how often the user had been erased when it was learnt.
        revision: number of the revision.
    """

    user: str
    life: int
    revision: int

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Read a name; None for any text that names no memory."""
        found = _NAME.fullmatch(text)
        if found is None:
            return None
        return cls(found["user"], int(found["life"] or 0), int(found["revision"]))

    def __str__(self) -> str:
        """Return the name as a request gives it."""
        return f"{self.user}@{f'{self.life}.' if self.life else ''}{self.revision}"

    def __repr__(self) -> str:
        """Return the numbers alone: a name tells who it is."""
        return f"MemoryName(life={self.life}, revision={self.revision})"


@dataclass(frozen=True, slots=True)
class ServedAs:
    """What a request for one user says to vLLM beside its messages.

    Attributes:
        model: name of the user's memory; None where the user has none, and the padded backbone answers by its own name.
        cache_salt: keeps the user's prefixes apart from all others', those of users without a memory too.
        fingerprint: of the backbone without the padding: a server of that one has the memory. Empty for any.
    """

    model: str | None
    cache_salt: str
    fingerprint: str


def served_as(store: MemoryStore, key: UserKey, *, secret: bytes) -> ServedAs:
    """Return what a request for a user says now: the name of the current memory, and the salt.

    Ask before each request: after a consolidation, a rollback or a forgetting it is another name. Turns whose time is
    over are forgotten first.

    Args:
        store: of the users.
        key: who asks; whoever calls has made sure of that.
        secret: the operator's, of 16 bytes or more, the same in all processes that send requests.

    Raises:
        ConfigurationError: the secret is too short.
    """
    salt = cache_salt(key, secret=secret)
    store.expire(key)
    state, head = store.state(key), store.revision(key)
    if state is None or head is None:
        return ServedAs(None, salt, "")
    if not head.has_payload:
        return ServedAs(None, salt, head.fingerprint)
    return ServedAs(str(MemoryName(key.user, state.epoch, head.number)), salt, head.fingerprint)


def cache_salt(key: UserKey, *, secret: bytes) -> str:
    """Return the salt of a user's prefixes: 64 hexadecimal digits that nobody can guess without the secret.

    Raises:
        ConfigurationError: the secret is too short.
    """
    if len(secret) < MIN_SECRET_BYTES:
        raise ConfigurationError(f"secret: got {len(secret)} bytes, expected {MIN_SECRET_BYTES} or more random ones")
    return hmac.new(secret, key.digest.encode(), hashlib.sha256).hexdigest()

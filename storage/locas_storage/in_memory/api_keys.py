"""`InMemoryApiKeys`: the keys of a server in this process's memory."""

import threading
from dataclasses import replace

from locas_storage.in_memory.user_data import utc_now
from locas_storage.records.api_keys import ApiKey, NewApiKey, check_owner
from locas_storage.records.turns import UserKey
from locas_storage.rules import api_keys as rules
from locas_storage.rules import commit


class InMemoryApiKeys:
    """`ApiKeys` in dictionaries; they end with the process."""

    def __init__(self) -> None:
        self._keys: dict[str, ApiKey] = {}
        self._digests: dict[str, bytes] = {}
        self._lock = threading.Lock()

    def new(self, tenant: str, user: str | None = None, *, label: str = "") -> NewApiKey:
        """See `ApiKeys.new`."""
        check_owner(tenant, user, label)
        key_id, secret = rules.new_secret()
        made = ApiKey(key_id, tenant, user, label, utc_now())
        with self._lock:
            self._keys[key_id], self._digests[key_id] = made, rules.digest(secret)
        return NewApiKey(made, secret)

    def holder(self, secret: str) -> ApiKey | None:
        """See `ApiKeys.holder`."""
        key_id = rules.id_in(secret)
        if key_id is None:
            return None
        with self._lock:
            found, digest = self._keys.get(key_id), self._digests.get(key_id)
        is_holder = rules.is_same(secret, digest)
        return found if is_holder and found is not None and found.is_in_force else None

    def keys(self, tenant: str | None = None) -> list[ApiKey]:
        """See `ApiKeys.keys`."""
        commit.check_tenant(tenant)
        with self._lock:
            return [key for key in self._keys.values() if tenant in (None, key.tenant)]

    def revoke(self, key_id: str) -> ApiKey:
        """See `ApiKeys.revoke`."""
        with self._lock:
            found = self._keys.get(key_id)
            if found is None or not found.is_in_force:
                raise rules.not_found(key_id)
            self._keys[key_id] = replace(found, revoked_at=utc_now())
            return self._keys[key_id]

    def drop(self, key: UserKey) -> None:
        """Remove the keys that stand for a user who is erased."""
        with self._lock:
            gone = [one.key_id for one in self._keys.values() if (one.tenant, one.user) == (key.tenant, key.user)]
            for key_id in gone:
                del self._keys[key_id], self._digests[key_id]

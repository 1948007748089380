"""Owns `SqlApiKeys`: the keys of a server in an SQL database, one transaction for each call."""

from typing import Any

from sqlalchemy import Row, insert, select, update

from locas_storage.records.api_keys import ApiKey, NewApiKey, check_owner
from locas_storage.rules import api_keys as rules
from locas_storage.rules import commit
from locas_storage.sql.queue import Transaction
from locas_storage.sql.tables.columns import DbNow
from locas_storage.sql.tables.schema import api_key


class SqlApiKeys:
    """`ApiKeys` in an SQL database.

    Args:
        read: begins a transaction that reads.
        write: begins one that writes.
    """

    def __init__(self, read: Transaction, write: Transaction) -> None:
        self._read = read
        self._write = write

    def new(self, tenant: str, user: str | None = None, *, label: str = "") -> NewApiKey:
        """See `ApiKeys.new`."""
        check_owner(tenant, user, label)
        key_id, secret = rules.new_secret()
        values = {"key_id": key_id, "tenant_id": tenant, "subject_id": user, "label": label}
        with self._write() as connection:
            row = connection.execute(
                insert(api_key)
                .values(**values, secret_sha256=rules.digest(secret), created_at=DbNow())
                .returning(*api_key.c)
            ).one()
        return NewApiKey(_key(row), secret)

    def holder(self, secret: str) -> ApiKey | None:
        """See `ApiKeys.holder`."""
        key_id = rules.id_in(secret)
        if key_id is None:
            return None
        with self._read() as connection:
            row = connection.execute(select(api_key).where(api_key.c.key_id == key_id)).one_or_none()
        if not rules.is_same(secret, None if row is None else bytes(row.secret_sha256)) or row is None:
            return None
        found = _key(row)
        return found if found.is_in_force else None

    def keys(self, tenant: str | None = None) -> list[ApiKey]:
        """See `ApiKeys.keys`."""
        commit.check_tenant(tenant)
        query = select(api_key).order_by(api_key.c.created_at, api_key.c.key_id)
        if tenant is not None:
            query = query.where(api_key.c.tenant_id == tenant)
        with self._read() as connection:
            return [_key(row) for row in connection.execute(query)]

    def revoke(self, key_id: str) -> ApiKey:
        """See `ApiKeys.revoke`."""
        with self._write() as connection:
            row = connection.execute(
                update(api_key)
                .where(api_key.c.key_id == key_id, api_key.c.revoked_at.is_(None))
                .values(revoked_at=DbNow())
                .returning(*api_key.c)
            ).one_or_none()
        if row is None:
            raise rules.not_found(key_id)
        return _key(row)


def _key(row: Row[Any]) -> ApiKey:
    return ApiKey(row.key_id, row.tenant_id, row.subject_id, row.label, row.created_at, row.revoked_at)

"""Owns `ApiKey`: who may call a server, and for whom. The secret itself is in no record."""

import datetime as dt
from dataclasses import dataclass, field

from locas_storage.records.bounds import MAX_LABEL_CHARS, check_text
from locas_storage.records.turns import UserKey


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key of a server: it stands for a tenant, or for one user of it.

    Attributes:
        key_id: 16 hexadecimal digits, the part of the secret that names the key; no secret.
        tenant: the application or customer whose users it may name.
        user: the one user whom it stands for; None where it stands for the tenant.
        label: what the operator calls it.
        created_at: aware UTC, by the store's clock.
        revoked_at: since when it is refused, aware UTC; None while it is in force.
    """

    key_id: str
    tenant: str = field(repr=False)
    user: str | None = field(repr=False)
    label: str = field(repr=False)
    created_at: dt.datetime
    revoked_at: dt.datetime | None = None

    @property
    def is_in_force(self) -> bool:
        """Whether it is accepted."""
        return self.revoked_at is None


@dataclass(frozen=True, slots=True)
class NewApiKey:
    """A key that was just made, with its secret, which is shown once and kept nowhere.

    Attributes:
        key: what the store keeps.
        secret: what a client sends.
    """

    key: ApiKey
    secret: str = field(repr=False)


def check_owner(tenant: str, user: str | None, label: str) -> None:
    """Refuse an owner whom no turn could belong to, and a label that cannot be kept.

    Raises:
        InvalidTurn: a name is blank, too long, or holds what databases refuse.
    """
    UserKey(tenant, "anybody" if user is None else user)
    check_text("label", label, max_chars=MAX_LABEL_CHARS)

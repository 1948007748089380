"""Owns the public names of the storage package.

Knows nothing of tensors, tokens or language models: an operator can read or migrate a store without torch.
"""

from locas_storage.base import MemoryStore
from locas_storage.errors import (
    CorruptPayload,
    ForeignDatabase,
    InvalidRevision,
    InvalidTurn,
    LocasError,
    RevisionConflict,
    RevisionNotFound,
    SchemaOutdated,
    StorageError,
    StorageFull,
    StoreUnavailable,
    UnknownUser,
)
from locas_storage.in_memory import InMemoryStore
from locas_storage.opening import SchemaVersion, schema_version, upgrade_schema
from locas_storage.records import (
    AuditEntry,
    Revision,
    RevisionDraft,
    StudyItem,
    StudyItemDraft,
    Turn,
    TurnDraft,
    UserKey,
    UserState,
    new_item_id,
)
from locas_storage.sql import SqlMemoryStore, open_store

__all__ = [
    "AuditEntry",
    "CorruptPayload",
    "ForeignDatabase",
    "InMemoryStore",
    "InvalidRevision",
    "InvalidTurn",
    "LocasError",
    "MemoryStore",
    "Revision",
    "RevisionConflict",
    "RevisionDraft",
    "RevisionNotFound",
    "SchemaOutdated",
    "SchemaVersion",
    "SqlMemoryStore",
    "StorageError",
    "StorageFull",
    "StoreUnavailable",
    "StudyItem",
    "StudyItemDraft",
    "Turn",
    "TurnDraft",
    "UnknownUser",
    "UserKey",
    "UserState",
    "new_item_id",
    "open_store",
    "schema_version",
    "upgrade_schema",
]

"""Owns the public names of the storage package.

Knows nothing of tensors, tokens or language models: an operator can read or migrate a store without torch.
"""

from locas_storage.base import JobQueue, MemoryStore
from locas_storage.bounds import new_item_id
from locas_storage.engine import shown_url
from locas_storage.errors import (
    CorruptPayload,
    EncryptionMismatch,
    ForeignDatabase,
    InvalidRevision,
    InvalidTurn,
    KeyUnavailable,
    LeaseLost,
    LocasError,
    RevisionConflict,
    RevisionNotFound,
    SchemaOutdated,
    StorageError,
    StorageFull,
    StoreUnavailable,
    TurnNotFound,
    UnknownUser,
    UserErased,
)
from locas_storage.in_memory import InMemoryStore
from locas_storage.keys import EnvironmentKeyProvider, FileKeyProvider, KeyProvider, add_key, new_key_file, retire_keys
from locas_storage.learnt import Revision, RevisionDraft, StudyItem, StudyItemDraft
from locas_storage.leases import Job, Lease
from locas_storage.opening import SchemaVersion, check_schema, schema_version, upgrade_schema
from locas_storage.receipts import Conversion, CorrectedTurn, Receipt
from locas_storage.records import IMPORTED, AuditEntry, FoundTurn, Turn, TurnDraft, UserKey, UserState, answer_key
from locas_storage.sql import SqlMemoryStore, open_store
from locas_storage.verify import Fault, Verification

__all__ = [
    "IMPORTED",
    "AuditEntry",
    "Conversion",
    "CorrectedTurn",
    "CorruptPayload",
    "EncryptionMismatch",
    "EnvironmentKeyProvider",
    "Fault",
    "FileKeyProvider",
    "ForeignDatabase",
    "FoundTurn",
    "InMemoryStore",
    "InvalidRevision",
    "InvalidTurn",
    "Job",
    "JobQueue",
    "KeyProvider",
    "KeyUnavailable",
    "Lease",
    "LeaseLost",
    "LocasError",
    "MemoryStore",
    "Receipt",
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
    "TurnNotFound",
    "UnknownUser",
    "UserErased",
    "UserKey",
    "UserState",
    "Verification",
    "add_key",
    "answer_key",
    "check_schema",
    "new_item_id",
    "new_key_file",
    "open_store",
    "retire_keys",
    "schema_version",
    "shown_url",
    "upgrade_schema",
]

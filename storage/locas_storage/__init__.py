"""Owns the public names of the storage package."""

from locas_storage.encryption.keys import (
    EnvironmentKeyProvider,
    FileKeyProvider,
    KeyProvider,
    add_key,
    new_key_file,
    retire_keys,
)
from locas_storage.errors import (
    ApiKeyNotFound,
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
from locas_storage.in_memory.store import InMemoryStore
from locas_storage.in_memory.user_data import UserData
from locas_storage.records.api_keys import ApiKey, NewApiKey
from locas_storage.records.bounds import new_item_id
from locas_storage.records.jobs import Job, Lease
from locas_storage.records.metrics import ConsolidationMetrics, CoverageMetrics, MemoryMetrics, NormMetrics
from locas_storage.records.receipts import Conversion, CorrectedTurn, Receipt
from locas_storage.records.revisions import Revision, RevisionDraft, StudyItem, StudyItemDraft
from locas_storage.records.turns import IMPORTED, AuditEntry, FoundTurn, Turn, TurnDraft, UserKey, UserState, answer_key
from locas_storage.sql.database.engine import shown_url
from locas_storage.sql.maintenance.verify import Fault, Verification
from locas_storage.sql.store import SqlMemoryStore, open_store
from locas_storage.sql.version import SchemaVersion, check_schema, schema_version, upgrade_schema
from locas_storage.store import ApiKeys, JobQueue, MemoryStore

__all__ = [
    "IMPORTED",
    "ApiKey",
    "ApiKeyNotFound",
    "ApiKeys",
    "AuditEntry",
    "ConsolidationMetrics",
    "Conversion",
    "CorrectedTurn",
    "CorruptPayload",
    "CoverageMetrics",
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
    "MemoryMetrics",
    "MemoryStore",
    "NewApiKey",
    "NormMetrics",
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
    "UserData",
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

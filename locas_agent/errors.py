"""The whole tree of errors a caller can meet; the storage branch is re-exported from the floor below.

    LocasError
      ConfigurationError            also ValueError
      MissingExtra                  also ImportError; names the `pip install` line
      TurnTooLong                   also ValueError
      GenerationTimeout             also TimeoutError
      BackboneError
        UnsupportedBackbone         no gated FFN found, or it reads nothing
        IncompatibleMemory          fingerprint, shape, dtype or format version differs
      ConsolidationError
      ExchangeError                 an export or import that the form or the place refuses
      StorageError
        InvalidRevision             a revision, study item or audit fact the store cannot hold
        InvalidTurn                 a turn the journal cannot hold
        UnknownUser                 nobody of that name in that tenant
        UserErased                  erased; `reinstate` comes before anything new
        TurnNotFound                no such turn
        RevisionNotFound
        RevisionConflict            someone saved first
        LeaseLost                   a worker that does not hold its job any more
        ApiKeyNotFound              no such key of a server, or one that was revoked
        CorruptPayload              digest differs, or bytes that are no memory
        EncryptionMismatch          encrypted without keys at hand, or clear where all has to be encrypted
        KeyUnavailable              no such key, or another one
        SchemaOutdated              says which command to run
        ForeignDatabase             not a database of this project
        StorageFull
        StoreUnavailable            wraps the driver's error

A refusal by the admission gate is a result, not an error.
"""

from __future__ import annotations

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

__all__ = [
    "ApiKeyNotFound",
    "BackboneError",
    "ConfigurationError",
    "ConsolidationError",
    "CorruptPayload",
    "EncryptionMismatch",
    "ExchangeError",
    "ForeignDatabase",
    "GenerationTimeout",
    "IncompatibleMemory",
    "InvalidRevision",
    "InvalidTurn",
    "KeyUnavailable",
    "LeaseLost",
    "LocasError",
    "MissingExtra",
    "RevisionConflict",
    "RevisionNotFound",
    "SchemaOutdated",
    "StorageError",
    "StorageFull",
    "StoreUnavailable",
    "TurnNotFound",
    "TurnTooLong",
    "UnknownUser",
    "UnsupportedBackbone",
    "UserErased",
]


class ConfigurationError(LocasError, ValueError):
    """A setting or an argument is out of its bounds, or contradicts another one."""


class MissingExtra(LocasError, ImportError):
    """An optional dependency is needed and not installed; the message holds the exact `pip install` line."""

    @classmethod
    def of(cls, extra: str, needed_for: str) -> MissingExtra:
        """Word the error for one extra of this distribution.

        Args:
            extra: name of the extra, such as "flash".
            needed_for: what asked for it, a noun phrase such as "attention='flash'".

        Returns:
            The error, ready to raise.
        """
        return cls(f'{needed_for} needs an optional dependency. Run: pip install "locas-agent[{extra}]"')


class TurnTooLong(LocasError, ValueError):
    """A turn alone does not fit into the backbone's context."""


class GenerationTimeout(LocasError, TimeoutError):
    """An answer was not written within the time it was given."""


class BackboneError(LocasError):
    """The backbone could not be loaded or used."""


class UnsupportedBackbone(BackboneError):
    """The model has no gated FFN beside which a memory could stand, or does not answer from what it reads."""


class IncompatibleMemory(BackboneError):
    """A memory and a backbone, or a memory and its batch, do not belong together."""


class ConsolidationError(LocasError):
    """A consolidation could not be carried out; memory, journal and store are as they were."""


class ExchangeError(LocasError):
    """A memory cannot be written to, or taken from, the form or the place that was asked for."""

"""Owns `LocasError`, the root of every error of the project, and the errors of storing.

LocasError
  StorageError
    InvalidTurn             also ValueError: a key, turn or filter that cannot be stored
    InvalidRevision         also ValueError: a revision draft, study item or audit fact that cannot be stored
    UnknownUser             nothing was ever said by this user
    UserErased              the user was erased; starting again is a call of its own
    TurnNotFound            no such turn
    RevisionNotFound        no such revision, or one that stands for "no memory"
    RevisionConflict        someone saved first
    LeaseLost               a job is not held any more
    CorruptPayload          digest or size differs from what was saved
    EncryptionMismatch      content is encrypted and there are no keys, or clear and it should be encrypted
    KeyUnavailable          the key that wraps a user's data key is not there, or is another
    SchemaOutdated          the tables are older or newer than this package
    ForeignDatabase         not a database, or somebody else's
    StorageFull             the disk is full
    StoreUnavailable        any other error of the driver

A message says what was got, what was expected and the next step. It never holds a turn's text or a user's name.
"""


class LocasError(Exception):
    """Root of every error that this project raises on purpose."""


class StorageError(LocasError):
    """Root of the errors of storing."""


class InvalidTurn(StorageError, ValueError):
    """A user key, a turn or a filter over turns holds a value that cannot be stored."""


class InvalidRevision(StorageError, ValueError):
    """A revision draft, a study item or an audit fact holds a value that cannot be stored."""


class UnknownUser(StorageError):
    """The user has no turns: nothing can be committed, rolled back or recorded for them."""


class UserErased(StorageError):
    """The user was erased: nothing is taken any more until a caller starts again with `reinstate`."""


class TurnNotFound(StorageError):
    """The user's journal has no turn of that number."""


class RevisionNotFound(StorageError):
    """The user has no revision of that number, or it has no payload."""


class RevisionConflict(StorageError):
    """The user's memory moved since the draft was made: someone saved first. Nothing was written."""


class LeaseLost(StorageError):
    """A worker does not hold its job any more: another claimed it, it is done, or it was withdrawn.

    Nothing was written.
    """


class CorruptPayload(StorageError):
    """Stored bytes differ from the digest or the size that was recorded when they were saved."""


class EncryptionMismatch(StorageError):
    """Content is encrypted and the store was opened without keys, or is clear where all has to be encrypted."""


class KeyUnavailable(StorageError):
    """The key that a user's data key is wrapped under cannot be had, or does not fit: a wrong key file, say."""


class SchemaOutdated(StorageError):
    """The tables are of another version than this package expects."""


class ForeignDatabase(StorageError):
    """The place named by the URL is not a database, or holds somebody else's tables and none of ours."""


class StorageFull(StorageError):
    """There is no room left for the write. Nothing of it was kept; what was acknowledged before still is."""


class StoreUnavailable(StorageError):
    """The database refused or failed in a way that has no name of its own here; the cause is attached."""

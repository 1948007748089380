"""Owns `MemoryStore`, the contract that every store keeps.

Knows nothing of how a store keeps it.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from locas_storage.records import AuditEntry, Revision, RevisionDraft, StudyItem, Turn, TurnDraft, UserKey, UserState


@runtime_checkable
class MemoryStore(Protocol):
    """Rows and bytes of every user's memory. Each method is one transaction; all may be called from several threads.

    Reading an unknown user gives an empty answer, changing one raises `UnknownUser`; `append` alone creates a user.
    Every method may raise `StoreUnavailable`, `SchemaOutdated` or `ForeignDatabase`, every change also `StorageFull`.
    """

    def append(self, key: UserKey, drafts: Sequence[TurnDraft]) -> list[Turn]:
        """Add turns to the journal, all or none, and return them.

        A draft whose key the user has used before, in this call or an earlier one, adds nothing: the first turn with
        that key is returned in its place, as it is.
        """
        ...

    def turns(self, key: UserKey, *, after: int = 0, upto: int | None = None, newest: int | None = None) -> list[Turn]:
        """Return turns in ascending order.

        Args:
            key: whose.
            after: leave out turns up to and including this number.
            upto: leave out turns beyond this number.
            newest: keep only that many of the newest of these.

        Raises:
            CorruptPayload: a turn's text differs from its digest.
            InvalidTurn: `newest` is negative.
        """
        ...

    def state(self, key: UserKey) -> UserState | None:
        """Return the user's counters, None for an unknown user."""
        ...

    def users(self, tenant: str | None = None) -> list[UserKey]:
        """Return every user, or those of one tenant, ordered by tenant and name."""
        ...

    def study_items(self, key: UserKey, *, with_retired: bool = False) -> list[StudyItem]:
        """Return the study items in force, and if asked the retired ones too, in the order they were added."""
        ...

    def commit(self, key: UserKey, draft: RevisionDraft) -> Revision:
        """Make a trained memory the user's current revision, all or nothing.

        Raises:
            UnknownUser: the user has no turns.
            RevisionConflict: the draft's parent is no longer the current revision, its span does not begin right
                after the last turn learnt or ends beyond the last turn, or its study items do not fit the kept ones.
        """
        ...

    def revisions(self, key: UserKey) -> list[Revision]:
        """Return the user's revisions in ascending order."""
        ...

    def revision(self, key: UserKey, number: int | None = None) -> Revision | None:
        """Return one revision; without a number the current one, None if there is none.

        Raises:
            RevisionNotFound: a number was given and the user has no such revision.
        """
        ...

    def payload(self, key: UserKey, number: int) -> bytes:
        """Return a revision's bytes after checking their size and digest.

        Raises:
            RevisionNotFound: no such revision, or it stands for "no memory" (see `Revision.has_payload`).
            CorruptPayload: the bytes are not the ones that were saved.
        """
        ...

    def rollback(self, key: UserKey, number: int) -> Revision:
        """Make an older revision current again, as a new revision; later turns wait to be learnt again.

        Study items are in force as they were at that revision. Nothing is deleted: rolling back to the revision that
        was current before undoes it exactly. Rolling back to the current revision changes nothing and returns it.

        Args:
            key: whose.
            number: the revision to restore, 0 for "no memory".

        Raises:
            UnknownUser: the user has no turns.
            RevisionNotFound: the user has no such revision, or 0 was given and there is no revision at all.
        """
        ...

    def record(self, key: UserKey, action: str, facts: Mapping[str, Any]) -> None:
        """Add a line to the user's audit trail.

        Args:
            key: whose.
            action: one of `AUDIT_ACTIONS`; 'refuse' is a consolidation that the admission gate refused.
            facts: reason codes and figures, plain JSON, never content.

        Raises:
            UnknownUser: the user has no turns.
            InvalidRevision: unknown action, or facts that are not plain JSON.
        """
        ...

    def audit(self, key: UserKey) -> list[AuditEntry]:
        """Return the user's audit trail in ascending order.

        Raises:
            CorruptPayload: a line differs from its hash, or one is missing in between.
        """
        ...

    def close(self) -> None:
        """Let go of connections. Calling it twice is fine."""
        ...

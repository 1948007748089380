"""Owns `MemoryStore`, its `JobQueue` and its `ApiKeys`, the contract that every store keeps."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from locas_storage.records.api_keys import ApiKey, NewApiKey
from locas_storage.records.jobs import Job, Lease
from locas_storage.records.receipts import CorrectedTurn, Receipt
from locas_storage.records.revisions import Revision, RevisionDraft, StudyItem
from locas_storage.records.turns import AuditEntry, FoundTurn, Turn, TurnDraft, UserKey, UserState


@runtime_checkable
class JobQueue(Protocol):
    """Consolidations that wait for a worker, one open job for each user. Each method is one transaction.

    A job is *ready* until a worker claims it, then *leased* until the worker ends it or the lease runs out, which makes
    it claimable again. After too many claims, or failures, it is *dead*: kept for the operator with its reason, and a
    line 'refuse' in the audit trail, so that the policy waits for more turns before it asks again. All times are the
    database's.
    """

    def enqueue(self, key: UserKey, to_seq: int) -> None:
        """Ask for the turns up to a number to be learnt; an open job is asked for more, learnt turns are not asked for.

        Raises:
            UnknownUser: the user has no turns.
            UserErased: the user was erased.
        """
        ...

    def claim(
        self,
        owner: str,
        *,
        limit: int = 1,
        lease_seconds: float = 300.0,
        key: UserKey | None = None,
        backbone: str | None = None,
    ) -> list[Lease]:
        """Claim jobs that are due, oldest first, and with them others of similar length. A rebuild is claimed alone.

        A claim raises the user's fence: the worker that held the job before is refused from then on.

        Args:
            owner: name of the worker, at most 64 characters.
            limit: how many jobs at most.
            lease_seconds: time after which another may claim them, unless a heartbeat comes first.
            key: only this user's job.
            backbone: fingerprint: only jobs of users whose current revision belongs to this backbone, or to none.

        Returns:
            The leases; none if nothing is due.
        """
        ...

    def heartbeat(self, lease: Lease, *, lease_seconds: float = 300.0) -> None:
        """Prolong a lease.

        Raises:
            LeaseLost: it is not held any more; stop training.
        """
        ...

    def complete(self, lease: Lease, to_seq: int, *, refusal: Mapping[str, Any] | None = None) -> None:
        """Say that turns up to a number need nothing more: there is nothing to learn, or the admission gate refused.

        Args:
            lease: under which that was found.
            to_seq: the last of these turns; the job ends if it is the last one claimed.
            refusal: facts for a line 'refuse' of the audit trail, in the same transaction.

        Raises:
            LeaseLost: the lease is not held any more.
        """
        ...

    def fail(self, lease: Lease, reason: str, *, retry_seconds: float = 60.0) -> None:
        """Give a job back to be tried again later; after too many attempts it is dead.

        Args:
            lease: the lease it was tried under.
            reason: a code without content, such as the name of an error.
            retry_seconds: time until it is due again.

        Raises:
            LeaseLost: the lease is not held any more.
            InvalidRevision: the reason may hold more than a code.
        """
        ...

    def release(self, lease: Lease) -> None:
        """Give a job back as if it had not been claimed: a worker that is told to stop.

        Raises:
            LeaseLost: the lease is not held any more.
        """
        ...

    def jobs(self, tenant: str | None = None) -> list[Job]:
        """Return the jobs that are ready, leased or dead, of all tenants or one, in the order of their turn."""
        ...


@runtime_checkable
class ApiKeys(Protocol):
    """Keys of a server, each of a tenant or of one of its users. Each method is one transaction.

    Of a secret its digest is kept. Erasing a user removes the keys that stand for this user.
    """

    def new(self, tenant: str, user: str | None = None, *, label: str = "") -> NewApiKey:
        """Make a key, and return it with its secret, which nobody can read again.

        Args:
            tenant: the tenant whose users it may name.
            user: the one user whom it stands for; nobody has to have said anything yet.
            label: what the operator calls it, at most 200 characters.

        Raises:
            InvalidTurn: a name or the label cannot be kept.
        """
        ...

    def holder(self, secret: str) -> ApiKey | None:
        """Return the key in force that a secret is of, None for any other text.

        Secrets are compared in constant time.
        """
        ...

    def keys(self, tenant: str | None = None) -> list[ApiKey]:
        """Return every key, those that were revoked too, or those of one tenant, the oldest first."""
        ...

    def revoke(self, key_id: str) -> ApiKey:
        """Refuse a key from now on; it stays in the list.

        Raises:
            ApiKeyNotFound: no key in force has this id.
        """
        ...


@runtime_checkable
class MemoryStore(Protocol):
    """Rows and bytes of every user's memory. Each method is one transaction; all may be called from several threads.

    Reading an unknown user gives an empty answer, changing one raises `UnknownUser`; `append` alone creates a user.
    Every method may raise `StoreUnavailable`, `SchemaOutdated` or `ForeignDatabase`, every change also `StorageFull`,
    and of a store that encrypts whatever touches content also `EncryptionMismatch` or `KeyUnavailable`.
    """

    @property
    def queue(self) -> JobQueue:
        """The queue of consolidations, in the same transactions."""
        ...

    @property
    def api_keys(self) -> ApiKeys:
        """The keys of a server that answers for the users of this store."""
        ...

    def append(self, key: UserKey, drafts: Sequence[TurnDraft], *, enqueue: int | None = None) -> list[Turn]:
        """Add turns to the journal, all or none, and return them.

        A draft whose key the user has used before, in this call or an earlier one, adds nothing: the first turn with
        that key is returned in its place, as it is.

        Args:
            key: whose.
            drafts: the turns.
            enqueue: in the same transaction, ask for the turns up to this number to be learnt; see `JobQueue.enqueue`.

        Raises:
            UserErased: the user was erased; `reinstate` comes first.
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

    def known(self, key: UserKey, idem_keys: Iterable[str]) -> list[Turn]:
        """Return the turns that were said under these keys, in ascending order; of a forgotten one what is left of it.

        What this reads does not grow with the journal.

        Args:
            key: whose.
            idem_keys: as in `Turn.key`, any strings; of an answer `answer_key` of the turn that it answers. One under
                which nothing was said adds nothing.

        Raises:
            CorruptPayload: a turn's text differs from its digest.
        """
        ...

    def search(self, key: UserKey, text: str, *, limit: int = 10) -> list[FoundTurn]:
        """Return the user's turns that share a word with a text, best first; of equally good ones the newer first.

        Words are compared without case, accents and punctuation, and are not stemmed. Any text is taken as plain words:
        there is no query syntax. Nothing of another user enters a result or a score. Without a word in the text nothing
        is found.

        Args:
            key: whose journal.
            text: what to look for; its first 64 words count.
            limit: how many turns at most.

        Raises:
            InvalidTurn: the text holds a NUL or a lone surrogate, or the limit is negative.
            CorruptPayload: a turn's text differs from its digest.
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

    def commit(self, key: UserKey, draft: RevisionDraft, *, lease: Lease | None = None) -> Revision:
        """Make a trained memory the user's current revision, all or nothing.

        A store keeps the newest payloads only, as many different ones as it was told, and besides them what was learnt
        from an `IMPORTED` turn alone, and what each line of revisions ended with (see `rules.lineage`). Older
        revisions become 'pruned' in the same step: row and digest stay, the bytes are gone.

        Args:
            key: whose.
            draft: the memory and what it was made from.
            lease: the lease it was trained under; it must still be held, and its job ends in the same transaction once
                all that it claimed is learnt.

        Raises:
            UnknownUser: the user has no turns.
            UserErased: the user was erased.
            LeaseLost: the lease is not held any more.
            RevisionConflict: the draft's fence or parent is no longer the current revision, its span does not begin
                right after the last turn learnt or ends beyond the last turn, or its study items do not fit the kept
                ones.
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
            RevisionNotFound: no such revision, or one without bytes (see `Revision.has_payload`).
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
            RevisionNotFound: the user has no such revision, or its payload is no longer kept, or 0 was given and there
                is no revision at all.
        """
        ...

    def cut_over(self, key: UserKey, drafts: Sequence[RevisionDraft], *, fingerprint: str, fence: int) -> Revision:
        """Put a memory that was learnt anew from the first turn in the place of the current one, all or nothing.

        The revisions before it stay, and what their line ended with is kept: `rollback` to that undoes the cut over
        exactly. The study items of the new memory are in force instead of theirs. Turns after the last draft wait to be
        learnt, and a worker that holds the user's job is refused.

        Args:
            key: whose.
            drafts: the revisions of the new memory, oldest first; the parent of each is its place among them, 0 for the
                first. None of them: nothing is learnt yet, and is to be learnt on this backbone.
            fingerprint: of the backbone of all.
            fence: the user's fence when the turns were read.

        Returns:
            The current revision: the last draft's, or one that stands for no memory.

        Raises:
            UnknownUser: the user has no turns.
            UserErased: the user was erased.
            InvalidRevision: a draft is of another backbone, or does not follow the one before it.
            RevisionConflict: turns were forgotten or the memory moved since the fence was read; nothing was changed.
        """
        ...

    def forget(self, key: UserKey, turns: Iterable[int]) -> Receipt:
        """Remove turns and all that was learnt from them, in one transaction.

        From then on no read shows the turns or a study item made of them, and the current revision is one that never
        saw
        them: the newest such revision comes back, as a new one. Revisions that saw them are purged with their payloads;
        their numbers stay, as those of the turns do. A consolidation that began before is refused. The remaining turns
        wait to be learnt again, and a rebuild is queued that stops where the purged consolidations stopped.

        Turns that are forgotten already are left out of the receipt.

        Raises:
            UnknownUser: the user has no turns.
            UserErased: the user was erased.
            TurnNotFound: the journal has no such turn; nothing was removed.
        """
        ...

    def correct(self, key: UserKey, turn: int, draft: TurnDraft) -> CorrectedTurn:
        """Forget one turn as `forget` does, and append another one in its place, in one transaction.

        The new turn takes over the key of the old one, whatever the draft's key is: a late retry under that key answers
        with what was said last. Everything else it has from the draft. It is the newest turn of the journal and waits
        to be learnt.

        Args:
            key: whose.
            turn: number of the turn that is replaced.
            draft: what is said in its place.

        Returns:
            The new turn, with the receipt of what was removed.

        Raises:
            UnknownUser: the user has no turns.
            UserErased: the user was erased.
            TurnNotFound: the journal has no such turn, or only its number is left; nothing was changed.
        """
        ...

    def erase(self, key: UserKey) -> Receipt:
        """Remove everything of a user but the audit trail, which holds no content, and refuse whatever comes late.

        Reads answer as for an unknown user. Erasing again is allowed and overwrites what the first call could not.

        Raises:
            UnknownUser: there never was such a user.
        """
        ...

    def reinstate(self, key: UserKey) -> None:
        """Take turns of an erased user again, into an empty journal. Nothing comes back, and late writers stay refused.

        Raises:
            UnknownUser: there never was such a user.
        """
        ...

    def expire(self, key: UserKey | None = None) -> dict[UserKey, Receipt]:
        """Forget the turns whose time is over, of one user or of all; reads leave them out even before.

        Returns:
            A receipt for each user of whom something was removed.
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

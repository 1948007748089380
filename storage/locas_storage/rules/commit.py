"""The rules that every store applies: what a commit must follow, and what digests and the audit chain cover."""

import datetime as dt
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from locas_storage.errors import (
    CorruptPayload,
    InvalidRevision,
    InvalidTurn,
    RevisionConflict,
    RevisionNotFound,
    UnknownUser,
    UserErased,
)
from locas_storage.records.bounds import MAX_LABEL_CHARS, is_text
from locas_storage.records.metrics import ConsolidationMetrics
from locas_storage.records.revisions import Revision, RevisionDraft, StudyItem, StudyItemDraft
from locas_storage.records.time import micros
from locas_storage.records.turns import AUDIT_ACTIONS, AuditAction, AuditEntry, Turn, TurnDraft, UserKey, UserState

KEEP_PAYLOADS = 3
"""How many different payloads of a user a store keeps unless told otherwise; each is a whole memory."""
FIRST_PREVIOUS = "0" * 64
"""What stands before the first line of an audit trail."""


def possible_keys(idem_keys: Iterable[str]) -> list[str]:
    """Return the strings that a turn's key can be, each once: a database may refuse even to look for the others."""
    return list(dict.fromkeys(key for key in idem_keys if is_text(key, max_chars=MAX_LABEL_CHARS)))


def require_user(state: UserState | None, key: UserKey) -> UserState:
    """Return the state, or say that there is no such user."""
    if state is None:
        raise UnknownUser(f"user #{key.short_hash} has no turns in this store; append one first")
    return state


def erased(key: UserKey) -> UserErased:
    """Return the error for a user who was erased."""
    return UserErased(
        f"user #{key.short_hash} was erased, nothing is taken any more; reinstate() starts anew with an empty journal"
    )


def check_follows(draft: RevisionDraft, state: UserState) -> None:
    """Check that a draft was made from what is current now.

    Raises:
        RevisionConflict: it was not.
    """
    if draft.parent != state.head:
        raise RevisionConflict(
            f"draft was trained from revision {draft.parent}, the current one is {state.head}; someone saved first, "
            "consolidate again"
        )
    if draft.from_seq != state.consolidated_seq + 1:
        raise RevisionConflict(
            f"draft begins at turn {draft.from_seq}, expected {state.consolidated_seq + 1}, the first one not learnt; "
            "consolidate again"
        )
    if draft.fence is not None and draft.fence != state.fence:
        raise RevisionConflict(
            f"draft was trained under fence {draft.fence}, the user's is {state.fence}: turns were forgotten or the "
            "memory moved meanwhile; "
            "consolidate again"
        )
    last = max([draft.to_seq, *(max(item.to_seq, item.turn_seq) for item in draft.new_items)])
    if last >= state.next_seq:
        raise RevisionConflict(
            f"draft speaks of turn {last}, the journal ends at {state.turns}; append the turns first"
        )


def check_unmoved(state: UserState, fence: int) -> None:
    """Check that nothing of a user was learnt, forgotten or claimed since the fence was read.

    Raises:
        RevisionConflict: something was.
    """
    if state.fence != fence:
        raise RevisionConflict(
            f"learnt anew under fence {fence}, the user's is {state.fence}: turns were forgotten or the memory moved "
            "meanwhile; read the journal and learn what is missing"
        )


def renumbered(drafts: Sequence[RevisionDraft], state: UserState, fingerprint: str) -> list[RevisionDraft]:
    """Return the drafts of a memory that was learnt anew with the parents they get in a user's chain.

    Between the current revision and the first of them stands one for "no memory".

    Args:
        drafts: oldest first; each one's parent is its place among them, 0 for the first.
        state: the user's counters.
        fingerprint: of the backbone of all.

    Raises:
        InvalidRevision: a draft is of another backbone, or does not follow the one before it.
        RevisionConflict: one speaks of a turn that the journal does not have.
    """
    standing = replace(state, head=state.head + 1, consolidated_seq=0)
    made: list[RevisionDraft] = []
    in_force: set[str] = set()
    for place, draft in enumerate(drafts):
        added = {item.item_id for item in draft.new_items}
        follows = (draft.parent, draft.from_seq, draft.fingerprint) == (
            place,
            standing.consolidated_seq + 1,
            fingerprint,
        )
        if not follows or not in_force >= set(draft.retired_items) or in_force & added:
            raise InvalidRevision(
                f"draft {place + 1} of {len(drafts)} does not follow the one before it: expected parent {place}, first "
                f"turn {standing.consolidated_seq + 1}, the backbone of all, and study items that fit; learn anew"
            )
        in_force = (in_force | added) - set(draft.retired_items)
        made.append(replace(draft, parent=standing.head, fence=None))
        check_follows(made[-1], standing)
        standing = replace(standing, head=standing.head + 1, consolidated_seq=draft.to_seq)
    return made


def stale_items(count: int, what: str) -> RevisionConflict:
    """Return the error for study items of a draft that do not fit the kept ones."""
    return RevisionConflict(f"{count} study items of the draft are {what}; read study_items() and consolidate again")


def not_found(key: UserKey, number: int) -> RevisionNotFound:
    """Return the error for a revision that does not exist."""
    return RevisionNotFound(f"user #{key.short_hash} has no revision {number}; revisions() lists those there are")


def no_payload(key: UserKey, number: int) -> RevisionNotFound:
    """Return the error for the bytes of a revision that has none."""
    return RevisionNotFound(
        f"revision {number} of user #{key.short_hash} stands for no memory, or its payload is no longer kept"
    )


def require_kept(restored: Revision, key: UserKey) -> None:
    """Refuse to restore a revision whose payload is gone."""
    if not restored.is_kept:
        raise RevisionNotFound(
            f"revision {restored.number} of user #{key.short_hash} is {restored.state}, its payload is gone; choose "
            "one that is live"
        )


def check_keep(keep_payloads: int) -> None:
    """Refuse to keep no payload: the current one is needed."""
    if keep_payloads < 1:
        raise InvalidRevision(f"keep_payloads: got {keep_payloads}, expected 1 or more")


def beyond_kept(payloads: Iterable[str], keep: int) -> set[str]:
    """Return the payloads that retention gives up.

    Args:
        payloads: digests of the user's revisions, newest revision first; one that was restored stands in it again.
        keep: how many different ones to keep.
    """
    return set(list(dict.fromkeys(payloads))[keep:])


def check_newest(newest: int | None) -> None:
    """Refuse a negative number of turns."""
    if newest is not None and newest < 0:
        raise InvalidTurn(f"newest: got {newest}, expected 0 or more")


def check_tenant(tenant: str | None) -> None:
    """Refuse a tenant that cannot be one."""
    if tenant is not None:
        UserKey(tenant, "anyone")


def check_action(action: str) -> AuditAction:
    """Return an action of the audit trail, if it is one that the trail knows."""
    for known in AUDIT_ACTIONS:
        if action == known:
            return known
    raise InvalidRevision(f"audit action: got an unknown one, expected one of {', '.join(AUDIT_ACTIONS)}")


def checked(what: str, data: bytes, *, size: int, sha256: str) -> bytes:
    """Return bytes if they are those that were saved.

    Raises:
        CorruptPayload: size or digest differs.
    """
    if len(data) != size:
        raise CorruptPayload(f"{what}: got {len(data)} bytes, {size} were saved; restore the database from a backup")
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise CorruptPayload(
            f"{what}: digest is {found[:12]}, {sha256[:12]} was saved; restore the database from a backup"
        )
    return data


def turns_digest(contents_sha256: Iterable[bytes]) -> str:
    """Return the digest of a span of turns, over the digests of their contents."""
    return hashlib.sha256(b"".join(contents_sha256)).hexdigest()


def audit_digest(key: UserKey, previous: str, entry: AuditEntry) -> str:
    """Return the digest of one line of the audit trail, which covers the digest of the line before it."""
    line = [previous, key.tenant, key.user, entry.seq, entry.action, entry.facts, micros(entry.created_at)]
    return hashlib.sha256(json.dumps(line, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def check_audit(key: UserKey, entries: Sequence[tuple[AuditEntry, str]]) -> None:
    """Check a whole audit trail, given as lines with the digests they were saved with.

    Raises:
        CorruptPayload: a line was altered, removed or put in.
    """
    broken = first_broken(key, entries)
    if broken is not None:
        raise CorruptPayload(
            f"audit trail of user #{key.short_hash} is broken at line {broken}; compare it with a backup"
        )


def first_broken(key: UserKey, entries: Sequence[tuple[AuditEntry, str]]) -> int | None:
    """Return the number of the first line of an audit trail that does not follow from its former; None if all do."""
    previous = FIRST_PREVIOUS
    for expected_seq, (entry, sha256) in enumerate(entries, start=1):
        if entry.seq != expected_seq or audit_digest(key, previous, entry) != sha256:
            return expected_seq
        previous = sha256
    return None


def revert_facts(state: UserState, restored: int, number: int) -> Mapping[str, Any]:
    """Return what the audit trail keeps of a rollback."""
    return {"from": state.head, "to": restored, "revision": number, "unlearnt_from": state.consolidated_seq}


def cut_over_facts(state: UserState, number: int, fingerprint: str) -> Mapping[str, Any]:
    """Return what the audit trail keeps of a cut over: a way back to no memory, and what was learnt anew from there."""
    return {**revert_facts(state, 0, number), "backbone": fingerprint}


def new_turn(draft: TurnDraft, *, seq: int, idempotency_key: str, created_at: dt.datetime) -> Turn:
    """Return the turn that a draft becomes."""
    return Turn(
        seq=seq,
        idempotency_key=idempotency_key,
        role=draft.role,
        content=draft.content,
        name=draft.name,
        session=draft.session,
        at=created_at if draft.at is None else draft.at.astimezone(dt.UTC),
        trust=draft.trust,
        token_count=draft.token_count,
        created_at=created_at,
        expires_at=None if draft.expires_at is None else draft.expires_at.astimezone(dt.UTC),
        offset_seconds=draft.offset_seconds,
        learn=draft.learn,
    )


def kept_item(draft: StudyItemDraft, number: int) -> StudyItem:
    """Return the study item that a draft becomes with a revision."""
    return StudyItem(
        item_id=draft.item_id,
        kind=draft.kind,
        from_seq=draft.from_seq,
        to_seq=draft.to_seq,
        turn_seq=draft.turn_seq,
        question=draft.question,
        answer=draft.answer,
        teacher=draft.teacher,
        added_rev=number,
        retired_rev=None,
    )


def restoring(
    restored: Revision | None, *, number: int, parent: int, created_at: dt.datetime, fingerprint: str = ""
) -> Revision:
    """Return the new revision that brings an older one back, or "no memory" if there is none to bring back.

    Args:
        restored: the older one.
        number: of the new one.
        parent: the current one.
        created_at: by the database's clock.
        fingerprint: for "no memory", the backbone on which the next memory is to be learnt; empty for any.
    """
    if restored is not None:
        return replace(
            restored, number=number, parent=parent, restores=restored.number, state="live", created_at=created_at
        )
    return Revision(
        number=number,
        parent=parent,
        restores=0,
        fingerprint=fingerprint,
        config_hash="",
        code_version="",
        seed=0,
        from_seq=1,
        to_seq=0,
        turns_sha256=turns_digest([]),
        payload_sha256=None,
        payload_bytes=0,
        metrics=ConsolidationMetrics(),
        state="live",
        created_at=created_at,
    )

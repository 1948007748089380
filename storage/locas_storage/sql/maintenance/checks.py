"""Owns what must hold of one user's rows, no matter what wrote them: each function names what does not.

A finding is a word and a sentence of numbers, never of content. The invariants of the design stand behind the words: I1
journal, I2 chain, I3 spans, I4 payload, I5 digest, I6 head, I7 fence, I8 owner; I9, that the backbone is the same, only
whoever holds the backbone can say.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Row, func, select

from locas_storage.encryption.envelope import Cipher
from locas_storage.errors import StorageError, StoreUnavailable
from locas_storage.payload_files import PayloadFiles
from locas_storage.records.turns import UserKey
from locas_storage.rules import commit, lineage
from locas_storage.sql.statements import audit as trail
from locas_storage.sql.statements import payloads, revisions
from locas_storage.sql.tables import rows
from locas_storage.sql.tables.schema import api_key, blob, job, revision, search, study_event, study_item, subject, turn

Finding = tuple[str, str]
"""What is wrong, as a word and as a sentence."""


@dataclass(slots=True)
class UserSnapshot:
    """One user's rows without their content, within the caller's transaction.

    Attributes:
        connection: within a transaction that sees one state.
        key: whose rows.
        cipher: how the user's content is kept.
        files: where large payloads lie.
        user: the row of `lm_subject`.
        chain: the rows of `lm_revision`, ascending.
        digests: digest of each turn's content, by number.
        forgotten: numbers of the forgotten turns.
    """

    connection: Connection
    key: UserKey
    cipher: Cipher
    files: PayloadFiles | None
    user: Row[Any]
    chain: Sequence[Row[Any]]
    digests: dict[int, bytes] = field(default_factory=dict)
    forgotten: set[int] = field(default_factory=set)


def open_snapshot(
    connection: Connection, key: UserKey, cipher: Cipher, files: PayloadFiles | None
) -> UserSnapshot | None:
    """Read a user's counters and chain; None if there is no such user."""
    user = connection.execute(select(subject).where(rows.belongs_to(subject, key))).one_or_none()
    if user is None:
        return None
    chain = connection.execute(select(revision).where(rows.belongs_to(revision, key)).order_by(revision.c.rev)).all()
    return UserSnapshot(connection, key, cipher, files, user, chain)


def journal(snapshot: UserSnapshot) -> Iterator[Finding]:
    """Turns are numbered 1, 2, 3 ...; each text fits its digest; of a forgotten one only the number is left."""
    expected = 1
    for row in snapshot.connection.execute(
        select(turn).where(rows.belongs_to(turn, snapshot.key)).order_by(turn.c.seq)
    ):
        if row.seq != expected:
            yield "journal", f"turn {expected} is missing, turn {row.seq} follows"
        expected = row.seq + 1
        snapshot.digests[row.seq] = bytes(row.content_sha256)
        if row.forgotten_at is not None:
            snapshot.forgotten.add(row.seq)
            if row.content or row.name or row.session_id or row.token_count:
                yield "forgotten", f"turn {row.seq} was forgotten and has content"
        try:
            rows.turn(row, snapshot.cipher)
        except (StorageError, ValueError) as error:
            yield "digest", f"turn {row.seq}: {_named(error)}"
    if expected != snapshot.user.next_seq:
        yield "journal", f"the journal ends at turn {expected - 1}, the user's row says {snapshot.user.next_seq - 1}"


def findable(snapshot: UserSnapshot) -> Iterator[Finding]:
    """Every turn that can be read is in the index of words up to the last search, and no other.

    None of one whose content is encrypted.
    """
    listed = set(snapshot.connection.scalars(select(search.c.seq).where(rows.belongs_to(search, snapshot.key))))
    last = max(listed, default=0)
    indexed = {seq for seq in snapshot.digests if seq <= last}  # later ones wait for the next search
    wanted = set() if snapshot.cipher.is_encrypting else indexed - snapshot.forgotten
    for seq in sorted(wanted - listed):
        yield "index", f"turn {seq} cannot be found"
    for seq in sorted(listed - wanted):
        yield "index", f"words of turn {seq} are in the index and should not be"


def chain(snapshot: UserSnapshot) -> Iterator[Finding]:
    """Revisions form one chain whose spans follow each other, and the fence rises along it."""
    by_number = {row.rev: row for row in snapshot.chain}
    number, parent, end, fence = 0, 0, 0, 0
    for row in snapshot.chain:
        if row.rev != number + 1:
            yield "chain", f"revision {number + 1} is missing, revision {row.rev} follows"
        if row.fence <= fence:
            yield "fence", f"revision {row.rev} has fence {row.fence}, the one before it {fence}"
        if row.fence > snapshot.user.fence:
            yield "fence", f"revision {row.rev} has fence {row.fence}, the user's row {snapshot.user.fence}"
        number, fence = row.rev, row.fence
        if row.state == "quarantined":  # it stands beside the chain
            continue
        if row.parent_rev != parent:
            yield "chain", f"revision {row.rev} has parent {row.parent_rev}, expected {parent}"
        if row.restores is None and row.from_seq != end + 1:
            yield "spans", f"revision {row.rev} begins at turn {row.from_seq}, expected {end + 1}"
        if row.restores is not None:
            yield from _restored(row, by_number.get(row.restores))
        if row.to_seq >= snapshot.user.next_seq:
            yield "spans", f"revision {row.rev} ends at turn {row.to_seq}, the journal at {snapshot.user.next_seq - 1}"
        parent, end = row.rev, row.to_seq


def _restored(row: Row[Any], source: Row[Any] | None) -> Iterator[Finding]:
    same = ("base_fingerprint", "config_hash", "from_seq", "to_seq", "turns_sha256", "payload_sha256", "blob_sha256")
    if row.restores == 0:
        if (row.to_seq, row.payload_sha256) != (0, None):
            yield "chain", f"revision {row.rev} stands for no memory and has one"
    elif source is None:
        yield "chain", f"revision {row.rev} restores revision {row.restores}, which is missing"
    elif any(getattr(row, column) != getattr(source, column) for column in same):
        yield "chain", f"revision {row.rev} differs from revision {row.restores}, which it restores"


def spans(snapshot: UserSnapshot) -> Iterator[Finding]:
    """The digest of each span of turns can be computed again.

    Of a revision that saw a forgotten turn nothing is left.
    """
    for row in snapshot.chain:
        if row.state == lineage.ERASED:
            if (row.blob_sha256, row.payload_sha256, row.payload_bytes, row.turns_sha256, row.metrics) != (
                None,
                None,
                None,
                "",
                {},
            ):
                yield "forgotten", f"revision {row.rev} is purged and has more than its number"
            continue
        contents = [
            snapshot.digests.get(seq, b"")
            for seq in range(max(1, row.from_seq), min(row.to_seq, snapshot.user.next_seq) + 1)
        ]
        expected = snapshot.cipher.span_digest(contents) if contents else commit.turns_digest([])
        if row.turns_sha256 != expected:
            yield "digest", f"revision {row.rev}: the turns it learnt differ from their digest"


def head(snapshot: UserSnapshot) -> Iterator[Finding]:
    """Head and watermark are those of the last revision of the chain, which is not a purged one."""
    last = next((row for row in reversed(snapshot.chain) if row.state != "quarantined"), None)
    number, end = (last.rev, last.to_seq) if last is not None else (0, 0)
    if snapshot.user.head_rev != number:
        yield "head", f"the current revision is {snapshot.user.head_rev}, the last one of the chain {number}"
    if snapshot.user.consolidated_seq != end:
        yield "head", f"turns are learnt up to {snapshot.user.consolidated_seq}, the last revision up to {end}"
    newest = snapshot.chain[-1].rev if snapshot.chain else 0
    if snapshot.user.next_rev != newest + 1:
        yield "head", f"the next revision is {snapshot.user.next_rev}, expected {newest + 1}"
    if last is not None and last.state == lineage.ERASED:
        yield "head", f"the current revision {last.rev} is purged"


def memories(snapshot: UserSnapshot) -> Iterator[Finding]:
    """The bytes of every kept revision fit size and digest, and there are no others."""
    for row in snapshot.chain:
        if row.blob_sha256 is None and row.to_seq and row.state not in ("pruned", lineage.ERASED):
            yield "payload", f"revision {row.rev} is {row.state} and has no payload"
    named = {row.blob_sha256 for row in snapshot.chain}
    for row in snapshot.chain:
        if (
            row.blob_sha256 is None or row.restores is not None
        ):  # one that restores another has the same bytes, says `chain`
            continue
        try:
            payloads.read(
                snapshot.connection,
                snapshot.key,
                revisions.one(snapshot.connection, snapshot.key, row.rev),
                snapshot.files,
                snapshot.cipher,
            )
        except StorageError as error:
            yield "payload", f"revision {row.rev}: {_named(error)}"
    kept = set(snapshot.connection.scalars(select(blob.c.sha256).where(rows.belongs_to(blob, snapshot.key))))
    for digest in sorted(kept - named):
        yield "payload", f"payload {digest[:12]} belongs to no revision"


def study(snapshot: UserSnapshot) -> Iterator[Finding]:
    """Study items can be read, name turns and revisions that there are, and are in force as their events say."""
    known = {row.rev for row in snapshot.chain if row.state != lineage.ERASED}
    events: dict[str, list[Row[Any]]] = {}
    for event in snapshot.connection.execute(
        select(study_event).where(rows.belongs_to(study_event, snapshot.key)).order_by(study_event.c.rev)
    ):
        events.setdefault(event.item_id, []).append(event)
    for row in snapshot.connection.execute(
        select(study_item).where(rows.belongs_to(study_item, snapshot.key)).order_by(study_item.c.item_id)
    ):
        name = f"study item {row.item_id[:12]}"
        try:
            rows.item(row, snapshot.cipher)
        except (StorageError, ValueError) as error:
            yield "study", f"{name}: {_named(error)}"
        if row.added_rev not in known:
            yield "study", f"{name} was added by revision {row.added_rev}, which there is not or which is purged"
        if max(row.to_seq, row.turn_seq) >= snapshot.user.next_seq:
            yield (
                "study",
                f"{name} speaks of turn {max(row.to_seq, row.turn_seq)}, "
                f"the journal ends at {snapshot.user.next_seq - 1}",
            )
        told = events.pop(row.item_id, [])
        retired = told[-1].rev if told and told[-1].event == "retired" else None
        if row.retired_rev != retired:
            yield "study", f"{name} is retired by revision {row.retired_rev}, its events say {retired}"
    for item_id in sorted(events):
        yield "study", f"events of study item {item_id[:12]}, which there is not"


def queue(snapshot: UserSnapshot) -> Iterator[Finding]:
    """There is one open job at most.

    It asks for turns that there are, of this life of the user, under a fence that was given out.
    """
    found = snapshot.connection.execute(
        select(job).where(rows.belongs_to(job, snapshot.key), job.c.state != "dead").order_by(job.c.id)
    ).all()
    if len(found) > 1:
        yield "job", f"{len(found)} jobs are open, expected one at most"
    for row in found:
        name = f"job {row.id.hex[:12]}"
        if not 0 < row.to_seq < snapshot.user.next_seq:
            yield "job", f"{name} asks for turns up to {row.to_seq}, the journal ends at {snapshot.user.next_seq - 1}"
        if row.epoch != snapshot.user.epoch:
            yield "job", f"{name} is of epoch {row.epoch}, the user of {snapshot.user.epoch}"
        if (row.lease_fence or 0) > snapshot.user.fence:
            yield "job", f"{name} is leased under fence {row.lease_fence}, the user's is {snapshot.user.fence}"
        if row.attempts > row.max_attempts:
            yield "job", f"{name} was claimed {row.attempts} times, at most {row.max_attempts} are allowed"
        stops = row.stops or []
        if stops != sorted(set(stops)) or any(not 0 < stop <= row.to_seq for stop in stops):
            yield "job", f"{name} is to stop at turns that do not ascend up to {row.to_seq}"


def audit(snapshot: UserSnapshot) -> Iterator[Finding]:
    """The trail is one chain of hashes, and tells of every revision that brought an older one back."""
    entries = trail.lines(snapshot.connection, snapshot.key)
    try:
        commit.check_audit(snapshot.key, entries)
    except StorageError:
        broken = commit.first_broken(snapshot.key, entries)
        yield "audit", f"line {broken} was altered, or lines before it were removed or put in"
    told = {
        entry.facts.get("revision" if entry.action == "revert" else "head")
        for entry, _ in entries
        if entry.action in ("revert", "forget")
    }
    for row in snapshot.chain:
        if row.restores is not None and row.rev not in told:
            yield "audit", f"no line tells of revision {row.rev}, which restores revision {row.restores}"


def tombstone(snapshot: UserSnapshot) -> Iterator[Finding]:
    """Of an erased user nothing is left but counters and the audit trail, whose chain holds."""
    for table in (turn, search, blob, revision, study_item, study_event, job, api_key):
        left = snapshot.connection.scalar(
            select(func.count()).select_from(table).where(rows.belongs_to(table, snapshot.key))
        )
        if left:
            yield "erased", f"{left} rows are left in {table.name}"
    if snapshot.user.wrapped_dek is not None:
        yield "erased", "the data key is left"
    if (snapshot.user.next_seq, snapshot.user.next_rev, snapshot.user.head_rev, snapshot.user.consolidated_seq) != (
        1,
        1,
        0,
        0,
    ):
        yield "erased", "counters are left"
    entries = trail.lines(snapshot.connection, snapshot.key)
    yield from audit(snapshot)
    if not any(entry.action == "erase" for entry, _ in entries):
        yield "audit", "no line tells of the erasure"


CHECKS: tuple[Callable[[UserSnapshot], Iterator[Finding]], ...] = (
    journal,
    findable,
    chain,
    spans,
    head,
    memories,
    study,
    queue,
    audit,
)
"""Those of a user who was not erased; `journal` comes first, since others use what it collects."""


def run(check: Callable[[UserSnapshot], Iterator[Finding]], snapshot: UserSnapshot) -> Iterator[Finding]:
    """Run one check; a row whose values are of no kind that its column takes ends the check and is a finding too."""
    try:
        yield from check(snapshot)
    except (ValueError, TypeError, AttributeError, OverflowError, KeyError) as error:
        yield check.__name__, f"a row cannot be read ({type(error).__name__})"


def _named(error: Exception) -> str:
    """Return the kind of an error: its text repeats the number, and of a foreign one it may quote content."""
    return str(error) if isinstance(error, StoreUnavailable) else type(error).__name__

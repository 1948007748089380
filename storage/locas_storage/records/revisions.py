"""Owns the frozen records of what was learnt: study items and revisions, and what makes one valid.

Whatever holds text is left out of `repr`, as in `turns.py`.
"""

import datetime as dt
from dataclasses import dataclass, field
from typing import Literal

from locas_storage.errors import InvalidRevision
from locas_storage.records.bounds import (
    MAX_INTEGER,
    MAX_PAYLOAD_BYTES,
    MAX_TURN_BYTES,
    check_integer,
    check_item_id,
    check_span,
    check_text,
)
from locas_storage.records.metrics import ConsolidationMetrics

ITEM_KINDS = ("question", "negative", "probe")
RevisionState = Literal["live", "pruned", "erased"]
"""Whether a revision's payload is kept, given up by retention, or purged with a forgotten turn that it saw."""


@dataclass(frozen=True, slots=True)
class StudyItemFields:
    """A question about a chunk of overflow and its answer: what a draft and a kept item share.

    Attributes:
        item_id: UUIDv7 as 32 hexadecimal digits, see `new_item_id`.
        kind: one of `ITEM_KINDS`.
        from_seq: first turn of the chunk it was asked about.
        to_seq: last turn of the chunk.
        turn_seq: the turn it came from, 0 where there is none.
        question: the question's text.
        answer: the answer's text.
        teacher: the teacher's distributions, opaque bytes.
    """

    item_id: str
    kind: str
    from_seq: int
    to_seq: int
    turn_seq: int
    question: str = field(repr=False)
    answer: str = field(repr=False)
    teacher: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class StudyItemDraft(StudyItemFields):
    """An item about to be kept with a revision.

    Raises:
        InvalidRevision: a value is outside its bounds.
    """

    def __post_init__(self) -> None:
        check_item_id(self.item_id)
        if self.kind not in ITEM_KINDS:
            raise InvalidRevision(f"kind: got a value that is none of {', '.join(ITEM_KINDS)}")
        check_span(self.from_seq, self.to_seq)
        check_integer("turn_seq", self.turn_seq, least=0, error=InvalidRevision)
        for label, value in (("question", self.question), ("answer", self.answer)):
            check_text(label, value, error=InvalidRevision)
            if len(value.encode()) > MAX_TURN_BYTES:
                raise InvalidRevision(f"{label}: got {len(value.encode())} bytes, expected at most {MAX_TURN_BYTES}")
        if not isinstance(self.teacher, bytes):
            raise InvalidRevision(f"teacher: got {type(self.teacher).__name__}, expected bytes")


@dataclass(frozen=True, slots=True)
class StudyItem(StudyItemFields):
    """A kept item and the revisions that added and, if so, retired it.

    Attributes:
        added_rev: the revision it was added with.
        retired_rev: the revision that retired it, or None while it is in force.
    """

    added_rev: int
    retired_rev: int | None


@dataclass(frozen=True, slots=True)
class RevisionDraft:
    """A trained memory about to become the user's current one.

    Attributes:
        parent: the revision it was trained from, 0 for none; must still be the current one.
        fingerprint: of the backbone it belongs to.
        config_hash: of the configuration that made it.
        code_version: of the program that made it.
        seed: of the training.
        from_seq: first turn it learnt, one after the last turn learnt before.
        to_seq: last turn it learnt.
        payload: the memory's bytes.
        metrics: what was measured of it.
        new_items: study items added with it.
        retired_items: ids of study items that it retires.
        fence: the user's fence when the turns were read, so that what was forgotten meanwhile is not learnt after all;
            None leaves that check to the parent, for a draft that was made from no turns of this store.

    Raises:
        InvalidRevision: a value is outside these bounds.
    """

    parent: int
    fingerprint: str
    config_hash: str
    code_version: str
    seed: int
    from_seq: int
    to_seq: int
    payload: bytes = field(repr=False)
    metrics: ConsolidationMetrics = field(default_factory=ConsolidationMetrics)
    new_items: tuple[StudyItemDraft, ...] = ()
    retired_items: tuple[str, ...] = ()
    fence: int | None = None

    def __post_init__(self) -> None:
        check_integer("parent", self.parent, least=0, error=InvalidRevision)
        for label, value, limit in (
            ("fingerprint", self.fingerprint, 128),
            ("config_hash", self.config_hash, 128),
            ("code_version", self.code_version, 64),
        ):
            check_text(label, value, max_chars=limit, may_be_blank=False, error=InvalidRevision)
        check_integer("seed", self.seed, least=-MAX_INTEGER, error=InvalidRevision)
        check_span(self.from_seq, self.to_seq)
        if not isinstance(self.payload, bytes) or not 0 < len(self.payload) <= MAX_PAYLOAD_BYTES:
            raise InvalidRevision(f"payload: expected bytes, 1 to {MAX_PAYLOAD_BYTES} of them")
        if not isinstance(self.metrics, ConsolidationMetrics):
            raise InvalidRevision(
                f"metrics: got {type(self.metrics).__name__}, expected ConsolidationMetrics; of a mapping "
                "ConsolidationMetrics.of makes one"
            )
        self.metrics.as_json()  # refuses what is not plain JSON
        for item_id in self.retired_items:
            check_item_id(item_id)
        added = [item.item_id for item in self.new_items]
        both = [*added, *self.retired_items]
        if len(set(both)) != len(both):
            raise InvalidRevision(
                "study items: an id occurs twice among the new and the retired ones; each may occur once"
            )


@dataclass(frozen=True, slots=True)
class Revision:
    """An immutable saved memory.

    Attributes:
        number: 1, 2, 3 ... per user; the current one has the highest.
        parent: the revision that was current before it, 0 for none.
        restores: the older revision whose memory this is, 0 for "no memory"; None if it was trained.
        fingerprint: of the backbone it belongs to; if it stands for no memory, of the one on which the next is to be
            learnt, empty for any.
        config_hash: of the configuration that made it.
        code_version: of the program that made it.
        seed: of the training.
        from_seq: first turn it learnt.
        to_seq: last turn it learnt; turns after it are not learnt while this revision is the current one.
        turns_sha256: digest over the contents of the turns in the span.
        payload_sha256: digest of the payload, None if this revision stands for no memory.
        payload_bytes: size of the payload.
        metrics: what was measured of it; unknown keys of another version are kept.
        state: 'live'; 'pruned' once its payload is no longer kept, which leaves the digest.
        created_at: when it was saved, aware UTC, by the database's clock.
    """

    number: int
    parent: int
    restores: int | None
    fingerprint: str
    config_hash: str
    code_version: str
    seed: int
    from_seq: int
    to_seq: int
    turns_sha256: str
    payload_sha256: str | None
    payload_bytes: int
    metrics: ConsolidationMetrics
    state: RevisionState
    created_at: dt.datetime

    @property
    def has_payload(self) -> bool:
        """False where there are no bytes to load: it stands for "no memory", or its payload is no longer kept."""
        return self.payload_sha256 is not None and self.is_kept

    @property
    def is_kept(self) -> bool:
        """False for a revision whose payload is gone: it can neither be loaded nor restored."""
        return self.state not in ("pruned", "erased")

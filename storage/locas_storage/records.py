"""Owns the frozen records that go into a store and come out of it, and what makes one valid.

Knows nothing of tables, tensors or tokens: a payload and a teacher are opaque bytes.

Whatever holds text is left out of `repr`, so that a log line or a traceback shows no content and no user name.
"""

import datetime as dt
import hashlib
import os
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from locas_storage.errors import InvalidRevision, InvalidTurn, StorageError

MAX_TENANT_CHARS = 64
MAX_USER_CHARS = 200
MAX_LABEL_CHARS = 200
"""Limit of a turn's name, session and key."""
MAX_TURN_BYTES = 1 << 20
MAX_PAYLOAD_BYTES = 1 << 30
MAX_INTEGER = (1 << 63) - 1
"""Largest integer a database column holds."""

ROLES = ("system", "user", "assistant", "tool")
ITEM_KINDS = ("question", "negative", "probe", "restatement")
AUDIT_ACTIONS = ("erase", "export", "forget", "import", "quarantine", "refuse", "revert")


@dataclass(frozen=True, slots=True, repr=False)
class UserKey:
    """Who owns a memory. Both names are opaque and compared character by character, never trimmed or folded.

    Attributes:
        tenant: the application or customer, 1 to 64 characters.
        user: the user within the tenant, 1 to 200 characters.

    Raises:
        InvalidTurn: a name is blank, too long, or holds a NUL or a lone surrogate.
    """

    tenant: str
    user: str

    def __post_init__(self) -> None:
        _check_text("tenant", self.tenant, max_chars=MAX_TENANT_CHARS, may_be_blank=False)
        _check_text("user", self.user, max_chars=MAX_USER_CHARS, may_be_blank=False)

    @property
    def short_hash(self) -> str:
        """Twelve hexadecimal digits that stand for this user in logs and messages."""
        return self.digest[:12]

    @property
    def digest(self) -> str:
        """SHA-256 of both names, hexadecimal, which stands for this user where a name must not."""
        tenant, user = self.tenant.encode(), self.user.encode()
        return hashlib.sha256(len(tenant).to_bytes(4, "big") + tenant + user).hexdigest()

    def __repr__(self) -> str:
        return f"UserKey(#{self.short_hash})"


@dataclass(frozen=True, slots=True)
class TurnDraft:
    """A turn about to be appended.

    Attributes:
        role: one of `ROLES`.
        content: the text, at most 1 MiB of UTF-8; may be empty.
        name: who spoke, if it matters.
        session: the session the turn belongs to.
        at: when it was said, aware; None means "now" by the database's clock.
        key: the same key twice is one turn; None means a fresh key.
        trust: where the text comes from, for policies that learn from some sources only.
        token_count: tokens of the content, 0 if not counted.
        expires_at: when it is to be forgotten by itself, aware; None means never.

    Raises:
        InvalidTurn: a value is outside these bounds.
    """

    role: str
    content: str = field(repr=False)
    name: str | None = field(default=None, repr=False)
    session: str | None = field(default=None, repr=False)
    at: dt.datetime | None = None
    key: str | None = field(default=None, repr=False)
    trust: str = "user"
    token_count: int = 0
    expires_at: dt.datetime | None = None

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise InvalidTurn(f"role: got a value of {len(str(self.role))} characters, expected one of {', '.join(ROLES)}")
        _check_text("content", self.content)
        size = len(self.content.encode())
        if size > MAX_TURN_BYTES:
            raise InvalidTurn(f"content: got {size} bytes, expected at most {MAX_TURN_BYTES}; split it into several turns")
        for label, value in (("name", self.name), ("session", self.session)):
            if value is not None:
                _check_text(label, value, max_chars=MAX_LABEL_CHARS)
        if self.key is not None:
            _check_text("key", self.key, max_chars=MAX_LABEL_CHARS, may_be_blank=False)
        _check_text("trust", self.trust, max_chars=16, may_be_blank=False)
        _check_integer("token_count", self.token_count, least=0, most=(1 << 31) - 1)
        for label, time_of in (("at", self.at), ("expires_at", self.expires_at)):
            if time_of is not None:
                _check_time(label, time_of)


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of the journal.

    Attributes:
        seq: number within the user's journal, 1, 2, 3 ... without a gap.
        key: idempotency key, the caller's or a generated one.
        role: one of `ROLES`.
        content: the text.
        name: who spoke, if given.
        session: the session, if given.
        at: when it was said, aware UTC; equals `created_at` if not given.
        trust: where the text comes from.
        token_count: tokens of the content, 0 if not counted.
        created_at: when it was stored, aware UTC, by the database's clock.
        expires_at: when it is to be forgotten by itself, aware UTC; None means never.
        is_forgotten: True for what is left of a turn that was forgotten: a number without content. Reads leave it out; an
            append that repeats its key answers with it.
    """

    seq: int
    key: str = field(repr=False)
    role: str
    content: str = field(repr=False)
    name: str | None = field(repr=False)
    session: str | None = field(repr=False)
    at: dt.datetime
    trust: str
    token_count: int
    created_at: dt.datetime
    expires_at: dt.datetime | None = None
    is_forgotten: bool = False


@dataclass(frozen=True, slots=True)
class FoundTurn(Turn):
    """A turn that a search found.

    Attributes:
        score: how well it fits, above 0, higher is better; comparable within one search only.
    """

    score: float = field(kw_only=True)


@dataclass(frozen=True, slots=True)
class StudyItemDraft:
    """A question about a piece of overflow and its answer, about to be kept with a revision.

    Attributes:
        item_id: 32 hexadecimal digits, see `new_item_id`.
        kind: one of `ITEM_KINDS`.
        from_seq: first turn of the piece it was asked about.
        to_seq: last turn of the piece.
        turn_seq: the turn it came from, 0 where there is none.
        question: the question's text.
        answer: the answer's text.
        teacher: the teacher's distributions, opaque bytes.

    Raises:
        InvalidRevision: a value is outside these bounds.
    """

    item_id: str
    kind: str
    from_seq: int
    to_seq: int
    turn_seq: int
    question: str = field(repr=False)
    answer: str = field(repr=False)
    teacher: bytes = field(repr=False)

    def __post_init__(self) -> None:
        _check_item_id(self.item_id)
        if self.kind not in ITEM_KINDS:
            raise InvalidRevision(f"kind: got a value that is none of {', '.join(ITEM_KINDS)}")
        _check_span(self.from_seq, self.to_seq)
        _check_integer("turn_seq", self.turn_seq, least=0, error=InvalidRevision)
        for label, value in (("question", self.question), ("answer", self.answer)):
            _check_text(label, value, error=InvalidRevision)
            if len(value.encode()) > MAX_TURN_BYTES:
                raise InvalidRevision(f"{label}: got {len(value.encode())} bytes, expected at most {MAX_TURN_BYTES}")
        if not isinstance(self.teacher, bytes):
            raise InvalidRevision(f"teacher: got {type(self.teacher).__name__}, expected bytes")


@dataclass(frozen=True, slots=True)
class StudyItem:
    """A kept study item: a `StudyItemDraft` and the revisions that added and, if so, retired it.

    Attributes:
        item_id: UUIDv7 as 32 hexadecimal digits.
        kind: one of `ITEM_KINDS`.
        from_seq: first turn of the piece it was asked about.
        to_seq: last turn of the piece.
        turn_seq: the turn it came from, 0 where there is none.
        question: the question's text.
        answer: the answer's text.
        teacher: the teacher's distributions, opaque bytes.
        added_rev: the revision it was added with.
        retired_rev: the revision that retired it, or None while it is in force.
    """

    item_id: str
    kind: str
    from_seq: int
    to_seq: int
    turn_seq: int
    question: str = field(repr=False)
    answer: str = field(repr=False)
    teacher: bytes = field(repr=False)
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
        metrics: figures about it, plain JSON; a number that is not finite is kept as its name.
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
    metrics: Mapping[str, Any] = field(default_factory=dict)
    new_items: tuple[StudyItemDraft, ...] = ()
    retired_items: tuple[str, ...] = ()
    fence: int | None = None

    def __post_init__(self) -> None:
        _check_integer("parent", self.parent, least=0, error=InvalidRevision)
        for label, value, limit in (
            ("fingerprint", self.fingerprint, 128),
            ("config_hash", self.config_hash, 128),
            ("code_version", self.code_version, 64),
        ):
            _check_text(label, value, max_chars=limit, may_be_blank=False, error=InvalidRevision)
        _check_integer("seed", self.seed, least=-MAX_INTEGER, error=InvalidRevision)
        _check_span(self.from_seq, self.to_seq)
        if not isinstance(self.payload, bytes) or not 0 < len(self.payload) <= MAX_PAYLOAD_BYTES:
            raise InvalidRevision(f"payload: expected bytes, 1 to {MAX_PAYLOAD_BYTES} of them")
        object.__setattr__(self, "metrics", plain_json("metrics", self.metrics))
        for item_id in self.retired_items:
            _check_item_id(item_id)
        added = [item.item_id for item in self.new_items]
        both = [*added, *self.retired_items]
        if len(set(both)) != len(both):
            raise InvalidRevision("study items: an id occurs twice among the new and the retired ones; each may occur once")


@dataclass(frozen=True, slots=True)
class Revision:
    """An immutable saved memory.

    Attributes:
        number: 1, 2, 3 ... per user; the current one has the highest.
        parent: the revision that was current before it, 0 for none.
        restores: the older revision whose memory this is, 0 for "no memory"; None if it was trained.
        fingerprint: of the backbone it belongs to, empty if it stands for no memory.
        config_hash: of the configuration that made it.
        code_version: of the program that made it.
        seed: of the training.
        from_seq: first turn it learnt.
        to_seq: last turn it learnt; turns after it are not learnt while this revision is the current one.
        turns_sha256: digest over the contents of the turns in the span.
        payload_sha256: digest of the payload, None if this revision stands for no memory.
        payload_bytes: size of the payload.
        metrics: figures about it.
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
    metrics: Mapping[str, Any]
    state: str
    created_at: dt.datetime

    @property
    def has_payload(self) -> bool:
        """False where there are no bytes to load: it stands for "no memory", or its payload is no longer kept."""
        return self.payload_sha256 is not None and self.is_kept

    @property
    def is_kept(self) -> bool:
        """False for a revision whose payload is gone: it can neither be loaded nor restored."""
        return self.state not in ("pruned", "erased")


@dataclass(frozen=True, slots=True)
class UserState:
    """The counters of one user.

    Attributes:
        key: whose they are.
        next_seq: number the next turn will get.
        head: the current revision, 0 for none.
        consolidated_seq: the last turn learnt by the current revision.
        fence: rises with every change of the current revision.
        epoch: rises when the user is erased.
        created_at: when the user's first turn was stored, aware UTC.
        is_encrypted: whether content is kept under a data key of this user's; digests are then keyed ones.
    """

    key: UserKey
    next_seq: int
    head: int
    consolidated_seq: int
    fence: int
    epoch: int
    created_at: dt.datetime
    is_encrypted: bool = False

    @property
    def turns(self) -> int:
        """Number of the last turn; forgotten ones are counted."""
        return self.next_seq - 1


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One line of a user's audit trail; each line is hashed together with the one before it.

    Attributes:
        seq: 1, 2, 3 ... per user.
        action: one of `AUDIT_ACTIONS`.
        facts: reason codes and figures, never content.
        created_at: aware UTC, by the database's clock.
    """

    seq: int
    action: str
    facts: Mapping[str, Any]
    created_at: dt.datetime


def new_item_id() -> str:
    """Return a fresh UUIDv7 as 32 hexadecimal digits: random, and later ids sort after earlier ones (by millisecond)."""
    millis = time.time_ns() // 1_000_000
    value = (millis & (1 << 48) - 1) << 80 | int.from_bytes(os.urandom(10), "big")
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return uuid.UUID(int=value).hex


def plain_json(label: str, value: Mapping[str, Any]) -> dict[str, Any]:
    """Return a deep copy of a mapping that every JSON column keeps as it is.

    A diverged loss is a figure worth keeping, and JSON has no NaN: numbers that are not finite become 'nan', 'inf' or '-inf'.

    Raises:
        InvalidRevision: something in it is not plain JSON.
    """
    if not isinstance(value, Mapping):
        raise InvalidRevision(f"{label}: got {type(value).__name__}, expected a mapping")
    plain = _plain(label, value)
    assert isinstance(plain, dict)
    return plain


def _plain(label: str, value: object) -> object:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        _check_text(label, value, error=InvalidRevision)
        return str(value)
    if isinstance(value, int):
        _check_integer(label, value, least=-MAX_INTEGER, error=InvalidRevision)
        return int(value)
    if isinstance(value, float):
        # Adding zero turns -0.0, which one database keeps and another does not, into 0.0.
        return float(value) + 0.0 if abs(value) < float("inf") else str(float(value))
    if isinstance(value, Mapping):
        copied = {}
        for name, inner in value.items():
            if not isinstance(name, str):
                raise InvalidRevision(f"{label}: got a key of type {type(name).__name__}, expected str")
            _check_text(label, name, error=InvalidRevision)
            copied[name] = _plain(label, inner)
        return copied
    if isinstance(value, list | tuple):
        return [_plain(label, inner) for inner in value]
    raise InvalidRevision(f"{label}: got a {type(value).__name__}, expected plain JSON; convert it to int, float or str")


def check_query(text: str, limit: int) -> None:
    """Refuse a search that cannot be one.

    Raises:
        InvalidTurn: the text is no text or too long, or the limit is negative.
    """
    _check_text("search text", text, max_chars=MAX_TURN_BYTES)
    _check_integer("limit", limit, least=0)


def _check_text(
    label: str,
    value: str,
    *,
    max_chars: int | None = None,
    may_be_blank: bool = True,
    error: type[StorageError] = InvalidTurn,
) -> None:
    if not isinstance(value, str):
        raise error(f"{label}: got {type(value).__name__}, expected str")
    if not may_be_blank and not value.strip():
        raise error(f"{label}: got a blank string, expected at least one visible character")
    if max_chars is not None and len(value) > max_chars:
        raise error(f"{label}: got {len(value)} characters, expected at most {max_chars}")
    if "\x00" in value:
        raise error(f"{label}: holds a NUL character, which databases cut or refuse; remove it")
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise error(f"{label}: holds a lone surrogate, which is not text; decode the source with errors='replace'")


def _check_integer(label: str, value: int, *, least: int, most: int = MAX_INTEGER, error: type[StorageError] = InvalidTurn) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        shown = value if isinstance(value, int) else type(value).__name__
        raise error(f"{label}: got {shown}, expected an integer, {least} to {most}")


def _check_item_id(value: str) -> None:
    if not isinstance(value, str) or len(value) != 32 or not set(value) <= set("0123456789abcdef"):
        raise InvalidRevision("study item id: expected 32 lower-case hexadecimal digits; take one from new_item_id()")


def _check_span(from_seq: int, to_seq: int) -> None:
    _check_integer("from_seq", from_seq, least=1, error=InvalidRevision)
    _check_integer("to_seq", to_seq, least=from_seq, error=InvalidRevision)


def _check_time(label: str, value: dt.datetime) -> None:
    if not isinstance(value, dt.datetime) or value.utcoffset() is None:
        raise InvalidTurn(f"{label}: got {type(value).__name__} without a time zone, expected an aware datetime; add tzinfo=UTC")
    try:
        value.astimezone(dt.UTC)
    except OverflowError:
        raise InvalidTurn(f"{label}: outside the years 1 to 9999 in UTC") from None

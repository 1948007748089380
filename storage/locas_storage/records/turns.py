"""Owns the frozen records of what was said: users, turns, a user's counters and audit trail, and what makes one valid.

Whatever holds text is left out of `repr`, so that a log line or a traceback shows no content and no user name.
"""

import datetime as dt
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from locas_storage.errors import InvalidTurn
from locas_storage.records.bounds import (
    MAX_LABEL_CHARS,
    MAX_TENANT_CHARS,
    MAX_TURN_BYTES,
    MAX_USER_CHARS,
    check_integer,
    check_text,
    check_time,
)

ROLES = ("system", "user", "assistant", "tool")
AuditAction = Literal["erase", "export", "forget", "import", "refuse", "revert"]
AUDIT_ACTIONS: tuple[AuditAction, ...] = get_args(AuditAction)


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
        check_text("tenant", self.tenant, max_chars=MAX_TENANT_CHARS, may_be_blank=False)
        check_text("user", self.user, max_chars=MAX_USER_CHARS, may_be_blank=False)

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


IMPORTED = "import"
"""Trust of a turn that stands for a memory learnt elsewhere. What was learnt from it alone cannot be learnt again, so
it is never pruned."""


MADE = "\x01"
"""First character of every key that is made from another one. No caller's key may begin with it, so the two never
meet."""


def answer_key(key: str) -> str:
    """Return the key of the turn that answers the turn with this key; as short for a long key as for any other."""
    return f"{MADE}answer:{hashlib.sha256(key.encode()).hexdigest()}"


@dataclass(frozen=True, slots=True)
class TurnDraft:
    """A turn about to be appended.

    Attributes:
        role: one of `ROLES`.
        content: the text, at most 1 MiB of UTF-8; may be empty.
        name: who spoke, if it matters.
        session: the session the turn belongs to.
        at: when it was said, aware; None means "now" by the database's clock.
        idempotency_key: the same key twice is one turn; None means a fresh key. A draft with `answers` gets
            `answer_key` of that.
        answers: idempotency key of the turn that this one answers; one turn has one answer.
        trust: where the text comes from, for policies that learn from some sources only; `IMPORTED` where a turn stands
            for a memory learnt elsewhere.
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
    idempotency_key: str | None = field(default=None, repr=False)
    trust: str = "user"
    token_count: int = 0
    expires_at: dt.datetime | None = None
    answers: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise InvalidTurn(
                f"role: got a value of {len(str(self.role))} characters, expected one of {', '.join(ROLES)}"
            )
        check_text("content", self.content)
        size = len(self.content.encode())
        if size > MAX_TURN_BYTES:
            raise InvalidTurn(
                f"content: got {size} bytes, expected at most {MAX_TURN_BYTES}; split it into several turns"
            )
        for label, value in (("name", self.name), ("session", self.session)):
            if value is not None:
                check_text(label, value, max_chars=MAX_LABEL_CHARS)
        self._check_key()
        check_text("trust", self.trust, max_chars=16, may_be_blank=False)
        check_integer("token_count", self.token_count, least=0, most=(1 << 31) - 1)
        for label, time_of in (("at", self.at), ("expires_at", self.expires_at)):
            if time_of is not None:
                check_time(label, time_of)

    @property
    def offset_seconds(self) -> int:
        """How far east of UTC `at` is given, 0 if it is not."""
        offset = None if self.at is None else self.at.utcoffset()
        return 0 if offset is None else round(offset.total_seconds())

    def _check_key(self) -> None:
        if self.answers is not None:
            check_text("answers", self.answers, max_chars=MAX_LABEL_CHARS, may_be_blank=False)
            made = answer_key(self.answers)
            if self.idempotency_key not in (None, made):
                raise InvalidTurn(
                    "idempotency_key: got one as well as `answers`, from which the key is made; leave one of them out"
                )
            object.__setattr__(self, "idempotency_key", made)
        elif self.idempotency_key is not None:
            check_text("idempotency_key", self.idempotency_key, max_chars=MAX_LABEL_CHARS, may_be_blank=False)
            if self.idempotency_key.startswith(MADE):
                raise InvalidTurn(
                    "idempotency_key: begins with the character U+0001, which marks keys that are made here; choose "
                    "one without it"
                )


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of the journal.

    Attributes:
        seq: number within the user's journal, 1, 2, 3 ... without a gap.
        idempotency_key: the caller's or a generated one.
        role: one of `ROLES`.
        content: the text.
        name: who spoke, if given.
        session: the session, if given.
        at: when it was said, aware UTC; equals `created_at` if not given.
        trust: where the text comes from.
        token_count: tokens of the content, 0 if not counted.
        created_at: when it was stored, aware UTC, by the database's clock.
        expires_at: when it is to be forgotten by itself, aware UTC; None means never.
        is_forgotten: True for what is left of a turn that was forgotten: a number without content. Reads leave it out;
            an append that repeats its key answers with it.
        offset_seconds: how far east of UTC `at` was given, 0 if it was not given.
    """

    seq: int
    idempotency_key: str = field(repr=False)
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
    offset_seconds: int = 0

    @property
    def local_at(self) -> dt.datetime:
        """When it was said, by the speaker's clock: in UTC where no time was given."""
        return self.at.astimezone(dt.timezone(dt.timedelta(seconds=self.offset_seconds)))


@dataclass(frozen=True, slots=True)
class FoundTurn(Turn):
    """A turn that a search found.

    Attributes:
        score: how well it fits, above 0, higher is better; comparable within one search only.
    """

    score: float = field(kw_only=True)


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
        action: what was done.
        facts: reason codes and figures, never content.
        created_at: aware UTC, by the database's clock.
    """

    seq: int
    action: AuditAction
    facts: Mapping[str, Any]
    created_at: dt.datetime

"""Owns what a change leaves to be shown: `Receipt`, `CorrectedTurn` and `Conversion`.

A digest of a forgotten text is left out on purpose: it would confirm a guess of the text.
"""

import datetime as dt
from dataclasses import asdict, dataclass, field
from typing import Literal, Self

from locas_storage.records.turns import Turn


@dataclass(frozen=True, slots=True)
class Receipt:
    """What was removed of one user, in one transaction.

    Attributes:
        action: 'forget' or 'erase'.
        turns: numbers of the turns whose text was removed; all of them for 'erase'.
        revisions: numbers of the revisions that had seen them and are purged.
        study_items: how many study items were purged.
        payloads: SHA-256 of each payload that was removed, hexadecimal.
        payload_bytes: how many bytes these had.
        head: the revision that is current since, 0 for none.
        rebuild_to_seq: a worker is asked to learn the remaining turns up to this one again; 0 if there are none.
        audit_sha256: digest of the line of the audit trail that says all this; each line's digest covers the ones
            before it.
        at: when, aware UTC, by the database's clock.
        is_overwritten: True when no byte of it is left in the database's file and its log. False on SQLite while
            another connection reads an older state (call again), and on PostgreSQL, which keeps dead rows until it
            vacuums.
    """

    action: Literal["forget", "erase"]
    turns: tuple[int, ...]
    revisions: tuple[int, ...]
    study_items: int
    payloads: tuple[str, ...]
    payload_bytes: int
    head: int
    rebuild_to_seq: int
    audit_sha256: str
    at: dt.datetime
    is_overwritten: bool


@dataclass(frozen=True, slots=True)
class CorrectedTurn(Turn):
    """A turn that was said in the place of another one, which was forgotten in the same transaction.

    Attributes:
        receipt: what was removed.
    """

    receipt: Receipt = field(kw_only=True)

    @classmethod
    def of(cls, turn: Turn, receipt: Receipt) -> Self:
        """Return a turn with the receipt of the one it replaces."""
        return cls(**asdict(turn), receipt=receipt)


@dataclass(frozen=True, slots=True)
class Conversion:
    """What was encrypted of a database whose content was in the clear.

    Attributes:
        users: how many users' content.
        is_overwritten: True when no clear byte of it is left in the database's file and its log. False on SQLite while
            another connection reads an older state (call again), and on PostgreSQL, whose log and freed disk blocks
            keep them for a while.
    """

    users: int
    is_overwritten: bool

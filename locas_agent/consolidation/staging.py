"""A user who is learnt anew beside the store: a copy of the journal, and a chain of revisions that begins with nothing.

Nothing of it is written anywhere. `drafts` is what `MemoryStore.cut_over` takes. It knows no model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime

from locas_storage import (
    InMemoryStore,
    RevisionDraft,
    StudyItem,
    StudyItemDraft,
    Turn,
    UserData,
    UserKey,
    UserState,
    new_item_id,
)

KEPT = 1 << 20
"""Payloads that are kept of a chain until it is cut over: all of them."""


@dataclass(frozen=True, slots=True)
class StagedUser:
    """The copy of one user.

    Attributes:
        data: journal and chain, as `InMemoryStore` keeps a user; it grows while the user is learnt.
    """

    data: UserData

    @classmethod
    def of(cls, key: UserKey) -> StagedUser:
        """Return a copy without turns."""
        return cls(UserData(UserState(key, 1, 0, 0, 0, 0, datetime.now(UTC))))

    @property
    def learnt_seq(self) -> int:
        """The last turn that was learnt anew."""
        return self.data.state.consolidated_seq

    def still_holds(self, turns: Sequence[Turn]) -> bool:
        """Tell whether what was copied is what the journal says, so that what was learnt from it stands.

        Args:
            turns: of the journal, from the first one on.
        """
        copied = [turn for turn in self.data.turns if not turn.is_forgotten]
        is_one_line = all(one.restores is None for one in self.data.revisions)  # nothing expired meanwhile
        return is_one_line and copied == [turn for turn in turns if turn.seq < self.data.state.next_seq]

    def extend(self, turns: Sequence[Turn], upto: int) -> None:
        """Copy further turns; of one that was forgotten the number.

        Args:
            turns: of the journal, from the first one on.
            upto: the last number.
        """
        told = {turn.seq: turn for turn in turns}
        now = datetime.now(UTC)
        for seq in range(self.data.state.next_seq, upto + 1):
            self.data.turns.append(told.get(seq) or _forgotten(seq, now))
        self.data.state = replace(self.data.state, next_seq=max(upto + 1, self.data.state.next_seq))


def staging_store(users: Sequence[StagedUser]) -> InMemoryStore:
    """Return a store of these users alone, which keeps every payload."""
    return InMemoryStore(keep_payloads=KEPT, kept=[user.data for user in users])


def drafts(store: InMemoryStore, key: UserKey) -> list[RevisionDraft]:
    """Return the chain of a staged user as drafts, oldest first, with the study items that each added and retired."""
    items = store.study_items(key, with_retired=True)
    return [
        RevisionDraft(
            parent=one.parent,
            fingerprint=one.fingerprint,
            config_hash=one.config_hash,
            code_version=one.code_version,
            seed=one.seed,
            from_seq=one.from_seq,
            to_seq=one.to_seq,
            payload=store.payload(key, one.number),
            metrics=one.metrics,
            new_items=tuple(_as_new(item) for item in items if item.added_rev == one.number),
            retired_items=tuple(item.item_id for item in items if item.retired_rev == one.number),
        )
        for one in store.revisions(key)
    ]


def _as_new(item: StudyItem) -> StudyItemDraft:
    return StudyItemDraft(**{each.name: getattr(item, each.name) for each in fields(StudyItemDraft)})


def _forgotten(seq: int, now: datetime) -> Turn:
    return Turn(
        seq=seq,
        idempotency_key=new_item_id(),
        role="user",
        content="",
        name=None,
        session=None,
        at=now,
        trust="user",
        token_count=0,
        created_at=now,
        is_forgotten=True,
    )

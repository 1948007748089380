"""Owns the sample records of the cases."""

from typing import Any

from locas_storage.records.bounds import new_item_id
from locas_storage.records.metrics import ConsolidationMetrics
from locas_storage.records.revisions import RevisionDraft, StudyItemDraft
from locas_storage.records.turns import TurnDraft, UserKey
from locas_storage.store import MemoryStore

ADA = UserKey("default", "ada")
BEN = UserKey("default", "ben")


def say(store: MemoryStore, count: int, key: UserKey = ADA) -> None:
    """Append turns that say something different each."""
    store.append(key, [TurnDraft("user", f"text {number}") for number in range(count)])


def item(from_seq: int = 1, to_seq: int = 1, question: str = "q", answer: str = "a") -> StudyItemDraft:
    """Return a study item about a span of turns."""
    return StudyItemDraft(new_item_id(), "question", from_seq, to_seq, from_seq, question, answer, b"\x00\xff")


def draft(parent: int, from_seq: int, to_seq: int, payload: bytes = b"", **more: Any) -> RevisionDraft:
    """Return a revision's draft; without a payload one that tells its parent."""
    known: dict[str, Any] = {
        "fingerprint": "f" * 64,
        "config_hash": "c" * 64,
        "code_version": "test",
        "seed": 7,
    }
    return RevisionDraft(
        parent=parent,
        from_seq=from_seq,
        to_seq=to_seq,
        payload=payload or f"payload after {parent}".encode(),
        metrics=ConsolidationMetrics.of(more.pop("metrics", {"first_loss": 0.5})),
        **(known | more),
    )

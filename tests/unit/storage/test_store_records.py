"""What a record accepts, and that its repr and its errors show no content."""

from __future__ import annotations

import datetime as dt
import math
import uuid
from typing import Any

import pytest
from pydantic import ValidationError
from storage_samples import draft, item

from locas_storage import (
    ConsolidationMetrics,
    InvalidRevision,
    InvalidTurn,
    LocasError,
    RevisionDraft,
    StorageError,
    StudyItemDraft,
    TurnDraft,
    UserKey,
    new_item_id,
)

CANARY = "canary-9c1d"


@pytest.mark.parametrize(
    ("tenant", "user"),
    [
        ("", "u"),
        ("t", ""),
        (" \n", "u"),
        ("t", "\u3000"),
        ("t" * 65, "u"),
        ("t", "u" * 201),
        ("t\x00", "u"),
        ("t", "u\ud800"),
        ("t", 5),
    ],
)
def test_bad_user_key_is_refused(tenant: Any, user: Any) -> None:
    with pytest.raises(InvalidTurn):
        UserKey(tenant, user)


def test_user_key_takes_the_longest_names() -> None:
    assert UserKey("t" * 64, "å" * 200) != UserKey("t" * 64, "å" * 199)


def test_short_hash_tells_where_the_tenant_ends() -> None:
    assert UserKey("ab", "c").short_hash != UserKey("a", "bc").short_hash


@pytest.mark.parametrize(
    "wrong",
    [
        {"role": "robot"},
        {"role": ""},
        {"content": CANARY + "\x00"},
        {"content": CANARY + "\udc80"},
        {"content": "é" * (1 << 19) + "x"},
        {"content": CANARY.encode()},
        {"at": dt.datetime(2024, 1, 1)},  # noqa: DTZ001  naive on purpose
        {"at": dt.datetime.min.replace(tzinfo=dt.timezone(dt.timedelta(hours=5)))},
        {"at": 5.0},
        {"idempotency_key": ""},
        {"idempotency_key": "k" * 201},
        {"session": "s" * 201},
        {"name": "n\x00"},
        {"trust": ""},
        {"trust": "t" * 17},
        {"token_count": -1},
        {"token_count": True},
    ],
)
def test_bad_turn_is_refused_without_its_text(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidTurn) as caught:
        TurnDraft(**({"role": "user", "content": CANARY} | wrong))
    assert CANARY not in str(caught.value)
    assert isinstance(caught.value, StorageError | ValueError)
    assert isinstance(caught.value, LocasError)


def test_turn_of_the_largest_size_is_accepted() -> None:
    assert len(TurnDraft("user", "x" * (1 << 20)).content) == 1 << 20


@pytest.mark.parametrize(
    "wrong",
    [
        {"parent": -1},
        {"from_seq": 0},
        {"from_seq": 3, "to_seq": 2},
        {"seed": 1 << 64},
        {"fingerprint": ""},
        {"fingerprint": "f" * 129},
        {"retired_items": ("a",)},
        {"retired_items": ("0" * 32, "0" * 32)},
    ],
)
def test_bad_revision_draft_is_refused(wrong: dict[str, Any]) -> None:
    known = {"parent": 0, "from_seq": 1, "to_seq": 2}
    with pytest.raises(InvalidRevision):
        draft(**(known | wrong))


def test_revision_without_bytes_is_refused() -> None:
    with pytest.raises(InvalidRevision):
        RevisionDraft(0, "f", "c", "v", 0, 1, 1, b"")


@pytest.mark.parametrize(
    "wrong",
    [
        {"item_id": "x"},
        {"kind": "joke"},
        {"from_seq": 2, "to_seq": 1},
        {"turn_seq": -1},
        {"question": "\x00"},
        {"teacher": "t"},
    ],
)
def test_bad_study_item_is_refused(wrong: dict[str, Any]) -> None:
    known: dict[str, Any] = {
        "item_id": new_item_id(),
        "kind": "probe",
        "from_seq": 1,
        "to_seq": 2,
        "turn_seq": 0,
        "question": "q",
        "answer": "a",
        "teacher": b"",
    }
    StudyItemDraft(**known)
    with pytest.raises(InvalidRevision):
        StudyItemDraft(**(known | wrong))


def test_item_ids_are_uuid7_and_differ() -> None:
    ids = [new_item_id() for _ in range(100)]
    assert len(set(ids)) == 100
    assert all((uuid.UUID(hex=one).version, uuid.UUID(hex=one).variant) == (7, uuid.RFC_4122) for one in ids)


def test_repr_shows_no_content() -> None:
    shown = [
        repr(UserKey(CANARY, CANARY)),
        str(UserKey(CANARY, CANARY)),
        repr(TurnDraft("user", CANARY, name=CANARY, session=CANARY, idempotency_key=CANARY)),
        repr(item(question=CANARY, answer=CANARY)),
        repr(draft(0, 1, 1, CANARY.encode(), new_items=(item(question=CANARY),))),
    ]
    assert [text for text in shown if CANARY in text] == []


@pytest.mark.parametrize("metrics", [{"steps": 3}, [], ConsolidationMetrics.model_validate({"a": b""})])
def test_draft_takes_figures_of_plain_json_alone(metrics: Any) -> None:
    with pytest.raises(InvalidRevision, match="metrics"):
        RevisionDraft(0, "fingerprint", "config", "0", 0, 1, 1, b"bytes", metrics)


AS_STORED: dict[str, Any] = {
    "before": {"new_recall": 0.0, "probe_recall": None, "earlier_recall": None, "drift_nats": 0.0},
    "steps": 3,
    "last_loss": "nan",
    "coverage": {"turns": 2, "share": 0.5},
    "seed": 7,
}
"""Keys of revisions that were stored before the figures had types."""


def test_figures_of_an_older_revision_are_read_and_written_back_as_they_were() -> None:
    metrics = ConsolidationMetrics.of(AS_STORED)
    assert (metrics.steps, metrics.coverage and metrics.coverage.share, metrics.train_seconds) == (3, 0.5, None)
    assert math.isnan(metrics.last_loss or 0.0)
    assert metrics.as_json() == AS_STORED
    assert list(metrics.as_json()) == list(AS_STORED)


def test_figures_of_another_version_are_kept_under_their_keys() -> None:
    newer = AS_STORED | {"throughput": 2.5, "coverage": {"turns": 2, "kinds": {"fact": 1}}}
    metrics = ConsolidationMetrics.of(newer)
    assert metrics.model_extra == {"throughput": 2.5}
    assert metrics.as_json() == newer


def test_stored_figures_of_another_type_are_kept_and_read_as_none() -> None:
    older = {"loss": 0.5, "steps": [1, 2], "coverage": {"turns": "two"}, "seed": 7}
    metrics = ConsolidationMetrics.stored(older)
    assert (metrics.seed, metrics.steps, metrics.coverage) == (7, None, None)
    assert metrics.as_json() == older
    assert ConsolidationMetrics.stored(AS_STORED) == ConsolidationMetrics.of(AS_STORED)


def test_figures_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        ConsolidationMetrics(steps=3).steps = 4  # type: ignore[misc]


@pytest.mark.parametrize(
    "wrong", [{1: 2}, {"a": b""}, {"a": 1 << 70}, [], {"steps": "many"}, {"coverage": {"turns": CANARY}}]
)
def test_wrong_figures_are_refused_and_not_repeated(wrong: Any) -> None:
    with pytest.raises(InvalidRevision) as refused:
        ConsolidationMetrics.of(wrong)
    assert CANARY not in str(refused.value)
    assert "many" not in str(refused.value)

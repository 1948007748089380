"""`verify` on both databases.

Silent on all that a store does, and each thing that is made wrong at the SQL level is named.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from storage_samples import ADA, BEN, draft, item, say

from locas_storage import InvalidTurn, SqlMemoryStore, TurnDraft, UserKey, Verification

CARLA, SECRET = UserKey("acme", "carla"), "Zanzibar-4711"


@pytest.fixture
def filled(store_url: str) -> Iterator[SqlMemoryStore]:
    """Ada has learnt, rolled back, forgotten and waits to learn again; Ben has learnt and goes on; Carla was erased."""
    opened = SqlMemoryStore(store_url)
    say(opened, 3)
    opened.append(ADA, [TurnDraft("user", SECRET, idempotency_key="k")])
    say(opened, 4)
    kept = item(1, 2, SECRET, SECRET)
    opened.commit(ADA, draft(0, 1, 2, SECRET.encode(), new_items=(kept, item(1, 2))))
    opened.commit(ADA, draft(1, 3, 3, new_items=(item(3, 3),), retired_items=(kept.item_id,)))
    opened.commit(ADA, draft(2, 4, 6, new_items=(item(4, 5),)))
    opened.rollback(ADA, 2)
    opened.forget(ADA, [3])
    say(opened, 5, BEN)
    for number in range(5):
        opened.commit(BEN, draft(number, number + 1, number + 1))
    say(opened, 2, BEN)
    for user in (ADA, BEN):  # puts their words into the index
        opened.search(user, "anything")
    opened.queue.enqueue(BEN, 7)
    opened.queue.claim("worker", key=BEN)
    opened.record(BEN, "refuse", {"reason": "drift"})
    say(opened, 2, CARLA)
    opened.erase(CARLA)
    yield opened
    opened.close()


def spoil(store: SqlMemoryStore, statements: str) -> None:
    """Change rows behind the store's back, as if the tables had no constraints."""
    with store.database.engine.connect() as connection:
        connection = connection.execution_options(locas_begin=None, isolation_level="AUTOCOMMIT")
        if connection.dialect.name == "sqlite":
            before = ["PRAGMA foreign_keys = OFF", "PRAGMA ignore_check_constraints = ON"]
            statements = statements.replace("{bytes}", "BLOB").replace("{not_text}", "X'FEFE'")
        else:
            before = [
                "SET session_replication_role = replica",
                "ALTER TABLE lm_revision DROP CONSTRAINT ck_lm_revision_payload",
            ]
            statements = statements.replace("{bytes}", "BYTEA").replace("{not_text}", r"'\xFEFE'")
        for statement in before:
            connection.exec_driver_sql(statement)
        for statement in statements.split("; "):
            assert connection.exec_driver_sql(statement).rowcount > 0, statement
        connection.invalidate()  # the next one has its constraints again


def test_nothing_is_wrong_after_all_that_a_store_does(filled: SqlMemoryStore) -> None:
    assert filled.verify() == Verification(users=3, turns=15, revisions=10)
    assert filled.verify(tenant="default", user="ada") == Verification(users=1, turns=8, revisions=5)
    assert filled.verify(tenant="acme") == Verification(users=1, turns=0, revisions=0)
    filled.reinstate(CARLA)
    say(filled, 1, CARLA)
    filled.commit(CARLA, draft(0, 1, 1))
    filled.forget(CARLA, [1])
    assert filled.verify().is_sound


def test_empty_database_is_sound(store_url: str) -> None:
    store = SqlMemoryStore(store_url)
    assert store.verify() == Verification(users=0, turns=0, revisions=0)
    store.close()


def test_user_is_given_with_a_tenant(filled: SqlMemoryStore) -> None:
    with pytest.raises(InvalidTurn, match="tenant"):
        filled.verify(user="ada")
    (fault,) = filled.verify(tenant="default", user="nobody").faults
    assert (fault.what, fault.detail) == ("owner", "there is no such user")


ADAS, BENS, CARLAS = (f"WHERE subject_id = '{name}' AND" for name in ("ada", "ben", "carla"))
ZERO = "0" * 64

CORRUPTIONS = {
    "turn altered": (f"UPDATE lm_turn SET content = CAST('Zanzibar?' AS {{bytes}}) {BENS} seq = 2", "digest", "turn 2"),
    "digest of a turn altered": (f"UPDATE lm_turn SET content_sha256 = content {BENS} seq = 2", "digest", "revision 2"),
    "turn taken out": (
        f"DELETE FROM lm_search {BENS} seq = 2; DELETE FROM lm_turn {BENS} seq = 2",
        "journal",
        "turn 2 is missing",
    ),
    "last turn taken out": (
        f"DELETE FROM lm_search {BENS} seq = 7; DELETE FROM lm_turn {BENS} seq = 7",
        "journal",
        "ends at turn 6",
    ),
    "turn beyond the end": (f"UPDATE lm_subject SET next_seq = 7 {BENS} next_seq = 8", "journal", "ends at turn 7"),
    "forgotten turn filled again": (f"UPDATE lm_turn SET name = 'Zanzibar' {ADAS} seq = 3", "forgotten", "turn 3"),
    "forgotten turn with text": (
        f"UPDATE lm_turn SET content = CAST('Zanzibar' AS {{bytes}}) {ADAS} seq = 3",
        "forgotten",
        "turn 3",
    ),
    "words lost": (f"DELETE FROM lm_search {BENS} seq = 2", "index", "turn 2 cannot be found"),
    "words of another turn": (f"UPDATE lm_search SET seq = 3 {ADAS} seq = 4", "index", "words of turn 3"),
    "revision taken out": (f"DELETE FROM lm_revision {BENS} rev = 2", "chain", "revision 2 is missing"),
    "parent altered": (
        f"DELETE FROM lm_revision {BENS} rev = 1; UPDATE lm_revision SET parent_rev = 0 {BENS} rev = 3",
        "chain",
        "revision 3 has parent 0",
    ),
    "restored one altered": (
        f"UPDATE lm_revision SET config_hash = 'other' {ADAS} rev = 5",
        "chain",
        "revision 5 differs",
    ),
    "span moved": (
        f"UPDATE lm_revision SET from_seq = 2, to_seq = 2 {BENS} rev = 1",
        "spans",
        "revision 1 begins at turn 2",
    ),
    "digest of a span altered": (
        f"UPDATE lm_revision SET turns_sha256 = '{ZERO}' {BENS} rev = 1",
        "digest",
        "revision 1",
    ),
    "fence lowered": (f"UPDATE lm_revision SET fence = 1 {BENS} rev = 4", "fence", "revision 4 has fence 1"),
    "fence of the user lowered": (f"UPDATE lm_subject SET fence = 1 {BENS} fence > 1", "fence", "user's row 1"),
    "head moved back": (f"UPDATE lm_subject SET head_rev = 4 {BENS} head_rev = 5", "head", "current revision is 4"),
    "watermark moved": (f"UPDATE lm_subject SET consolidated_seq = 6 {BENS} head_rev = 5", "head", "learnt up to 6"),
    "next revision moved": (f"UPDATE lm_subject SET next_rev = 9 {BENS} head_rev = 5", "head", "next revision is 9"),
    "purged revision current": (
        f"UPDATE lm_revision SET state = 'erased' {BENS} rev = 5",
        "head",
        "current revision 5 is purged",
    ),
    "purged revision filled": (
        f"UPDATE lm_revision SET turns_sha256 = '{ZERO}' {ADAS} state = 'erased'",
        "forgotten",
        "more than its number",
    ),
    "payload altered": (
        f"UPDATE lm_blob SET data = CAST('payload after 9' AS {{bytes}}) {BENS} size = 15",
        "payload",
        "revision 5",
    ),
    "payload swapped": (
        "UPDATE lm_revision SET blob_sha256 = (SELECT o.blob_sha256 FROM lm_revision o WHERE o.subject_id = 'ben' AND "
        f"o.rev = 4) {BENS} rev = 5",
        "payload",
        "revision 5",
    ),
    "payload taken away": (
        f"UPDATE lm_revision SET blob_sha256 = NULL {BENS} rev = 5",
        "payload",
        "revision 5 is live",
    ),
    "size altered": (f"UPDATE lm_revision SET payload_bytes = 14 {BENS} rev = 5", "payload", "revision 5"),
    "payload left over": (
        f"UPDATE lm_revision SET blob_sha256 = NULL, state = 'pruned' {BENS} rev = 3",
        "payload",
        "belongs to no revision",
    ),
    "study item of no revision": (
        f"UPDATE lm_study_item SET added_rev = 9 {ADAS} retired_rev IS NULL",
        "study",
        "added by revision 9",
    ),
    "study item of a purged revision": (
        f"UPDATE lm_study_item SET added_rev = 2 {ADAS} retired_rev IS NULL",
        "study",
        "which is purged",
    ),
    "study item of no turn": (
        f"UPDATE lm_study_item SET turn_seq = 99 {ADAS} retired_rev IS NULL",
        "study",
        "speaks of turn 99",
    ),
    "study item retired by nobody": (
        f"UPDATE lm_study_item SET retired_rev = 3 {ADAS} retired_rev IS NULL",
        "study",
        "its events say",
    ),
    "study item unreadable": (
        f"UPDATE lm_study_item SET question = {{not_text}} {ADAS} retired_rev IS NULL",
        "study",
        "UnicodeDecodeError",
    ),
    "job beyond the journal": (f"UPDATE lm_job SET to_seq = 99 {BENS} state = 'leased'", "job", "up to 99"),
    "job of another life": (f"UPDATE lm_job SET epoch = 7 {BENS} state = 'leased'", "job", "epoch 7"),
    "job under a fence never given out": (
        f"UPDATE lm_job SET lease_fence = 99 {BENS} state = 'leased'",
        "job",
        "fence 99",
    ),
    "job claimed too often": (f"UPDATE lm_job SET attempts = 9 {BENS} state = 'leased'", "job", "claimed 9 times"),
    "job with stops that do not ascend": (
        f"UPDATE lm_job SET stops = '[2, 1]' {ADAS} state = 'ready'",
        "job",
        "do not ascend",
    ),
    "audit line altered": (f"UPDATE lm_audit SET facts = '[1]' {ADAS} seq = 1", "audit", "line 1"),
    "audit line taken out": (f"DELETE FROM lm_audit {ADAS} seq = 1", "audit", "line 1"),
    "audit cut off": (f"DELETE FROM lm_audit {ADAS} seq = 2", "audit", "no line tells of revision 5"),
    "erasure untold": (f"DELETE FROM lm_audit {CARLAS} seq = 1", "audit", "no line tells of the erasure"),
    "turn of an erased user": (
        f"UPDATE lm_turn SET subject_id = 'carla', tenant_id = 'acme' {BENS} seq = 7",
        "erased",
        "1 rows are left in lm_turn",
    ),
    "counters of an erased user": (
        f"UPDATE lm_subject SET next_seq = 3 {CARLAS} tenant_id = 'acme'",
        "erased",
        "counters",
    ),
    "key of an erased user": (
        f"UPDATE lm_subject SET wrapped_dek = CAST('x' AS {{bytes}}) {CARLAS} tenant_id = 'acme'",
        "erased",
        "data key",
    ),
    "row of nobody": (
        f"UPDATE lm_audit SET tenant_id = 'gone' {BENS} seq = 1",
        "owner",
        "1 rows of lm_audit belong to nobody",
    ),
}


@pytest.mark.parametrize(("statements", "what", "detail"), CORRUPTIONS.values(), ids=CORRUPTIONS)
def test_what_is_made_wrong_is_named(filled: SqlMemoryStore, statements: str, what: str, detail: str) -> None:
    spoil(filled, statements)
    faults = filled.verify().faults
    assert [fault for fault in faults if fault.what == what and detail in fault.detail], faults
    assert "Zanzibar" not in repr(faults)
    if "carla" not in statements.split("WHERE")[0]:  # else a row was given from one to another
        assert len({fault.key for fault in faults if fault.what != "file"}) == 1, (
            "what is wrong with one user says nothing of another"
        )


def test_file_that_is_missing_is_named(store_url: str, tmp_path: Path) -> None:
    store = SqlMemoryStore(store_url, files=str(tmp_path / "payloads"), inline_bytes=0)
    say(store, 1)
    store.commit(ADA, draft(0, 1, 1))
    assert store.verify().is_sound
    (file,) = (path for path in (tmp_path / "payloads").rglob("*") if path.is_file())
    file.unlink()
    assert [(fault.what, fault.detail) for fault in store.verify().faults] == [
        ("payload", "revision 1: CorruptPayload")
    ]
    store.close()

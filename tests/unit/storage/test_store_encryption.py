"""An encrypted store: what lies in it, what it refuses, and what its keys decide."""

from __future__ import annotations

import logging
import shutil
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import insert, select, text
from storage_samples import ADA, BEN, draft, item, say

from locas_storage import (
    CorruptPayload,
    EncryptionMismatch,
    EnvironmentKeyProvider,
    FileKeyProvider,
    KeyProvider,
    KeyUnavailable,
    LocasError,
    RevisionConflict,
    RevisionDraft,
    SqlMemoryStore,
    StoreUnavailable,
    TurnDraft,
    UserErased,
    UserKey,
    add_key,
    new_key_file,
    retire_keys,
)
from locas_storage.encryption import envelope
from locas_storage.sql.tables.schema import blob, revision, study_item, subject, turn

SECRET = "Zanzibar-4711"


def opened(url: str, key_file: Path, **more: Any) -> SqlMemoryStore:
    return SqlMemoryStore(url, key_provider=FileKeyProvider(key_file), **more)


@pytest.fixture
def store(store_url: str, key_file: Path) -> Iterator[SqlMemoryStore]:
    with closing(opened(store_url, key_file)) as made:
        yield made


def tell(store: SqlMemoryStore, key: UserKey = ADA) -> None:
    """Leave a secret in every place that holds content."""
    store.append(key, [TurnDraft("user", f"my code is {SECRET}", idempotency_key="k"), TurnDraft("user", SECRET)])
    store.commit(key, draft(0, 1, 2, SECRET.encode() * 100, new_items=(item(1, 2, f"What is {SECRET}?", SECRET),)))


def execute(store: SqlMemoryStore, statement: str, **values: object) -> None:
    with store.database.write() as connection:
        assert connection.execute(text(statement), values).rowcount > 0


def test_what_was_put_in_comes_out_and_nothing_of_it_lies_in_the_files(tmp_path: Path, key_file: Path) -> None:
    folder = tmp_path / "payloads"
    store = opened(f"sqlite:///{tmp_path / 'locas.db'}", key_file, files=str(folder), inline_bytes=500)
    tell(store)
    store.append(ADA, [TurnDraft("user", "more")])
    store.commit(ADA, draft(1, 3, 3, b"small " + SECRET.encode()))
    material = [line.split()[1].encode() for line in key_file.read_text().splitlines()]
    forms = [SECRET.encode(), SECRET.lower().encode(), b"zanzibar", b"4711", *material]
    files = [path for path in tmp_path.rglob("*") if path.is_file() and path != key_file]
    assert len(files) >= 3  # the database, its log, a payload
    assert [path.name for path in files for form in forms if form in path.read_bytes()] == []
    assert [one.content for one in store.turns(ADA)] == [f"my code is {SECRET}", SECRET, "more"]
    assert [one.answer for one in store.study_items(ADA)] == [SECRET]
    assert (store.payload(ADA, 1), store.payload(ADA, 2)) == (SECRET.encode() * 100, b"small " + SECRET.encode())
    assert [one.seq for one in store.search(ADA, "zanzibar code")] == [1, 2]
    assert store.verify().is_sound
    store.close()
    with closing(
        SqlMemoryStore(f"sqlite:///{tmp_path / 'clear.db'}")
    ) as control:  # what is found gone here is found where it is left
        tell(control)
    assert SECRET.encode() in (tmp_path / "clear.db").read_bytes()


def test_equal_texts_leave_no_equal_bytes(store: SqlMemoryStore) -> None:
    for key in (ADA, BEN):
        store.append(key, [TurnDraft("user", "same"), TurnDraft("user", "same")])
        store.commit(key, draft(0, 1, 1, b"same", new_items=(item(1, 1, "same", "same"),)))
    with store.database.read() as connection:
        for column in (
            turn.c.content,
            turn.c.content_sha256,
            study_item.c.question,
            study_item.c.answer,
            blob.c.data,
            blob.c.sha256,
            subject.c.wrapped_dek,
        ):
            found = [
                bytes(value) if not isinstance(value, str) else value.encode()
                for value in connection.scalars(select(column))
            ]
            assert len(found) == len(set(found)) >= 2
        assert (
            len(set(connection.scalars(select(revision.c.turns_sha256))))
            == len(set(connection.scalars(select(revision.c.payload_sha256))))
            == 2
        )


@given(st.lists(st.text(), max_size=4), st.lists(st.text(), max_size=4))
def test_no_two_places_are_packed_alike(one: list[str], other: list[str]) -> None:
    one, other = ([part.encode("utf-8", "ignore").decode() for part in parts] for parts in (one, other))
    assert (envelope.packed(*one) == envelope.packed(*other)) is (one == other)


@pytest.mark.parametrize(
    "planted",
    [
        "UPDATE lm_turn SET content = :clear WHERE seq = 1",
        "UPDATE lm_study_item SET question = :clear WHERE added_rev = 1",
        "UPDATE lm_study_item SET teacher = :clear WHERE added_rev = 1",
        "UPDATE lm_blob SET enc_header = NULL WHERE size > 0",
        "UPDATE lm_subject SET wrapped_dek = NULL, kek_id = NULL WHERE subject_id = 'ada'",
    ],
)
def test_clear_row_is_refused_where_all_is_encrypted(store: SqlMemoryStore, planted: str) -> None:
    tell(store)
    values = {"clear": SECRET.encode()} if ":clear" in planted else {}
    execute(store, planted, **values)
    with pytest.raises(EncryptionMismatch) as caught:  # noqa: PT012  one of them meets it
        store.turns(ADA)
        store.study_items(ADA)
        store.payload(ADA, 1)
    assert SECRET not in str(caught.value)
    assert not store.verify().is_sound
    if "wrapped_dek" in planted:
        for act in (
            lambda: store.append(ADA, [TurnDraft("user", "x")]),
            lambda: store.commit(ADA, draft(1, 3, 3)),
            lambda: store.search(ADA, "code"),
        ):
            with pytest.raises(LocasError):
                act()


def test_clear_row_of_an_erased_user_is_refused(store: SqlMemoryStore) -> None:
    tell(store)
    store.erase(ADA)
    assert store.turns(ADA) == []
    with closing(SqlMemoryStore("sqlite://")) as other:
        tell(other)
        with other.database.read() as clear:
            row = clear.execute(select(turn).where(turn.c.seq == 1)).one()._asdict()
    with store.database.write() as connection:
        connection.execute(insert(turn).values(row))
    for act in (lambda: store.turns(ADA), lambda: store.search(ADA, "code")):
        with pytest.raises(EncryptionMismatch):
            act()
    assert [fault.what for fault in store.verify().faults] == ["erased"]


def test_encrypted_content_is_refused_without_keys(store: SqlMemoryStore, store_url: str) -> None:
    tell(store)
    state = store.state(ADA)
    assert state is not None
    assert state.is_encrypted
    with closing(SqlMemoryStore(store_url)) as bare:
        for act in (
            lambda: bare.turns(ADA),
            lambda: bare.search(ADA, "code"),
            lambda: bare.study_items(ADA),
            lambda: bare.payload(ADA, 1),
            lambda: bare.append(ADA, [TurnDraft("user", SECRET)]),
            lambda: bare.commit(ADA, draft(1, 3, 3)),
            lambda: bare.rotate_keys(),
        ):
            with pytest.raises(EncryptionMismatch, match="key_provider="):
                act()
        assert [fault.what for fault in bare.verify().faults] == ["encryption"]
        # What needs no content needs no key: an operator can remove without being able to read.
        assert [one.number for one in bare.revisions(ADA)] == [1]
        assert bare.users() == [ADA]
        assert bare.rollback(ADA, 0).number == 2
        assert bare.forget(ADA, [1]).turns == (1,)
    assert store.verify().is_sound
    assert [one.content for one in store.turns(ADA)] == [SECRET]


@pytest.mark.parametrize(
    ("column", "table"), [("content", "lm_turn"), ("question", "lm_study_item"), ("enc_header", "lm_blob")]
)
def test_encrypted_row_of_a_clear_user_is_refused(store_url: str, column: str, table: str) -> None:
    with closing(SqlMemoryStore(store_url)) as bare:
        tell(bare)
        execute(bare, f"UPDATE {table} SET {column} = :sealed", sealed=envelope.MARK + bytes(40))
        with pytest.raises(EncryptionMismatch):  # noqa: PT012
            bare.turns(ADA)
            bare.study_items(ADA)
            bare.payload(ADA, 1)


def test_clear_user_is_refused_by_a_store_that_encrypts(store_url: str, key_file: Path) -> None:
    with closing(SqlMemoryStore(store_url)) as bare:
        tell(bare)
    with closing(opened(store_url, key_file)) as store:
        for act in (
            lambda: store.turns(ADA),
            lambda: store.append(ADA, [TurnDraft("user", "x")]),
            lambda: store.commit(ADA, draft(1, 3, 3)),
        ):
            with pytest.raises(EncryptionMismatch, match="in the clear"):
                act()
        tell(store, BEN)
        assert len(store.turns(BEN)) == 2


def test_other_key_opens_nothing(store: SqlMemoryStore, store_url: str, key_file: Path, tmp_path: Path) -> None:
    tell(store)
    other = tmp_path / "other"
    new_key_file(other)
    renamed = tmp_path / "renamed"
    renamed.write_text(f"{key_file.read_text().split()[0]} {other.read_text().split()[1]}\n")
    renamed.chmod(0o600)
    for wrong, says in ((other, "is not among the 1 keys"), (renamed, "does not open")):
        with closing(opened(store_url, wrong)) as thief, pytest.raises(KeyUnavailable, match=says) as caught:
            thief.turns(ADA)
        assert all(line.split()[1] not in str(caught.value) for line in wrong.read_text().splitlines())


def test_data_key_of_one_user_does_not_open_as_anothers(store: SqlMemoryStore) -> None:
    tell(store)
    tell(store, BEN)
    execute(
        store,
        "UPDATE lm_subject SET wrapped_dek = (SELECT o.wrapped_dek FROM lm_subject o WHERE o.subject_id = 'ben') WHERE "
        "subject_id = 'ada'",
    )
    with pytest.raises(KeyUnavailable):
        store.turns(ADA)
    assert len(store.turns(BEN)) == 2


def test_rotation_wraps_anew_and_rewrites_no_content(
    store: SqlMemoryStore, store_url: str, key_file: Path, tmp_path: Path
) -> None:
    tell(store)
    tell(store, BEN)

    def rows() -> list[object]:
        with store.database.read() as connection:
            return [
                tuple(row)
                for table in (turn, study_item, blob, revision)
                for row in connection.execute(select(table).order_by(*table.primary_key))
            ]

    before, old = rows(), tmp_path / "old"
    shutil.copy(key_file, old)
    assert store.rotate_keys() == 0
    current = add_key(key_file)
    assert (store.rotate_keys(), store.rotate_keys(), rows() == before) == (2, 0, True)
    assert retire_keys(key_file) == 1
    with closing(opened(store_url, key_file)) as again:
        assert [one.content for one in again.turns(BEN)][1] == SECRET
        assert again.verify().is_sound
    with closing(opened(store_url, old)) as late, pytest.raises(KeyUnavailable, match=current):
        late.turns(ADA)


def test_without_its_wrapped_key_a_user_is_unreadable(tmp_path: Path, key_file: Path) -> None:
    url, backup = f"sqlite:///{tmp_path / 'locas.db'}", tmp_path / "backup.db"
    with closing(opened(url, key_file)) as store:
        tell(store)
        tell(store, BEN)
        with store.database.read() as connection:
            wrapped = bytes(
                connection.scalars(select(subject.c.wrapped_dek).where(subject.c.subject_id == "ada")).one()
            )
        store.database.overwrite_log()
        shutil.copy(tmp_path / "locas.db", backup)
        assert wrapped in backup.read_bytes()
        assert store.erase(ADA).is_overwritten
        assert [path.name for path in tmp_path.iterdir() if wrapped in path.read_bytes()] == ["backup.db"]
        with pytest.raises(UserErased):
            store.append(ADA, [TurnDraft("user", "late")])
        # Rows that come back from elsewhere meet no key, and a new one does not fit.
        store.reinstate(ADA)
        say(store, 2, ADA)
        with closing(opened(f"sqlite:///{backup}", key_file)) as restored, restored.database.read() as connection:
            ciphertext = connection.scalars(
                select(turn.c.content).where(turn.c.subject_id == "ada", turn.c.seq == 1)
            ).one()
        execute(store, "UPDATE lm_turn SET content = :old WHERE subject_id = 'ada' AND seq = 1", old=ciphertext)
        with pytest.raises(CorruptPayload):
            store.turns(ADA)
        # A whole backup holds the wrapped key as well: it ends when the key that wraps it does.
        with closing(opened(f"sqlite:///{backup}", key_file)) as restored:
            assert restored.turns(ADA)[1].content == SECRET
        add_key(key_file)
        assert store.rotate_keys() == 2
        retire_keys(key_file)
        assert store.turns(BEN)[1].content == SECRET
    with closing(opened(f"sqlite:///{backup}", key_file)) as restored, pytest.raises(KeyUnavailable):
        restored.turns(ADA)


def test_commit_learnt_before_an_erasure_is_refused(store_url: str, key_file: Path) -> None:
    def reinstate(point: str) -> None:
        if point == "commit.file":
            other.erase(ADA)
            other.reinstate(ADA)
            say(other, 2)

    other, store = opened(store_url, key_file), opened(store_url, key_file, fault_point=reinstate)
    say(store, 2)
    with pytest.raises(RevisionConflict, match="began again"):
        store.commit(ADA, RevisionDraft(0, "f", "c", "0", 0, 1, 2, b"what was learnt"))
    assert store.verify().is_sound
    store.close()
    other.close()


def test_forgotten_turns_stay_forgotten(store: SqlMemoryStore) -> None:
    tell(store)
    store.forget(ADA, [1])
    assert store.append(ADA, [TurnDraft("user", "again", idempotency_key="k")])[0].is_forgotten
    store.commit(ADA, draft(2, 1, 2, b"rebuilt"))
    assert store.payload(ADA, 3) == b"rebuilt"
    assert store.verify().is_sound


def test_corrected_turn_is_encrypted_as_the_old_one_was(store: SqlMemoryStore) -> None:
    tell(store)
    made = store.correct(ADA, 2, TurnDraft("user", "another secret"))
    assert [turn.content for turn in store.turns(ADA)][-1] == made.content == "another secret"
    with store.database.read() as connection:
        assert all(
            b"secret" not in bytes(content) for content in connection.scalars(text("SELECT content FROM lm_turn"))
        )
    assert store.verify().is_sound


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666, 0o610])
def test_key_file_that_others_may_use_is_refused(key_file: Path, mode: int) -> None:
    assert key_file.stat().st_mode & 0o777 == 0o600
    key_file.chmod(mode)
    with pytest.raises(KeyUnavailable, match=f"{mode:04o}.*0600"):
        _ = FileKeyProvider(key_file).current_key_id


@pytest.mark.parametrize("content", ["", "nonsense", "id !!!!", "id c2hvcnQ=", "id {key}\nid {key}", "two words {key}"])
def test_key_file_that_holds_no_keys_is_refused(key_file: Path, content: str) -> None:
    material = key_file.read_text().split()[1]
    key_file.write_text(content.replace("{key}", material))
    with pytest.raises(KeyUnavailable) as caught:
        _ = FileKeyProvider(key_file).current_key_id
    assert material not in str(caught.value)


def test_key_file_is_never_overwritten(key_file: Path, tmp_path: Path) -> None:
    before = key_file.read_bytes()
    with pytest.raises(KeyUnavailable, match="never overwritten"):
        new_key_file(key_file)
    assert key_file.read_bytes() == before
    with pytest.raises(KeyUnavailable, match="keys new"):
        _ = FileKeyProvider(tmp_path / "none").current_key_id


def test_environment_holds_the_same_keys(store_url: str, key_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAS_KEYS", key_file.read_text().strip() + ",")
    assert isinstance(EnvironmentKeyProvider(), KeyProvider)
    with closing(SqlMemoryStore(store_url, key_provider=EnvironmentKeyProvider())) as store:
        tell(store)
    with closing(opened(store_url, key_file)) as store:
        assert store.turns(ADA)[1].content == SECRET
    monkeypatch.delenv("LOCAS_KEYS")
    with pytest.raises(KeyUnavailable, match="LOCAS_KEYS"):
        _ = EnvironmentKeyProvider().current_key_id


def test_key_service_is_asked_once_for_many_reads(store_url: str, key_file: Path) -> None:
    class Counting:
        def __init__(self) -> None:
            self.file, self.unwraps = FileKeyProvider(key_file), 0

        @property
        def current_key_id(self) -> str:
            return self.file.current_key_id

        def wrap(self, key_id: str, data_key: bytes, context: bytes) -> bytes:
            return self.file.wrap(key_id, data_key, context)

        def unwrap(self, key_id: str, wrapped: bytes, context: bytes) -> bytes:
            self.unwraps += 1
            return self.file.unwrap(key_id, wrapped, context)

    service = Counting()
    with closing(SqlMemoryStore(store_url, key_provider=service)) as store:
        tell(store)
        for _ in range(5):
            store.turns(ADA)
        assert service.unwraps == 1
        assert store.data_keys.remembered > 0
        store.erase(ADA)
        assert store.data_keys.remembered == 0


def test_nothing_of_it_is_said(store: SqlMemoryStore, key_file: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    tell(store)
    material = key_file.read_text().split()[1]
    with store.database.read() as connection:
        said = [repr(store.data_keys.cipher(connection, ADA)), repr(FileKeyProvider(key_file)), repr(store)]
    said += [record.getMessage() + repr(record.__dict__) for record in caplog.records]
    assert [line for line in said if SECRET in line or material in line] == []


def test_lack_of_cryptography_is_said_at_once(key_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.ciphers.aead", None)
    with pytest.raises(StoreUnavailable, match=r"locas-agent\[encryption\]"):
        opened("sqlite://", key_file)
    SqlMemoryStore("sqlite://").close()

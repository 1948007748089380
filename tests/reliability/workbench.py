"""What the check of a named mutant works with, and the checks that no test has under a name of its own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from sqlalchemy import select, text, update

from locas_agent.inference import Engine
from locas_agent.memory.serialization import to_bytes
from locas_storage import (
    CorruptPayload,
    EncryptionMismatch,
    FileKeyProvider,
    KeyUnavailable,
    SqlMemoryStore,
    TurnDraft,
    new_key_file,
)
from locas_storage.conformance.samples import ADA, BEN, draft, item, say
from locas_storage.encryption import envelope
from locas_storage.sql.tables.schema import turn
from tests.conftest import MakeMemory
from tests.reliability.conversations import Conversations
from tests.reliability.damage import kept_wrong, loaded_wrong, memory
from tests.reliability.listening import Overheard, listening
from tests.reliability.mixed_batches import USERS, wrong_generations, wrong_rows
from tests.reliability.mutants_of_bytes import mutants


@dataclass
class Workbench:
    """Stores and an engine for checks.

    Attributes:
        engine: on the tiny random backbone.
        make_memory: makes memories that change logits a lot.
        folder: for files.
    """

    engine: Engine
    make_memory: MakeMemory
    folder: Path
    _opened: ExitStack = field(default_factory=ExitStack)

    def store(self, *, encrypts: bool = False) -> SqlMemoryStore:
        """Return a new, empty store in memory."""
        keys = self.folder / "keys"
        if encrypts and not keys.exists():
            new_key_file(keys)
        return self._opened.enter_context(
            closing(SqlMemoryStore("sqlite://", key_provider=FileKeyProvider(keys) if encrypts else None))
        )

    def close(self) -> None:
        self._opened.close()


Check = Callable[[Workbench], None]


def case(conformance_case: Callable[..., None], **values: object) -> Check:
    """Return a case of the conformance suite as a check."""
    return lambda bench: conformance_case(bench.store(), **values)


def damaged_rows_are_refused(bench: Workbench) -> None:
    store, saved = bench.store(), to_bytes(memory(0))
    say(store, 1)
    store.commit(ADA, draft(0, 1, 1, saved))
    assert kept_wrong(store, mutants([saved], 30, kinds=["flipped", "cut"]), fit_digest=False)[1] == []


def damaged_memories_are_refused(bench: Workbench) -> None:
    originals = [to_bytes(memory(0)), to_bytes(memory(1))]
    assert loaded_wrong(originals, mutants(originals, 400))[1] == []


def altered_turn_is_refused(bench: Workbench) -> None:
    store = bench.store()
    say(store, 1)
    with store.database.write() as connection:
        connection.execute(update(turn).values(content=b"text 1"))
    with pytest.raises(CorruptPayload):
        store.turns(ADA)


def forgetting_leaves_a_sound_store(bench: Workbench) -> None:
    store = bench.store()
    say(store, 2)
    store.commit(ADA, draft(0, 1, 2, b"saw it", new_items=(item(1, 2),)))
    store.forget(ADA, [1])
    assert store.verify().faults == ()


def altered_audit_line_is_found(bench: Workbench) -> None:
    store = bench.store()
    say(store, 1)
    store.record(ADA, "refuse", {"to_seq": 1})
    with store.database.write() as connection:
        connection.execute(text("UPDATE lm_audit SET facts = '{}'"))
    assert not store.verify().is_sound


def one_key_opens_one_users_content(bench: Workbench) -> None:
    """Two users with the same data key, as a broken key service may hand out."""
    place, data_key = envelope.turn_place(1), os.urandom(envelope.KEY_BYTES)
    sealed = envelope.Encrypted(ADA, data_key).encrypt(place, b"mine")
    with pytest.raises(CorruptPayload):
        envelope.Encrypted(BEN, data_key).decrypt(place, sealed)


def turns_cannot_trade_places(bench: Workbench) -> None:
    store = bench.store(encrypts=True)
    say(store, 2)
    with store.database.write() as connection:
        first = select(turn.c.content, turn.c.content_sha256).where(turn.c.seq == 1)
        connection.execute(update(turn).where(turn.c.seq == 2).values(**connection.execute(first).one()._asdict()))
    with pytest.raises(CorruptPayload):
        store.turns(ADA, after=1)


def wrapped_keys_cannot_trade_places(bench: Workbench) -> None:
    store = bench.store(encrypts=True)
    say(store, 1)
    say(store, 1, BEN)
    with store.database.write() as connection:
        theirs = "SELECT o.wrapped_dek FROM lm_subject o WHERE o.subject_id = 'ben'"
        connection.execute(text(f"UPDATE lm_subject SET wrapped_dek = ({theirs}) WHERE subject_id = 'ada'"))
    with pytest.raises(KeyUnavailable):
        store.turns(ADA)


def clear_row_is_refused(bench: Workbench) -> None:
    store = bench.store(encrypts=True)
    say(store, 1)
    with store.database.write() as connection:
        connection.execute(update(turn).values(content=b"put there by hand"))
    with pytest.raises(EncryptionMismatch):
        store.turns(ADA)


def no_row_of_a_batch_is_anothers(bench: Workbench) -> None:
    memories = [bench.make_memory(seed, width=2) for seed in range(USERS)]
    assert wrong_rows(bench.engine, memories, 2)[1] == 0


def no_generation_of_a_batch_is_anothers(bench: Workbench) -> None:
    memories = [bench.make_memory(seed, width=2) for seed in range(USERS)]
    assert wrong_generations(bench.engine, memories, 1)[1] == 0


def no_reply_is_anothers(bench: Workbench) -> None:
    talks = Conversations(bench.engine.backbone, bench.store(), bench.make_memory, users=8)
    for _ in range(6):
        assert talks.round() == []


def rows_and_values_are_not_logged(bench: Workbench) -> None:
    heard = Overheard()
    with listening(heard):
        store = bench.store()
        store.append(ADA, [TurnDraft("user", heard.canary)])
        store.turns(ADA)
        store.search(ADA, heard.canary)
    assert heard.hits() == []


@contextmanager
def a_workbench(engine: Engine, make_memory: MakeMemory, folder: Path) -> Iterator[Workbench]:
    made = Workbench(engine, make_memory, folder)
    try:
        yield made
    finally:
        made.close()

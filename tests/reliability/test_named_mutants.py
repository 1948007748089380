"""Named faults, each planted for a moment: a check of this project has to find every one of them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from sqlalchemy.exc import SQLAlchemyError

from locas_agent.errors import LocasError
from locas_agent.inference import Engine
from locas_agent.inference.prefix_cache import CachedPrefix, PrefixSlot
from locas_agent.memory import LocasMemory, MemoryBatch, serialization
from locas_agent.memory.batch import ReadyRows
from locas_agent.memory_cache import MemoryCache
from locas_storage import Revision, UserKey
from locas_storage import conformance as cases
from locas_storage.encryption import envelope
from locas_storage.rules import commit, lineage
from locas_storage.sql import data_keys
from locas_storage.sql.database import engine as storage_engine
from locas_storage.sql.statements import forgetting, jobs, payloads, turns, users
from locas_storage.sql.tables import rows
from locas_storage.sql.tables.schema import turn
from tests.conftest import MakeMemory
from tests.reliability import workbench
from tests.reliability.conftest import Record
from tests.reliability.workbench import Check, a_workbench, case

Plant = Callable[[pytest.MonkeyPatch], None]


@dataclass(frozen=True)
class Mutant:
    """A fault and what finds it."""

    name: str
    plant: Plant
    found_by: Check


def put(owner: object, name: str, value: object) -> Plant:
    """Return a plant that replaces one thing."""
    return lambda patch: patch.setattr(owner, name, value)


def fence_stays_at_a_claim(patch: pytest.MonkeyPatch) -> None:
    advance = users.advance

    def lazy(connection: Any, before: Any, **values: Any) -> None:
        if set(values) != {"fence"}:
            advance(connection, before, **values)

    patch.setattr(users, "advance", lazy)


def fence_of_a_draft_is_not_compared(patch: pytest.MonkeyPatch) -> None:
    check = commit.check_follows
    patch.setattr(commit, "check_follows", lambda draft, state: check(replace(draft, fence=None), state))


def head_of_a_draft_is_not_compared(patch: pytest.MonkeyPatch) -> None:
    check = commit.check_follows
    patch.setattr(commit, "check_follows", lambda draft, state: check(replace(draft, parent=state.head), state))


def memory_stays_attached(patch: pytest.MonkeyPatch) -> None:
    plan = lineage.plan
    patch.setattr(lineage, "plan", lambda *what: replace(plan(*what), base=None))


def place_is_not_bound(patch: pytest.MonkeyPatch) -> None:
    bound, digest = envelope.Encrypted._bound, envelope.Encrypted.digest
    patch.setattr(envelope.Encrypted, "_bound", lambda self, place: bound(self, place[:1]))
    patch.setattr(envelope.Encrypted, "digest", lambda self, place, content: digest(self, place[:1], content))


def clear_content_is_taken(patch: pytest.MonkeyPatch) -> None:
    opened = envelope.Encrypted.decrypt
    patch.setattr(
        envelope.Encrypted,
        "decrypt",
        lambda self, place, kept: opened(self, place, kept) if kept.startswith(envelope.MARK) else kept,
    )


def two_rows_of_a_batch_trade_places(patch: pytest.MonkeyPatch) -> None:
    stacked = MemoryBatch.stacked

    def swapped(ready: Sequence[ReadyRows | None], *more: Any) -> MemoryBatch:
        return stacked([ready[1], ready[0], *ready[2:]] if len(ready) > 1 else ready, *more)

    patch.setattr(MemoryBatch, "stacked", swapped)


def two_rows_of_a_choice_trade_places(patch: pytest.MonkeyPatch) -> None:
    select = MemoryBatch.select

    def swapped(self: MemoryBatch, indices: Sequence[int]) -> MemoryBatch:
        return select(self, [*indices[-1:], *indices[1:-1], *indices[:1]] if len(indices) > 1 else indices)

    patch.setattr(MemoryBatch, "select", swapped)


def cache_is_kept_under(patch: pytest.MonkeyPatch, name_of: Callable[[UserKey, Revision], object]) -> None:
    of = MemoryCache.of
    known: dict[object, LocasMemory | None] = {}

    def remembered(self: MemoryCache, key: UserKey, revision: Revision | None) -> LocasMemory | None:
        if revision is None or not revision.has_payload:
            return None
        return known.setdefault(name_of(key, revision), of(self, key, revision))

    patch.setattr(MemoryCache, "of", remembered)


def pasts_are_kept_under(patch: pytest.MonkeyPatch, name_of: Callable[[UserKey, Revision | None], object]) -> None:
    pasts: dict[object, CachedPrefix | None] = {}
    patch.setattr(MemoryCache, "past", lambda _, key, revision: PrefixSlot(pasts.get(name_of(key, revision))))
    patch.setattr(
        MemoryCache, "keep_past", lambda _, key, revision, kept: pasts.update({name_of(key, revision): kept.past})
    )


def values_are_shown(patch: pytest.MonkeyPatch) -> None:
    create = storage_engine.create_engine
    patch.setattr(storage_engine, "create_engine", lambda url, **how: create(url, **(how | {"hide_parameters": False})))


def rows_are_shown(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(logging.getLogger("sqlalchemy.engine.Engine.locas"), "filters", [])  # engines made before have set it
    patch.setattr(storage_engine, "_no_rows", lambda _: True)


MUTANTS = [
    Mutant(
        "a lease is not checked",
        put(jobs, "_holds", lambda lease: rows.belongs_to(jobs.job, lease.key)),
        case(cases.test_worker_that_wakes_late_is_refused),
    ),
    Mutant(
        "a claim leaves the fence",
        fence_stays_at_a_claim,
        case(cases.test_claim_overtakes_a_consolidation_without_a_lease),
    ),
    Mutant(
        "the fence is not compared",
        fence_of_a_draft_is_not_compared,
        case(cases.test_claim_overtakes_a_consolidation_without_a_lease),
    ),
    Mutant(
        "the head is set without comparing",
        head_of_a_draft_is_not_compared,
        case(cases.test_commit_that_does_not_follow_changes_nothing, parent=0, from_seq=3, to_seq=4),
    ),
    Mutant("a key is not looked up", put(turns, "known", lambda *_: []), case(cases.test_same_key_is_one_turn)),
    Mutant(
        "the tenant is not asked for",
        put(rows, "belongs_to", lambda table, key: table.c.subject_id == key.user),
        case(cases.test_users_do_not_see_each_other),
    ),
    Mutant(
        "the user is not asked for",
        put(rows, "belongs_to", lambda table, key: table.c.tenant_id == key.tenant),
        case(cases.test_users_do_not_see_each_other),
    ),
    Mutant(
        "payloads are not checked",
        put(commit, "checked", lambda _, data, **__: data),
        workbench.damaged_rows_are_refused,
    ),
    Mutant(
        "texts are not checked",
        put(envelope.Plaintext, "digest", lambda *_: bytes(32)),
        workbench.altered_turn_is_refused,
    ),
    Mutant(
        "the trail is not checked", put(commit, "first_broken", lambda *_: None), workbench.altered_audit_line_is_found
    ),
    Mutant(
        "a memory's checksum is not compared",
        put(serialization, "_checksum", lambda *_: ""),
        workbench.damaged_memories_are_refused,
    ),
    Mutant(
        "a memory's values are not looked at",
        put(torch, "isfinite", lambda values: torch.ones_like(values, dtype=torch.bool)),
        workbench.damaged_memories_are_refused,
    ),
    Mutant(
        "forgetting leaves study items",
        put(forgetting, "purge_items", lambda *_: 0),
        case(cases.test_forgotten_turn_is_gone_at_once_with_all_that_saw_it),
    ),
    Mutant(
        "forgetting leaves the memory",
        memory_stays_attached,
        case(cases.test_forgotten_turn_is_gone_at_once_with_all_that_saw_it),
    ),
    Mutant(
        "forgetting leaves the bytes",
        put(payloads, "drop_unused", lambda *_: []),
        workbench.forgetting_leaves_a_sound_store,
    ),
    Mutant(
        "erasing leaves no tombstone",
        put(forgetting, "leave_tombstone", lambda *_: None),
        case(cases.test_late_writers_are_refused_after_erasure),
    ),
    Mutant(
        "what expired is shown",
        put(rows, "shown", lambda: turn.c.forgotten_at.is_(None)),
        case(cases.test_expired_turn_is_not_shown_and_then_forgotten),
    ),
    Mutant(
        "too much is pruned",
        put(commit, "beyond_kept", lambda named, keep: set(list(dict.fromkeys(named))[keep - 1 :])),
        case(cases.test_old_payloads_are_pruned_and_their_rows_stay),
    ),
    Mutant(
        "a ciphertext is bound to no user",
        put(envelope.Encrypted, "_bound", lambda _, place: envelope.packed(*place)),
        workbench.one_key_opens_one_users_content,
    ),
    Mutant("a ciphertext is bound to no place", place_is_not_bound, workbench.turns_cannot_trade_places),
    Mutant(
        "a wrapped key is bound to nobody",
        put(data_keys, "context", lambda _: b""),
        workbench.wrapped_keys_cannot_trade_places,
    ),
    Mutant("clear content is taken", clear_content_is_taken, workbench.clear_row_is_refused),
    Mutant(
        "two rows of a batch trade places", two_rows_of_a_batch_trade_places, workbench.no_row_of_a_batch_is_anothers
    ),
    Mutant(
        "two rows of a choice trade places",
        two_rows_of_a_choice_trade_places,
        workbench.no_generation_of_a_batch_is_anothers,
    ),
    Mutant(
        "replies with two rows in each other's place", two_rows_of_a_batch_trade_places, workbench.no_reply_is_anothers
    ),
    Mutant(
        "a cache without the revision",
        lambda patch: cache_is_kept_under(patch, lambda key, _: key),
        workbench.no_reply_is_anothers,
    ),
    Mutant(
        "a cache without the user",
        lambda patch: cache_is_kept_under(patch, lambda _, revision: revision.number),
        workbench.no_reply_is_anothers,
    ),
    Mutant(
        "a past without the revision",
        lambda patch: pasts_are_kept_under(patch, lambda key, _: key),
        workbench.no_reply_is_anothers,
    ),
    Mutant(
        "a past without the user",
        lambda patch: pasts_are_kept_under(patch, lambda _, revision: revision and revision.number),
        workbench.no_reply_is_anothers,
    ),
    Mutant("values are logged", values_are_shown, workbench.rows_and_values_are_not_logged),
    Mutant("rows are logged", rows_are_shown, workbench.rows_and_values_are_not_logged),
]

FOUND = (AssertionError, pytest.fail.Exception, LocasError, SQLAlchemyError)
"""How a check says so. Anything else would be a mistake in a plant or in a check."""


def test_every_named_mutant_is_found(
    engine: Engine, make_memory: MakeMemory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record: Record
) -> None:
    survivors = []
    for number, mutant in enumerate(MUTANTS):
        for is_planted in (False, True):
            folder = tmp_path / f"{number} {is_planted}"
            folder.mkdir()
            with monkeypatch.context() as patch, a_workbench(engine, make_memory, folder) as bench:
                if is_planted:
                    mutant.plant(patch)
                try:
                    mutant.found_by(bench)
                except FOUND:
                    assert is_planted, f"{mutant.name}: its check fails without it"
                else:
                    survivors += [mutant.name] if is_planted else []
    assert survivors == []
    record("named mutants", planted=len(MUTANTS), found=len(MUTANTS) - len(survivors))

"""The example of a store of one's own passes every public case, and another process finds what it kept."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

from locas_storage import MemoryStore, TurnDraft
from locas_storage.conformance import *  # noqa: F403  the public cases, collected by pytest
from locas_storage.conformance.samples import ADA, draft, item, say

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "own_store.py"


def example() -> ModuleType:
    spec = spec_from_file_location("own_store", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


OWN = example()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[MemoryStore]:
    opened: MemoryStore = OWN.FolderStore(tmp_path / "store")
    yield opened
    opened.close()


def test_what_was_kept_is_there_in_another_store(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    store: MemoryStore = OWN.FolderStore(folder)
    say(store, 4)
    store.append(ADA, [TurnDraft("user", "déjà vu", idempotency_key="k", name="Ada", session="s")])
    first = store.commit(ADA, draft(0, 1, 3, b"\x00\xff", new_items=(item(1, 3),), metrics={"last_loss": float("nan")}))
    store.forget(ADA, [4])
    store.queue.enqueue(ADA, 5)
    (lease,) = store.queue.claim("worker")
    again: MemoryStore = OWN.FolderStore(folder)
    assert again.turns(ADA) == store.turns(ADA) != []
    assert again.revisions(ADA) == store.revisions(ADA)
    assert again.payload(ADA, first.number) == b"\x00\xff"
    assert again.study_items(ADA) == store.study_items(ADA) != []
    assert again.audit(ADA) == store.audit(ADA) != []
    again.queue.complete(lease, 5)
    assert OWN.FolderStore(folder).queue.jobs() == []
    assert dataclasses.asdict(again.state(ADA)) == dataclasses.asdict(store.state(ADA))  # type: ignore[arg-type]


def test_example_shows_what_it_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    OWN.main(str(tmp_path / "store"))
    assert capsys.readouterr().out == "turn 1: My dog is called Zorbin.\n"


def test_example_is_short() -> None:
    assert len(EXAMPLE.read_text(encoding="utf-8").splitlines()) <= 60

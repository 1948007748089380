"""The whole contract at once: any order of calls on any store does what a plain model of it does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from locas_storage import FileKeyProvider, InMemoryStore, SqlMemoryStore, new_key_file
from tests.reliability.conftest import Record, Sizes
from tests.reliability.places import DATABASES, Place
from tests.reliability.store_machine import INLINE_BYTES, Ground, StoreMachine


@pytest.fixture(params=["dict", *DATABASES, *(f"{kind}, encrypted" for kind in DATABASES)])
def ground(request: pytest.FixtureRequest, make_place: Callable[[str], Place], tmp_path: Path) -> Iterator[Ground]:
    database, _, encrypted = str(request.param).partition(", ")
    if database == "dict":
        yield Ground([InMemoryStore()])
        return
    place, key_file = make_place(database), tmp_path / "keys" if encrypted else None
    if key_file is not None:
        new_key_file(key_file)
    with ExitStack() as opened:

        def store() -> SqlMemoryStore:
            keys = FileKeyProvider(key_file) if key_file is not None else None
            return opened.enter_context(
                closing(SqlMemoryStore(place.url, files=str(place.files), inline_bytes=INLINE_BYTES, key_provider=keys))
            )

        yield Ground([store(), store()], bool(encrypted), key_file, place.files)


def test_any_order_of_calls_is_what_the_model_says(
    ground: Ground, request: pytest.FixtureRequest, sizes: Sizes, record: Record
) -> None:
    how = settings(
        max_examples=sizes.machine_runs,
        stateful_step_count=sizes.machine_steps,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(lambda: StoreMachine(ground), settings=how)
    figures = {"runs": sizes.machine_runs, "most_steps_of_a_run": sizes.machine_steps, "calls": ground.calls}
    record(f"stateful run, {request.node.callspec.params['ground']}", **figures)

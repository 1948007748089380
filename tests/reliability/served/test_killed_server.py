"""A server that is killed while it answers, again and again: what its clients were told is kept, and kept once."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from locas_storage import open_store
from tests.integration.server_process import serving
from tests.reliability.conftest import Record, Sizes
from tests.reliability.places import wait_for
from tests.reliability.served.client import BROKEN, REFUSED
from tests.reliability.served.people import kept_of, people
from tests.reliability.served.talking import Talk

pytestmark = pytest.mark.rounding

AT_ONCE = 6
ANSWERS_BETWEEN = 12
"""Least answers between two kills."""


def progress(talk: Talk) -> Callable[[], object]:
    """Return what tells whether there are some more answers than now."""
    before = talk.answers
    return lambda: talk.answers >= before + ANSWERS_BETWEEN or talk.errors


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_kills_lose_nothing_that_was_told(tmp_path: Path, sizes: Sizes, record: Record) -> None:
    url, everybody, rng = f"sqlite:///{tmp_path / 'locas.db'}", people(8), random.Random(2026)
    with closing(open_store(url)) as store:
        key = store.api_keys.new("default").secret
    talk = Talk(0, key, "tiny", everybody, AT_ONCE)
    for number in range(sizes.server_kills):
        with serving(url, tmp_path / f"log {number}", "--no-learn") as server:
            talk.port = server.port
            if number == 0:
                talk.begin()
            wait_for(progress(talk))
            time.sleep(rng.random() * 0.2)
            assert server.stop(signal.SIGKILL) == -signal.SIGKILL
    with serving(url, tmp_path / "log", "--no-learn") as server:
        talk.port = server.port
        wait_for(progress(talk))
        talk.end()
        assert server.stop() == 0
    with closing(open_store(url)) as store:
        kept, faults = kept_of(store, everybody), store.verify().faults
    assert talk.errors == []
    assert set(talk.outcomes) <= {200, 429, BROKEN, REFUSED}
    assert talk.outcomes[BROKEN] > 0
    assert (kept.lost, kept.doubled, faults) == (0, 0, ())
    record(
        "killed server, sqlite",
        kills=sizes.server_kills,
        at_once=AT_ONCE,
        answers=talk.answers,
        sent_again_after_an_error=talk.outcomes[BROKEN],
        turns=kept.turns,
        lost=0,
        doubled=0,
        faults=0,
    )

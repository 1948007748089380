"""Many people on one server, beside connections that say nothing: each is answered, with nobody else's, and kept once.

The process is the command's, on the bundled backbone, learning beside it; so are the sockets and the clients.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from locas_agent import AgentMemory, Backbone
from locas_agent.server.journal import ChatJournal
from locas_storage import open_store
from tests.conftest import MakeMemory
from tests.integration.server_process import serving
from tests.reliability.conftest import Record, Sizes
from tests.reliability.places import wait_for
from tests.reliability.served.crowd import Crowd, resident_mebibytes, settled, sockets_of
from tests.reliability.served.people import WHO, Person, kept_of, people
from tests.reliability.served.talking import MEMORY_TOKENS, Talk
from tests.reliability.test_named_mutants import cache_is_kept_under
from tests.unit.langchain.conftest import taught
from tests.unit.server.conftest import MODEL, Serve, agent, serve, with_tools  # noqa: F401  fixtures

pytestmark = pytest.mark.rounding

EVERY_WITH_MEMORY = 4
"""Of so many people one has a memory that answers otherwise than everybody else's."""
IDLE_SECONDS = 60.0
"""Longest time that the server may take to close what says nothing: 20 seconds, on a busy machine."""


def with_memories(agent: AgentMemory, everybody: Sequence[Person], make_memory: MakeMemory) -> None:  # noqa: F811
    """Give some people memories that answer differently, and note how."""
    for seed, person in enumerate(everybody[::EVERY_WITH_MEMORY]):
        taught(agent, make_memory(seed, width=2, on=agent.backbone), person.name)
        handle = agent.for_user(person.name)
        person.expected = handle.generate([{"role": "user", "content": WHO}], max_new_tokens=MEMORY_TOKENS).text


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_everybody_is_answered_and_kept_once(
    tmp_path: Path, make_memory: MakeMemory, sizes: Sizes, record: Record
) -> None:
    url, everybody = f"sqlite:///{tmp_path / 'locas.db'}", people(sizes.served_users)
    with closing(open_store(url)) as store, AgentMemory(backbone=Backbone.load("tiny"), store=store) as made:
        with_memories(made, everybody, make_memory)
    with serving(url, tmp_path / "log") as server:
        pid, key = server.process.pid, server.key()
        before, mebibytes = settled(pid, 0, seconds=0.5), resident_mebibytes(pid)
        with Crowd(server.port, key, sizes.idle_connections) as crowd:
            wait_for(lambda: sockets_of(pid) >= sizes.idle_connections)
            with Talk(server.port, key, "tiny", everybody, sizes.served_at_once) as talk:
                time.sleep(sizes.served_seconds)
            assert server.get("/health")[0] == 200
            crowd.stay()
            if sizes.served_seconds > IDLE_SECONDS:  # the full form sees that the server itself closes them
                settled(pid, before, seconds=IDLE_SECONDS)
                assert crowd.left == 0
        after = settled(pid, before, seconds=IDLE_SECONDS)
        grown = resident_mebibytes(pid) - mebibytes
        assert server.stop() == 0
        assert "Traceback" not in server.log.read_text()
    with closing(open_store(url)) as store:
        kept, faults = kept_of(store, everybody), store.verify().faults
    assert set(talk.outcomes) <= {200, 429}
    assert (kept.lost, kept.doubled, faults, talk.foreign) == (0, 0, (), 0)
    assert talk.answers > 0
    assert talk.own_numbers > 0  # what is looked for in answers does stand in them
    assert talk.attributed >= 0.9 * talk.asked_memories
    assert after <= before
    cuts, first = (statistics.quantiles([0.0, *times], n=100) for times in (talk.seconds, talk.first_seconds))
    record(
        "served load, sqlite",
        users=len(everybody),
        at_once=sizes.served_at_once,
        talk_seconds=sizes.served_seconds,
        answers=talk.answers,
        refused_429=talk.outcomes[429],
        errors=0,
        p50_seconds=round(cuts[49], 3),
        p99_seconds=round(cuts[98], 3),
        p50_first_piece_seconds=round(first[49], 3),
        turns=kept.turns,
        lost=0,
        doubled=0,
        faults=0,
        answers_of_another=0,
        own_memory=f"{talk.attributed} of {talk.asked_memories}",
        own_numbers=talk.own_numbers,
        streams_left=talk.left,
    )
    record(
        "idle connections",
        at_any_time=sizes.idle_connections,
        opened=crowd.opened,
        closed_by_the_server=crowd.closed,
        sockets_before=before,
        sockets_after=after,
        mebibytes_grown=grown,
    )


def turns_have_other_keys_each_time(patch: pytest.MonkeyPatch) -> None:
    numbers = iter(range(1 << 30))
    patch.setattr(ChatJournal, "_root", lambda *_: f"{next(numbers)}")


def answers_are_not_kept(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ChatJournal, "answered", lambda *_: None)


@pytest.mark.parametrize(
    ("plant", "sees"),
    [
        (lambda _: None, "nothing"),
        (turns_have_other_keys_each_time, "doubled"),
        (answers_are_not_kept, "lost"),
        (lambda patch: cache_is_kept_under(patch, lambda _, revision: revision.number), "foreign"),
    ],
    ids=["no fault", "other keys each time", "answers that are not kept", "a cache without the user"],
)
def test_gate_sees(
    plant: Callable[[pytest.MonkeyPatch], None],
    sees: str,
    serve: Serve,  # noqa: F811
    agent: AgentMemory,  # noqa: F811
    make_memory: MakeMemory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    everybody = people(8)
    with_memories(agent, everybody, make_memory)
    plant(monkeypatch)
    served = serve()
    with Talk(served.port, served.secret, MODEL, everybody, at_once=4, kinds=("unnamed", "named")) as talk:
        until = time.monotonic() + 60
        while (talk.answers < 16 or talk.asked_memories < 6) and not talk.errors and time.monotonic() < until:
            time.sleep(0.02)
    kept = kept_of(agent.store, everybody)
    found = {"lost": kept.lost, "doubled": kept.doubled, "foreign": talk.foreign}
    assert {name for name, count in found.items() if count} >= {sees} - {"nothing"}
    if sees == "nothing":
        assert found == {"lost": 0, "doubled": 0, "foreign": 0}

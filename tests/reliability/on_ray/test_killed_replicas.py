"""A server on a real Ray: users come back to the replica that has their memory, and move when it is killed.

The processes are Ray's, the backbone is the bundled one, the sockets and the clients are real.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

import pytest

from locas_agent import AgentMemory, Backbone
from locas_agent.server.settings import ServerSettings
from locas_storage import open_store
from tests.conftest import MakeMemory
from tests.reliability.conftest import Record, Sizes
from tests.reliability.on_ray.clusters import local_cluster
from tests.reliability.on_ray.processes import replicas
from tests.reliability.on_ray.remembering import open_remembering, read_memories
from tests.reliability.places import wait_for
from tests.reliability.served.client import post
from tests.reliability.served.people import WHO, Person, kept_of, people
from tests.reliability.served.talking import MEMORY_TOKENS, Talk
from tests.reliability.served.test_load import with_memories

pytestmark = [
    pytest.mark.rounding,
    pytest.mark.slow,
    pytest.mark.timeout(3600),
    pytest.mark.filterwarnings("ignore"),  # Ray's own, of sockets and pipes that it leaves to the collector
]

AT_ONCE = 6
ANSWERS_BETWEEN = 24
"""Least answers between two kills."""
PATIENCE_SECONDS = 300.0
REPLICAS = 2
TIMES = 4
"""Each person asks so often, one after the other."""


@contextmanager
def serving(url: str, notes: Path) -> Iterator[int]:
    """Serve with two replicas; give the port."""
    from ray import serve
    from ray.serve.config import HTTPOptions

    from locas_ray.cluster import RayResources
    from locas_ray.serving import ray_application

    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = int(free.getsockname()[1])
    settings = ServerSettings(port=port, learns=False, waiting_answers=8)
    serve.start(http_options=HTTPOptions(host="127.0.0.1", port=port))
    try:
        serve.run(
            ray_application(
                partial(open_remembering, url, str(notes)), settings, RayResources(actors=REPLICAS, cpus=0.5, gpus=0)
            )
        )
        yield port
    finally:
        serve.shutdown()


def prepared(url: str, make_memory: MakeMemory, count: int) -> tuple[list[Person], str]:
    """Return people of whom some have memories that answer differently, and a key."""
    everybody = people(count)
    with closing(open_store(url)) as store, AgentMemory(backbone=Backbone.load("tiny"), store=store) as made:
        with_memories(made, everybody, make_memory)
        return everybody, store.api_keys.new("default").secret


def ask_in_turn(port: int, key: str, people: Sequence[Person]) -> list[float]:
    """Have each of some people ask several times, in turn; return how long each answer took."""
    seconds = []
    for _ in range(TIMES):
        for person in people:
            body = {
                "model": "tiny",
                "messages": [{"role": "user", "content": WHO}],
                "max_tokens": MEMORY_TOKENS,
                "safety_identifier": person.name,
                "store": False,
            }
            heard = post(port, "/v1/chat/completions", body, {"Authorization": f"Bearer {key}"})
            assert heard.is_whole
            assert person.says(heard.text)
            seconds.append(heard.seconds)
    return seconds


def test_users_come_back_to_the_replica_that_has_their_memory(
    tmp_path: Path, make_memory: MakeMemory, record: Record
) -> None:
    url, notes = f"sqlite:///{tmp_path / 'locas.db'}", tmp_path / "notes"
    everybody, key = prepared(url, make_memory, 64)
    asking = [person for person in everybody if person.expected is not None]
    with local_cluster(), serving(url, notes) as port:
        seconds = ask_in_turn(port, key, asking)
        both = len({line.split()[0] for line in notes.read_text().splitlines()})
    reads = read_memories(notes)
    assert both == REPLICAS  # both did answer
    assert set(reads) == {person.name for person in asking}
    assert sum(reads.values()) <= 1.2 * len(asking)  # sent anywhere, nearly every one would be read twice
    record(
        "Ray routing, sqlite",
        replicas=REPLICAS,
        users=len(asking),
        answers=len(seconds),
        memories_read=sum(reads.values()),
        p50_seconds=round(statistics.median(seconds), 3),
        longest_seconds=round(max(seconds), 3),
        answers_of_another=0,
    )


def some_more(talk: Talk) -> Callable[[], object]:
    """Return what tells whether there are some more answers than now."""
    before = talk.answers
    return lambda: talk.answers >= before + ANSWERS_BETWEEN or talk.errors


def test_killed_replicas_lose_nothing_that_was_told(
    tmp_path: Path, make_memory: MakeMemory, sizes: Sizes, record: Record
) -> None:
    url, notes, rng = f"sqlite:///{tmp_path / 'locas.db'}", tmp_path / "notes", random.Random(2026)
    everybody, key = prepared(url, make_memory, 32)
    with local_cluster(), serving(url, notes) as port, Talk(port, key, "tiny", everybody, AT_ONCE) as talk:
        replaced = []
        for _ in range(sizes.ray_replica_kills):
            wait_for(some_more(talk), seconds=PATIENCE_SECONDS)
            wait_for(lambda: len(replicas()) == REPLICAS, seconds=PATIENCE_SECONDS)
            time.sleep(rng.random() * 0.2)
            os.kill(rng.choice(replicas()), signal.SIGKILL)
            killed_at = time.monotonic()
            wait_for(lambda: len(replicas()) < REPLICAS)
            wait_for(lambda: len(replicas()) == REPLICAS, seconds=PATIENCE_SECONDS)
            replaced.append(time.monotonic() - killed_at)
        wait_for(some_more(talk), seconds=PATIENCE_SECONDS)
    with closing(open_store(url)) as store:
        kept, faults = kept_of(store, everybody), store.verify().faults
    assert set(talk.outcomes) <= {200, 429, "replica_lost"}  # only streams that had begun are broken
    assert (kept.lost, kept.doubled, faults, talk.foreign) == (0, 0, (), 0)
    assert talk.attributed >= 0.9 * talk.asked_memories > 0
    record(
        "killed Ray replicas, sqlite",
        kills=sizes.ray_replica_kills,
        replicas=REPLICAS,
        at_once=AT_ONCE,
        answers=talk.answers,
        streams_broken=talk.outcomes["replica_lost"],
        other_errors=0,
        refused_429=talk.outcomes[429],
        longest_answer_seconds=round(max(talk.seconds), 2),
        seconds_until_replaced=round(statistics.median(replaced), 1),
        turns=kept.turns,
        lost=0,
        doubled=0,
        faults=0,
        answers_of_another=0,
        own_memory=f"{talk.attributed} of {talk.asked_memories}",
    )

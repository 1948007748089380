"""Move people of the talk schema to another backbone by processes that are killed, while they are being served.

    python -m scripts.upgrade_people --people FILE --people FILE --users 8 --kills 5 --json upgrade.json

The people tell their turns and are learnt on the old backbone (`--from`). Then `locas-agent upgrade` runs in a process
of its own, which is killed so often and begun again, while this process answers each person in turn through a `Fleet`.
Their questions are put to the memories before and after, in the files' own wordings and nothing in the prompt. Whom
the old backbone's admission gate refused has no memory before; the upgrade learns them from the same turns. It exits
with 1 if a turn is lost or doubled, a turn is learnt twice, a request fails or the store has a fault.

Without --store it starts a PostgreSQL server of its own, as the tests do; an SQLite file is not for two processes.
"""

from __future__ import annotations

import argparse
import random
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "storage"), str(ROOT / "integrations"), str(ROOT)]

from locas_agent import AgentMemory, Fleet, UserMemory
from locas_agent.cli.output import deliver
from locas_agent.conversation.messages import question
from locas_agent.errors import LocasError
from locas_agent.evaluation import asking
from locas_agent.evaluation.recall.people import ANSWER_TOKENS, Source
from locas_agent.evaluation.recall.setup import RecallOptions, evaluation_config, handles_of, teach
from locas_agent.evaluation.scoring import Arm
from locas_storage import SqlMemoryStore, Turn, open_store
from locas_storage.records.turns import MADE
from tests.postgres_server import PostgresServer, binaries

REPLY_TOKENS = 12
"""Longest answer to a person who is served meanwhile, in tokens."""


class Upgrading(Protocol):
    """A process that upgrades; `subprocess.Popen` is one."""

    def poll(self) -> int | None:
        """Return how it ended, None while it runs."""

    def kill(self) -> None:
        """Kill it."""

    def wait(self) -> int:
        """Wait for its end, and return how it ended."""


@dataclass
class Served:
    """What people who were served meanwhile met."""

    seconds: list[float] = field(default_factory=list)
    without_memory: int = 0
    errors: Counter[str] = field(default_factory=Counter)

    def report(self) -> dict[str, Any]:
        """Return the figures."""
        return {
            "replies": len(self.seconds),
            "without_memory": self.without_memory,
            "errors": dict(self.errors),
            "median_seconds": round(statistics.median(self.seconds), 2) if self.seconds else None,
            "longest_seconds": round(max(self.seconds), 2) if self.seconds else None,
        }


class Crowd:
    """The people, what each has said, and who answers them.

    Args:
        agents: on the old backbone and on the new one, with one store.
        source: the people.
        options: how they tell and are learnt.
    """

    def __init__(self, agents: tuple[AgentMemory, AgentMemory], source: Source, options: RecallOptions) -> None:
        self.old, self.new = agents
        self.fleet = Fleet(agents)
        self.source = source
        keys = [handle.key for handle in handles_of(self.old, source, options)]
        self.handles: list[UserMemory] = [self.fleet.for_user(key.user, tenant=key.tenant) for key in keys]
        self.served = Served()
        self._said: list[list[str]] = []
        self._turn = 0

    def begin(self) -> None:
        """Take down what everybody has said so far and how far it is learnt."""
        self._said = [[turn.content for turn in _by_person(handle.turns())] for handle in self.handles]
        self.learnt = [self._head_seq(handle) for handle in self.handles]
        self.told = [handle.turns()[-1].seq for handle in self.handles]

    def serve_next(self) -> None:
        """Let the next person ask something, and note what comes back."""
        place = self._turn % len(self.handles)
        teller, handle = self.source.tellers[place], self.handles[place]
        asked = [text for fact in teller.facts for text in fact.questions]
        text = f"{asked[self._turn // len(self.handles) % len(asked)]} (asked {self._turn})"
        key = f"asked:{self._turn}"
        self._turn += 1
        started = time.monotonic()
        try:
            reply = handle.reply(text, max_new_tokens=REPLY_TOKENS, idempotency_key=key)
        except LocasError as error:
            self.served.errors[type(error).__name__] += 1
            if any(turn.idempotency_key == key for turn in handle.turns()):
                self._said[place].append(text)
            return
        self.served.seconds.append(time.monotonic() - started)
        self.served.without_memory += bool(self.learnt[place]) and not reply.used_memory
        self._said[place].append(text)

    def refused(self) -> dict[str, int]:
        """Count why the admission gate refused what, on either backbone."""
        trails = [self.old.store.audit(handle.key) for handle in self.handles]
        return dict(Counter(str(one.facts.get("reason")) for each in trails for one in each if one.action == "refuse"))

    def moved(self) -> int:
        """Return how many are on the new backbone."""
        return sum(self.fleet.runtime_of(handle.key) is self.new for handle in self.handles)

    def recall(self) -> dict[str, dict[str, Any] | None]:
        """Put every question to each person's memory, and to the bare backbone it is on."""
        arms = {name: Arm(self.source.matches) for name in ("none", "memory")}
        for place, (teller, handle) in enumerate(zip(self.source.tellers, self.handles, strict=True)):
            agent = self.fleet.runtime_of(handle.key)
            asked = replace(self.source, tellers=(teller,)).asked()
            memory = agent.current(handle.key)[1]
            for name, arm in arms.items():
                said = asking.answers(
                    agent,
                    [question(one.text) for one in asked],
                    [memory if name == "memory" else None] * len(asked),
                    answer_tokens=ANSWER_TOKENS,
                    groups=[0] * len(asked),
                )
                for answer, one in zip(said, asked, strict=True):
                    arm.add(answer.text, one.fact.answers, place)
        return {name: arm.report() for name, arm in arms.items()}

    def kept(self) -> dict[str, int]:
        """Count turns that are lost or doubled, people whose turns were learnt twice or not at all, and faults."""
        lost = doubled = learnt_wrong = 0
        for handle, said, seq, told in zip(self.handles, self._said, self.learnt, self.told, strict=True):
            found = Counter(turn.content for turn in _by_person(handle.turns()))
            wanted = Counter(said)
            lost, doubled = lost + (wanted - found).total(), doubled + (found - wanted).total()
            spans = list(self._spans(handle))
            in_turn = all(before[1] + 1 == after[0] for before, after in pairwise(spans))
            learnt_wrong += not in_turn or self._head_seq(handle) not in ((seq,) if seq else (0, told))
        store = self.old.store
        faults = len(store.verify().faults) if isinstance(store, SqlMemoryStore) else 0
        return {"lost": lost, "doubled": doubled, "learnt_twice_or_not": learnt_wrong, "faults": faults}

    def _head_seq(self, handle: UserMemory) -> int:
        head = self.old.store.revision(handle.key)
        return head.to_seq if head is not None and head.has_payload else 0

    def _spans(self, handle: UserMemory) -> Iterator[tuple[int, int]]:
        """First and last turn of the revisions learnt on the backbone where the person is, oldest first."""
        home = self.fleet.runtime_of(handle.key).backbone.fingerprint
        for one in handle.revisions():
            if one.fingerprint == home and one.payload_sha256 is not None and one.restores is None:
                yield one.from_seq, one.to_seq


def upgrade_under_kills(
    crowd: Crowd,
    start: Callable[[], Upgrading],
    *,
    kills: int,
    delays: tuple[float, float],
    every: float,
    seed: int,
) -> list[dict[str, Any]]:
    """Begin the upgrade again and again until it ends by itself, and serve people meanwhile.

    Of the processes to be killed every second one may move somebody first; each is then killed after a drawn time.

    Args:
        crowd: who is served.
        start: begins a process that upgrades.
        kills: how many of them are killed.
        delays: shortest and longest time until a kill, in seconds.
        every: time from one question to the next, in seconds.
        seed: of the times.

    Returns:
        Of each process how long it lived, whether it was killed, and how many people were moved then.
    """
    rng = random.Random(seed)
    lives: list[dict[str, Any]] = []
    while True:
        to_be_killed = len(lives) < kills
        wanted = crowd.moved() + len(lives) % 2
        process, began = start(), time.monotonic()
        due: float | None = None
        while process.poll() is None:
            if to_be_killed and due is None and crowd.moved() >= wanted:
                due = time.monotonic() + rng.uniform(*delays)
            if due is not None and time.monotonic() >= due:
                process.kill()
                break
            asked = time.monotonic()
            crowd.serve_next()
            time.sleep(max(0.0, min(asked + every, due or asked + every) - time.monotonic()))
        code = process.wait()
        is_killed = code < 0
        seconds = round(time.monotonic() - began, 1)
        lives.append({"seconds": seconds, "killed": is_killed, "code": code, "moved": crowd.moved()} | crowd.kept())
        if not is_killed:
            return lives


def accept(
    crowd: Crowd,
    options: RecallOptions,
    start: Callable[[], Upgrading],
    *,
    kills: int,
    delays: tuple[float, float] = (20.0, 120.0),
    every: float = 10.0,
) -> dict[str, Any]:
    """Teach, ask, upgrade under kills, ask again, and return the report.

    Args:
        crowd: the people.
        options: how they tell and are learnt.
        start: begins a process that upgrades them.
        kills: how many of these are killed.
        delays: see `upgrade_under_kills`, as for the next.
        every: time from one question of somebody who is served to the next, in seconds.
    """
    started = time.perf_counter()
    teach(crowd.old, crowd.source, options)
    crowd.begin()
    taught = time.perf_counter()
    before = crowd.recall()
    lives = upgrade_under_kills(crowd, start, kills=kills, delays=delays, every=every, seed=options.seed)
    upgraded = time.perf_counter()
    moved, kept, refused = crowd.moved(), crowd.kept(), crowd.refused()
    return {
        "kind": "upgrade_people",
        "from": crowd.old.backbone.name,
        "to": crowd.new.backbone.name,
        "source": crowd.source.name,
        "users": len(crowd.handles),
        "with_memory": sum(bool(seq) for seq in crowd.learnt),
        "moved": moved,
        "refused": refused,
        "recall": {"before": before, "after": crowd.recall()},
        "lives": lives,
        "killed": sum(life["killed"] for life in lives),
        "served": crowd.served.report(),
        **kept,
        "teaching_seconds": round(taught - started, 1),
        "upgrade_seconds": round(upgraded - taught, 1),
        "seconds": round(time.perf_counter() - started, 1),
    }


def is_accepted(report: dict[str, Any]) -> bool:
    """Tell whether nothing was lost, learnt twice or refused, and the last process ended well."""
    wrong = sum(report[name] for name in ("lost", "doubled", "learnt_twice_or_not", "faults"))
    return not (
        wrong or report["served"]["errors"] or report["served"]["without_memory"] or report["lives"][-1]["code"]
    )


def _by_person(turns: Sequence[Turn]) -> list[Turn]:
    """Return what was told or asked; answers are made by the backbone."""
    return [turn for turn in turns if turn.idempotency_key and not turn.idempotency_key.startswith(MADE)]


def main() -> None:
    """Read the options, run, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--people", type=Path, action="append", required=True, metavar="FILE")
    parser.add_argument("--users", type=int, default=8)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--from", dest="old", default="tiny")
    parser.add_argument("--to", dest="new", default="smollm2")
    parser.add_argument("--consolidations", type=int, default=1, help="steps in which each person is learnt")
    parser.add_argument("--delays", type=float, nargs=2, default=(20.0, 120.0), metavar="SECONDS")
    parser.add_argument("--every", type=float, default=10.0, help="seconds from one question to the next")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--store", help="SQLAlchemy URL of an empty database")
    parser.add_argument("--json", metavar="PATH")
    asked = parser.parse_args()
    options = RecallOptions(files=tuple(asked.people), consolidations=asked.consolidations, seed=asked.seed)
    source = options.source()
    source = replace(source, tellers=source.tellers[: asked.users])
    if len(source.tellers) < asked.users:
        sys.exit(f"--users {asked.users}: the files have {len(source.tellers)} people")
    with ExitStack() as stack:
        url = asked.store or _server(stack)
        store = open_store(url)
        config = evaluation_config(None)
        agents = [AgentMemory.load(name, store, config=config) for name in (asked.old, asked.new)]
        crowd = Crowd((agents[0], agents[1]), source, options)
        stack.enter_context(crowd.fleet)
        words = ["upgrade", "--to", asked.new, "--backbone", asked.old, "--store", url, "--users-at-once", "1"]
        command = [sys.executable, "-m", "locas_agent.cli", *words, "--tenant", crowd.handles[0].key.tenant]

        def start() -> Upgrading:
            return subprocess.Popen(command, stdout=sys.stderr)

        report = accept(crowd, options, start, kills=asked.kills, delays=tuple(asked.delays), every=asked.every)
    deliver(asked.json, report, *(f"{name}: {value}" for name, value in report.items()))
    sys.exit(0 if is_accepted(report) else 1)


def _server(stack: ExitStack) -> str:
    """Start a PostgreSQL server that ends with this process, and return the URL of an empty database."""
    if binaries() is None:
        sys.exit("there is no PostgreSQL on this machine: name an empty database with --store")
    server = PostgresServer()
    stack.callback(server.remove)
    server.start()
    return server.new_database()


if __name__ == "__main__":
    main()

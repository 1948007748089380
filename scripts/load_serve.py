"""Load on `locas-agent serve`: no answer of another user's, no turn lost or doubled, and how long answers take.

    python -m scripts.load_serve --users 200 --at-once 20 --seconds 600

Starts a server on a database of its own, has people talk in conversations of two turns, each with a number that nobody
else has, and prints one JSON object: requests, times, refusals, errors, numbers of others in an answer, and whether
every journal holds exactly what its client saw.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "storage"), str(ROOT / "integrations"), str(ROOT)]

from locas_storage import UserKey, open_store

TELL, ASK = "My locker opens with {number}.", "What does my locker open with?"
MOST_TRIES = 50
"""Tries of one request that is refused with 429."""


@dataclass
class Person:
    """One user: a number of its own, and all that was said to and fro."""

    name: str
    number: str
    said: list[list[tuple[str, str]]] = field(default_factory=list)
    busy: threading.Lock = field(default_factory=threading.Lock)


@dataclass
class Load:
    """What the threads share."""

    port: int
    key: str
    people: list[Person]
    ends_at: float
    seconds: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    foreign: int = 0
    own: int = 0
    asked: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


def post(load: Load, connection: http.client.HTTPConnection, body: dict[str, Any], name: str) -> str:
    """Send a request until it is not refused for want of room; return the answer, "" where there is none."""
    for _ in range(MOST_TRIES):
        began = time.monotonic()
        connection.request(
            "POST",
            "/v1/chat/completions",
            json.dumps(body),
            {"Authorization": f"Bearer {load.key}", "X-Locas-Conversation": name},
        )
        response = connection.getresponse()
        told = json.loads(response.read())
        with load.lock:
            load.statuses[response.status] += 1
            if response.status == 200:
                load.seconds.append(time.monotonic() - began)
        if response.status == 200:
            return str(told["choices"][0]["message"]["content"])
        if response.status != 429:
            return ""
        time.sleep(float(response.headers["Retry-After"]))
    return ""


def talk(load: Load, seed: int) -> None:
    """Be one user after another until the time is over."""
    rng = random.Random(seed)
    numbers = {person.number for person in load.people}
    with closing(http.client.HTTPConnection("127.0.0.1", load.port, timeout=300)) as connection:
        while time.monotonic() < load.ends_at:
            person = rng.choice(load.people)
            if not person.busy.acquire(blocking=False):
                continue
            try:
                converse(load, connection, person, numbers)
            finally:
                person.busy.release()


def converse(load: Load, connection: http.client.HTTPConnection, person: Person, numbers: set[str]) -> None:
    """Tell the number, ask for it, and look at the answers."""
    messages: list[dict[str, str]] = []
    person.said.append([])
    name = f"{person.name}, {len(person.said)}"
    for text in (TELL.format(number=person.number), ASK):
        messages.append({"role": "user", "content": text})
        person.said[-1].append(("user", text))
        answer = post(load, connection, {"model": "tiny", "user": person.name, "messages": messages}, name)
        if not answer:
            return
        messages.append({"role": "assistant", "content": answer})
        person.said[-1].append(("assistant", answer))
        told = set(re.findall(r"\d{4,}", answer)) & numbers
        with load.lock:
            load.foreign += bool(told - {person.number})
            if text == ASK:
                load.asked += 1
                load.own += person.number in told


def journal_faults(store: str, people: list[Person]) -> int:
    """Count users whose journal is not exactly what their client saw; conversations follow each other."""
    faults = 0
    with closing(open_store(store)) as opened:
        for person in people:
            kept = [(turn.role, turn.content) for turn in opened.turns(UserKey("default", person.name))]
            faults += kept != [said for conversation in person.said for said in conversation]
        faults += not opened.verify().is_sound
    return faults


def start(folder: Path, options: list[str]) -> tuple[subprocess.Popen[bytes], int, str]:
    """Start a server; return its process, its port and a key."""
    store = f"sqlite:///{folder / 'locas.db'}"
    with closing(open_store(store)) as opened:
        key = opened.api_keys.new("default").secret
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path[:3]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "locas_agent.cli", "serve", "--port", "0", "--store", store, *options]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stderr=log, env=environment)
    while not (found := re.search(r"serves on http://[^:]+:(\d+)", (folder / "log").read_text())):
        if process.poll() is not None:
            raise SystemExit((folder / "log").read_text())
        time.sleep(0.2)
    port = int(found[1])
    while True:
        try:
            with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
                connection.request("GET", "/health")
                connection.getresponse()
            return process, port, key
        except OSError:
            time.sleep(0.2)


def main(options: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="locas-load-") as folder:
        process, port, key = start(Path(folder), options.server)
        people = [Person(f"user {number}", str(100_000 + 7 * number)) for number in range(options.users)]
        load = Load(port, key, people, time.monotonic() + options.seconds)
        threads = [threading.Thread(target=talk, args=(load, seed)) for seed in range(options.at_once)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        process.send_signal(signal.SIGTERM)
        status = process.wait(120)
        faults = journal_faults(f"sqlite:///{folder}/locas.db", people)
    times = sorted(load.seconds)
    cuts = statistics.quantiles(times, n=100) if len(times) > 1 else [0.0] * 99
    refused = load.statuses.pop(429, 0)
    return {
        "kind": "load",
        "users": options.users,
        "at_once": options.at_once,
        "seconds": options.seconds,
        "answers": load.statuses[200],
        "refused_429": refused,
        "errors": sum(load.statuses.values()) - load.statuses[200],
        "p50_seconds": round(cuts[49], 3),
        "p99_seconds": round(cuts[98], 3),
        "answers_per_second": round(load.statuses[200] / options.seconds, 2),
        "foreign_numbers": load.foreign,
        "own_numbers": {"right": load.own, "asked": load.asked},
        "journals_that_differ": faults,
        "exit_status": status,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=200)
    parser.add_argument("--at-once", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("server", nargs="*", help="options of the server, after --")
    print(json.dumps(main(parser.parse_args()), indent=2))

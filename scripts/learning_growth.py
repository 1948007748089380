"""Measure whether learning grows a process: one user after another is learnt in it, and its resident size is printed.

    python -m scripts.learning_growth --users 10

Each user says other things, as many turns of them, and is learnt whole in one consolidation. What the allocator would
give back to the system if it were asked is given back before the second figure: what grows then is held by us.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import os
import time
from pathlib import Path

from locas_agent import AgentMemory, Backbone, InMemoryStore, UserMemory

TOWNS = ("Tromso", "Lagos", "Gdansk", "Lisbon", "Bergen", "Cadiz", "Turku", "Varna", "Split", "Bari")
NAMES = ("Zorbin", "Mirella", "Kolin", "Bruno", "Henrike", "Tarik", "Okafor", "Emil", "Suna", "Pavel")


def resident_mib() -> float:
    """Return how much of this process lies in memory, in MiB."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def trimmed_mib() -> float:
    """Return the same once unused memory is given back to the system."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return resident_mib()


def tell(person: UserMemory, number: int, turns: int) -> None:
    """Have a user say so many turns, unlike those of the others."""
    for at in range(turns):
        name, town = NAMES[(number + at) % len(NAMES)], TOWNS[(number * 3 + at) % len(TOWNS)]
        said = (f"My dog is called {name}.", f"I moved to {town}.", f"My locker opens with {1000 + number * 97 + at}.")
        person.add("user", said[at % len(said)])


def main() -> None:
    """Learn one user after another and print the figures of each as a row of a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--users", type=int, default=10)
    parser.add_argument("--turns", type=int, default=12)
    parser.add_argument("--backbone", default="tiny")
    asked = parser.parse_args()
    with AgentMemory(backbone=Backbone.load(asked.backbone), store=InMemoryStore()) as memory:
        print("| user | admitted | MiB resident | MiB once trimmed | seconds |\n|---|---|---|---|---|")
        print(f"| none yet | | {resident_mib():.0f} | {trimmed_mib():.0f} | |", flush=True)
        for number in range(asked.users):
            person, began = memory.for_user(f"user {number}"), time.monotonic()
            tell(person, number, asked.turns)
            admitted = person.consolidate(flush=True).admitted
            seconds = time.monotonic() - began
            row = f"{resident_mib():.0f} | {trimmed_mib():.0f} | {seconds:.0f}"
            print(f"| {number + 1} | {admitted} | {row} |", flush=True)


if __name__ == "__main__":
    main()

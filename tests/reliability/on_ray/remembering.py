"""Owns agents that replicas open: the bundled backbone, and a note of each memory that a replica reads."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

from locas_agent import AgentMemory
from locas_agent.memory import LocasMemory
from locas_storage import Revision, UserKey


def open_remembering(url: str, notes: str) -> AgentMemory:
    """Open an agent that writes down whose memory it reads from the store, as it has not got it yet.

    Args:
        url: of the database.
        notes: the file; a line is whole or absent.
    """
    agent = AgentMemory.load("tiny", url, consolidation="background")
    of = agent.memories.of

    def noted(key: UserKey, revision: Revision | None) -> LocasMemory | None:
        before = agent.cache_info().misses
        found = of(key, revision)
        if agent.cache_info().misses > before:
            with Path(notes).open("ab", buffering=0) as file:
                file.write(f"{os.getpid()} {key.user}\n".encode())
        return found

    agent.memories.of = noted  # type: ignore[method-assign]
    return agent


def read_memories(notes: Path) -> Counter[str]:
    """Return how often each user's memory was read, by any replica."""
    lines = notes.read_text().splitlines() if notes.exists() else []
    return Counter(line.split(" ", 1)[1] for line in lines)

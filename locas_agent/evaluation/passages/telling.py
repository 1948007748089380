"""Telling passages: what a user says of a passage, in which memory, and the learning of it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from locas_agent.agent import AgentMemory
from locas_agent.evaluation.passages.choices import ToldAs
from locas_agent.evaluation.passages.data import Passage
from locas_agent.types import Progress
from locas_agent.user import UserMemory

PASSAGES_AT_ONCE = 8
"""Memories that learn side by side."""
_FIRST_DAY = datetime(2026, 1, 1, 9, tzinfo=UTC)
"""When the first passage is told; each later one a day later, whatever the clock says."""
_SHORTEST_SENTENCE = 40
"""In characters: what is shorter is told with the sentence behind it, being a heading or the end of an abbreviation."""
_END = re.compile(r"(?:(?<=[.!?])|(?<=[.!?][\"')\]]))(?<!\b[A-Z]\.)\s+(?=[\"'(\[]*[A-Z0-9])")


@dataclass(frozen=True, slots=True)
class Telling:
    """How the passages of one file are told."""

    digest: str
    """SHA-256 of the data, hexadecimal: other data is another tenant."""
    told_as: ToldAs

    def handles(self, agent: AgentMemory, passages: Sequence[Passage]) -> list[UserMemory]:
        """Return a handle for each passage."""
        return [self._handle(agent, f"one.{passage.id}") for passage in passages]

    def common(self, agent: AgentMemory, passages: Sequence[Passage], purpose: str) -> UserMemory:
        """Return the handle of one memory for all these passages in this order.

        Args:
            agent: whose user it is.
            passages: what it is to hold; others are another user.
            purpose: part of the name: what is learnt at once and what is learnt in steps are two memories.
        """
        ids = hashlib.sha256("\n".join(passage.id for passage in passages).encode()).hexdigest()
        return self._handle(agent, f"{purpose}.{ids[:12]}")

    def tell(self, handle: UserMemory, passage: Passage, *, day: int = 0) -> None:
        """Journal a passage as one session of the user's; what is there already stays as it is.

        Args:
            handle: who says it.
            passage: what is said. The title stands before its first words.
            day: place of the passage among those that the user tells, from 0.
        """
        texts = sentences(passage.context) if self.told_as is ToldAs.SENTENCES else [passage.context]
        for number, text in enumerate(texts):
            handle.add(
                "user",
                text if number else f"{passage.title}: {text}",
                at=_FIRST_DAY + timedelta(days=day, seconds=20 * number),
                session=passage.id,
                idempotency_key=f"{passage.id}:{number}",
            )

    def _handle(self, agent: AgentMemory, name: str) -> UserMemory:
        """Return a user's handle; other settings and other turns are another tenant, in a store that was used too."""
        return agent.for_user(
            name, tenant=f"passages-{self.digest[:12]}-{agent.config.digest()[:8]}-{self.told_as.value}"
        )


def learn(agent: AgentMemory, handles: Sequence[UserMemory], *, stage: str, progress: Progress | None = None) -> None:
    """Learn everything that was told and not tried before; what an earlier process learnt or was refused stays so."""
    waiting = [handle for handle in handles if _is_new(agent, handle)]
    done = len(handles) - len(waiting)
    for start in range(0, len(waiting), PASSAGES_AT_ONCE):
        batch = waiting[start : start + PASSAGES_AT_ONCE]
        agent.consolidate_many(batch, flush=True)
        done += len(batch)
        if progress is not None:
            progress(stage, done, len(handles))


def sentences(text: str) -> list[str]:
    """Cut a text into sentences by their punctuation; nothing but the space between them is left out."""
    found: list[str] = []
    for part in _END.split(text.strip()):
        if found and len(found[-1]) < _SHORTEST_SENTENCE:
            found[-1] += f" {part}"
        else:
            found.append(part)
    return found


def _is_new(agent: AgentMemory, handle: UserMemory) -> bool:
    state = agent.store.state(handle.key)
    waiting = agent.store.turns(handle.key, after=0 if state is None else state.consolidated_seq)
    refused = {entry.facts["to_seq"] for entry in agent.store.audit(handle.key) if entry.action == "refuse"}
    return bool(waiting) and waiting[-1].seq not in refused

"""Telling LoCoMo's conversations to `AgentMemory`: one consolidation after each dated session. Knows no question.

What was told or learnt before is found again by its keys, so a run that was stopped goes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from locas_agent.agent import AgentMemory
from locas_agent.evaluation.locomo_data import DatedSession, Dialogue
from locas_agent.progress import Progress
from locas_agent.user import UserMemory

DIALOGUES_PER_BATCH = 8
"""Conversations consolidated side by side."""


def handles_of(agent: AgentMemory, dialogues: Sequence[Dialogue], *, digest: str) -> list[UserMemory]:
    """Return a handle for each conversation: one memory holds what both speakers said; other data is another tenant."""
    return [agent.for_user(dialogue.name, tenant=f"locomo-{digest[:12]}") for dialogue in dialogues]


def ingest(agent: AgentMemory, dialogues: Sequence[Dialogue], handles: Sequence[UserMemory], *, progress: Progress | None = None) -> None:
    """Tell every session and learn it, all conversations' first sessions first."""
    total, done = sum(len(dialogue.sessions) for dialogue in dialogues), 0
    for number in range(max(len(dialogue.sessions) for dialogue in dialogues)):
        here = [(handle, dialogue.sessions[number]) for handle, dialogue in zip(handles, dialogues, strict=True) if number < len(dialogue.sessions)]
        waiting = [handle for handle, session in here if not _was_tried(agent, handle, tell(handle, session))]
        for start in range(0, len(waiting), DIALOGUES_PER_BATCH):
            agent.consolidate_many(waiting[start : start + DIALOGUES_PER_BATCH], flush=True)
        done += len(here)
        if progress is not None:
            progress("sessions learnt", done, total)


def tell(handle: UserMemory, session: DatedSession) -> int:
    """Journal a session and return the number of its last turn; turns that are there already stay as they are."""
    last = 0
    for turn in session.turns:
        last = handle.add(turn.role, turn.text, name=turn.speaker, at=turn.at, session=turn.session, key=turn.key).seq
    return last


def _was_tried(agent: AgentMemory, handle: UserMemory, last: int) -> bool:
    """Tell whether a session was learnt or refused by an earlier process; what was refused waits for the next session's consolidation."""
    state = agent.store.state(handle.key)
    if state is None or state.consolidated_seq >= last:
        return True
    return any(entry.action == "refuse" and int(entry.facts["to_seq"]) >= last for entry in agent.store.audit(handle.key))


def learnt(agent: AgentMemory, handles: Sequence[UserMemory]) -> dict[str, Any]:
    """Return what the consolidations came to, read from the store."""
    figures = [revision.metrics for handle in handles for revision in handle.revisions()]
    refusals = [entry.facts for handle in handles for entry in agent.store.audit(handle.key) if entry.action == "refuse"]
    everything = [*figures, *(facts["figures"] for facts in refusals)]
    reasons: dict[str, int] = {}
    for facts in refusals:
        reasons[facts["reason"]] = reasons.get(facts["reason"], 0) + 1
    return {
        "turns": sum(len(handle.turns()) for handle in handles),
        "consolidations_admitted": len(figures),
        "consolidations_refused": len(refusals),
        "refusals": reasons,
        "study_items": sum(int(one["items"]) for one in figures),
        "study_seconds": round(sum(float(one["study_seconds"]) for one in everything), 1),
        "train_seconds": round(sum(float(one.get("train_seconds", 0.0)) for one in everything), 1),
    }

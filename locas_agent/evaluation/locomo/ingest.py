"""Telling LoCoMo's conversations to `AgentMemory`: one consolidation after each dated session.

What was told or learnt before is found again by its keys, so a run that was stopped goes on. Refused turns wait for a
later session's consolidation, by the rule of `policy`: what waits must have doubled.
"""

from __future__ import annotations

from collections.abc import Sequence

from locas_agent.agent import AgentMemory
from locas_agent.evaluation.locomo.data import DatedSession, Dialogue
from locas_agent.types import Progress
from locas_agent.user import UserMemory

DIALOGUES_PER_BATCH = 8
"""Conversations consolidated side by side."""


def handles_of(
    agent: AgentMemory, dialogues: Sequence[Dialogue], *, digest: str, sessions: int | None = None
) -> list[UserMemory]:
    """Return a handle for each conversation: one memory holds what both speakers said.

    Other data is another tenant, and so are fewer sessions and other settings: a memory that has learnt more than the
    questions are about, or otherwise, would be another arm.
    """
    tenant = f"locomo-{digest[:12]}-{agent.config.digest()[:8]}" + ("" if sessions is None else f"-{sessions}")
    return [agent.for_user(dialogue.name, tenant=tenant) for dialogue in dialogues]


def ingest(
    agent: AgentMemory,
    dialogues: Sequence[Dialogue],
    handles: Sequence[UserMemory],
    *,
    progress: Progress | None = None,
) -> None:
    """Tell every session and learn it, all conversations' first sessions first."""
    total, done = sum(len(dialogue.sessions) for dialogue in dialogues), 0
    for number in range(max(len(dialogue.sessions) for dialogue in dialogues)):
        waiting = [
            handle
            for handle, dialogue in zip(handles, dialogues, strict=True)
            if number < len(dialogue.sessions)
            and _is_due(
                agent, handle, tell(handle, dialogue.sessions[number]), is_last=number == len(dialogue.sessions) - 1
            )
        ]
        for start in range(0, len(waiting), DIALOGUES_PER_BATCH):
            agent.consolidate_many(waiting[start : start + DIALOGUES_PER_BATCH], flush=True)
        done += sum(number < len(dialogue.sessions) for dialogue in dialogues)
        if progress is not None:
            progress("sessions learnt", done, total)


def tell(handle: UserMemory, session: DatedSession) -> int:
    """Journal a session and return the number of its last turn; turns that are there already stay as they are."""
    last = 0
    for turn in session.turns:
        last = handle.add(
            turn.role, turn.text, name=turn.speaker, at=turn.at, session=turn.session, idempotency_key=turn.key
        ).seq
    return last


def _is_due(agent: AgentMemory, handle: UserMemory, upto: int, *, is_last: bool) -> bool:
    """Tell whether what waits up to a turn is to be learnt now; not if an earlier process has tried it.

    After a refusal what waits must have doubled, or the conversation be over: a backbone that cannot learn a text would
    study all of it again after each session, hours for the bundled one.
    """
    state = agent.store.state(handle.key)
    waiting = agent.store.turns(handle.key, after=state.consolidated_seq, upto=upto) if state is not None else []
    refused = [entry.facts for entry in agent.store.audit(handle.key) if entry.action == "refuse"]
    if not waiting or not refused or refused[-1]["to_seq"] < waiting[0].seq:
        return bool(waiting)
    if refused[-1]["to_seq"] >= upto:
        return False
    return is_last or sum(turn.token_count for turn in waiting) >= 2 * refused[-1]["tokens"]

"""What the consolidations behind an evaluation came to, read from the store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from locas_agent.agent import AgentMemory
from locas_agent.user import UserMemory
from locas_storage import ConsolidationMetrics


def learnt(agent: AgentMemory, handles: Sequence[UserMemory]) -> dict[str, Any]:
    """Return what the consolidations came to, read from the store."""
    figures = [revision.metrics for handle in handles for revision in handle.revisions()]
    refusals = [
        entry.facts for handle in handles for entry in agent.store.audit(handle.key) if entry.action == "refuse"
    ]
    everything = [*figures, *(ConsolidationMetrics.of(facts["figures"]) for facts in refusals)]
    reasons: dict[str, int] = {}
    for facts in refusals:
        reasons[facts["reason"]] = reasons.get(facts["reason"], 0) + 1
    return {
        "turns": sum(len(handle.turns()) for handle in handles),
        "turns_never_learnt": sum(
            len(agent.store.turns(handle.key, after=_learnt_seq(agent, handle))) for handle in handles
        ),
        "consolidations_admitted": len(figures),
        "consolidations_refused": len(refusals),
        "refusals": reasons,
        "study_items": sum(one.items or 0 for one in figures),
        "study_seconds": round(sum(one.study_seconds or 0.0 for one in everything), 1),
        "train_seconds": round(sum(one.train_seconds or 0.0 for one in everything), 1),
    }


def _learnt_seq(agent: AgentMemory, handle: UserMemory) -> int:
    state = agent.store.state(handle.key)
    return 0 if state is None else state.consolidated_seq

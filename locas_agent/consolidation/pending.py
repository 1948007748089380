"""What waits to be learnt of one user, and whether the policy wants it learnt now. Knows the store and no model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

from locas_agent.config import LocasConfig
from locas_agent.consolidation import policy
from locas_agent.conversation import window
from locas_storage import MemoryStore, Turn, TurnDraft, UserKey, UserState

_NOTHING = policy.Pending(0, 0, 0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Due:
    """The policy's decision, and the last turn it is about."""

    decision: policy.Decision
    to_seq: int
    """0 when nothing is pending."""


def due(store: MemoryStore, key: UserKey, config: LocasConfig, *, about_to_be_said: Sequence[TurnDraft] = ()) -> Due:
    """Ask the policy whether a user's overflow is to be learnt now; turns of a refused attempt are not read again.

    Args:
        store: whose journal is read.
        key: whose.
        config: policy and window.
        about_to_be_said: turns to be appended next, so that the same transaction can ask for what they push out of the
            window.
    """
    state = store.state(key)
    learnt, next_seq = (state.consolidated_seq, state.next_seq) if state is not None else (0, 1)
    refused = refusals(store, state) if state is not None else []
    refused_seq, refused_tokens = (refused[-1]["to_seq"], refused[-1]["tokens"]) if refused else (0, 0)
    waiting = store.turns(key, after=max(learnt, refused_seq))
    waiting += [_as_turn(draft, next_seq + at) for at, draft in enumerate(about_to_be_said)]
    left = window.overflow(waiting, config.window.window_tokens)
    if not left:
        return Due(policy.decide(_NOTHING, config.policy), 0)
    newest = waiting[-1]
    pending = policy.Pending(
        turns=len(left),
        tokens=refused_tokens + sum(turn.token_count for turn in left),
        oldest_age_seconds=(newest.created_at - left[0].created_at).total_seconds(),
        gap_seconds=max((later.at - earlier.at).total_seconds() for earlier, later in pairwise([*left, newest])),
        refused_tokens=refused_tokens,
    )
    return Due(policy.decide(pending, config.policy), left[-1].seq)


def refusals(store: MemoryStore, state: UserState) -> list[Mapping[str, Any]]:
    """Return what the audit trail keeps of refused attempts at turns that are not learnt yet, oldest first."""
    trail = store.audit(state.key)
    return [one.facts for one in trail if one.action == "refuse" and one.facts["to_seq"] > state.consolidated_seq]


def _as_turn(draft: TurnDraft, seq: int) -> Turn:
    """Return a draft as the turn it is about to become; its time only decides whether hours have passed."""
    now = datetime.now(UTC)
    return Turn(
        seq=seq,
        idempotency_key="",
        role=draft.role,
        content=draft.content,
        name=draft.name,
        session=draft.session,
        at=draft.at or now,
        trust=draft.trust,
        token_count=draft.token_count,
        created_at=now,
        offset_seconds=draft.offset_seconds,
        learn=draft.learn,
    )

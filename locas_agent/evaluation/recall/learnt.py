"""What the store tells of the learning behind an `eval recall`: what study covered, what it cost, how large it came."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from locas_agent.agent import AgentMemory
from locas_agent.conversation.messages import conversation
from locas_agent.evaluation.recall.people import Asked, Source
from locas_agent.evaluation.scoring import mean
from locas_agent.memory import LocasMemory
from locas_agent.study.items import NEGATIVE
from locas_agent.user import UserMemory
from locas_storage import ConsolidationMetrics

FORWARD_SECONDS = 1.0
"""Least time spent on timing the forward, which on a small backbone is soon over."""


def covered_facts(
    agent: AgentMemory, handles: Sequence[UserMemory], source: Source
) -> tuple[dict[tuple[int, int], bool], float]:
    """Tell which told facts study holds.

    Returns:
        By person and fact, both by place, whether the answer of a kept item about the telling turn holds an accepted
        form; and the share of facts whose form stands in such an answer as it is written, inside a word too.
    """
    covered: dict[tuple[int, int], bool] = {}
    written = []
    for user, (handle, teller) in enumerate(zip(handles, source.tellers, strict=True)):
        seqs = [turn.seq for turn in handle.turns()]
        answers: dict[int, list[str]] = {}
        for item in agent.store.study_items(handle.key, with_retired=True):
            if item.kind != NEGATIVE:
                answers.setdefault(item.turn_seq, []).append(item.answer)
        for place, fact in enumerate(teller.facts):
            said = answers.get(seqs[fact.turn], [])
            covered[user, place] = any(source.matches(answer, form) for answer in said for form in fact.answers)
            written.append(float(any(form.casefold() in answer.casefold() for answer in said for form in fact.answers)))
    return covered, round(mean(written), 4)


def trained_wordings(
    agent: AgentMemory, handles: Sequence[UserMemory], asked: Sequence[Asked], *, is_held_out: bool
) -> int:
    """Return how many questions stand word for word among those that their person's memory was trained on.

    Raises:
        RuntimeError: there are some, and the backbone was to write none.
    """
    both = 0
    for user, handle in enumerate(handles):
        trained = {item.question for item in agent.store.study_items(handle.key, with_retired=True)}
        both += sum(one.text in trained for one in asked if one.user == user)
    if both and is_held_out:
        raise RuntimeError(
            f"{both} questions to be asked stand among the trained ones; the backbone wrote a held-out wording"
        )
    return both


def costs(agent: AgentMemory, handles: Sequence[UserMemory], memories: Sequence[LocasMemory | None]) -> dict[str, Any]:
    """Read seconds and sizes from the revisions, and refusals from the audit trail.

    `seconds_per_turn` divides the study and the training of all consolidations, refused ones too, by the turns that
    were learnt; `cost` divides it by the time of one forward of the bare backbone over the same turns, timed here.
    """
    revisions = [handle.revisions() for handle in handles]
    metrics = [revision.metrics for each in revisions for revision in each]
    refused = [entry.facts for handle in handles for entry in agent.store.audit(handle.key) if entry.action == "refuse"]
    tried = [*metrics, *(ConsolidationMetrics.of(facts["figures"]) for facts in refused)]
    seconds = sum((m.train_seconds or 0.0) + (m.study_seconds or 0.0) for m in tried)
    spans = [
        [turn for turn in handle.turns() if revision.from_seq <= turn.seq <= revision.to_seq]
        for handle, each in zip(handles, revisions, strict=True)
        for revision in each
    ]
    turns = sum(len(span) for span in spans)
    rows = [agent.backbone.encode_chat(conversation(span), generation_prompt=False) for span in spans if span]
    forward = forward_seconds(agent, rows)
    present = [memory for memory in memories if memory is not None]
    return {
        "refused_consolidations": len(refused),
        "seconds_per_user": round(sum((m.train_seconds or 0.0) for m in metrics) / len(handles), 3),
        "study_seconds_per_user": round(sum((m.study_seconds or 0.0) for m in metrics) / len(handles), 3),
        "params_per_user": max((memory.parameter_count for memory in present), default=0),
        "learnt_turns": turns,
        "seconds_per_turn": round(seconds / turns, 4) if turns else None,
        "cost": round(seconds / forward, 1) if forward else None,
        "placement": placement(agent, present[0]) if present else None,
        "width": present[0].width if present else None,
        "dtype": str(agent.backbone.dtype).removeprefix("torch."),
    }


def placement(agent: AgentMemory, memory: LocasMemory) -> list[int]:
    """Return the layers beside which a memory stands, the lowest of the backbone being 0."""
    return [layer % agent.backbone.n_layers for layer in memory.layers]


def forward_seconds(agent: AgentMemory, rows: Sequence[Sequence[int]]) -> float:
    """Return how long the bare backbone takes to read rows of tokens once; 0.0 for none.

    A row longer than the context is read in parts.
    """
    context = agent.backbone.context_tokens
    parts = [row[start : start + context] for row in rows for start in range(0, len(row), context)]
    parts = [part for part in parts if len(part) > 1]
    if not parts:
        return 0.0
    prompts, rest = [part[:1] for part in parts], [part[1:] for part in parts]
    agent.engine.score(prompts[:1], rest[:1])  # not timed: a first forward is slower
    passes, started = 0, time.perf_counter()
    while (spent := time.perf_counter() - started) < FORWARD_SECONDS or not passes:
        agent.engine.score(prompts, rest)
        passes += 1
    return spent / passes

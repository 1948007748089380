"""`eval recall`: what people told in sessions that left the context is answered from the weights, in other wordings.

It calls the public verbs only. Two halves, so that a new process can do the second:
`teach` (`setup.py`) fills a database, `ask` reads it. Made-up people follow from the seed alone and use values and
wordings that the bundled backbone never saw; the questions asked come from a group of wordings that it never writes,
and `ask` checks against the stored study sets that none was trained on. People of files are asked as the files say.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from locas_agent.agent import AgentMemory
from locas_agent.evaluation.drift import drift, neutral_rows
from locas_agent.evaluation.recall import figures
from locas_agent.evaluation.recall.arms import ARMS, RecallArms
from locas_agent.evaluation.recall.learnt import costs, covered_facts, trained_wordings
from locas_agent.evaluation.recall.peers import peer_arm
from locas_agent.evaluation.recall.people import Asked, Source
from locas_agent.evaluation.recall.setup import RecallOptions, handles_of, teach
from locas_agent.evaluation.scoring import Arm, mean
from locas_agent.types import Progress
from locas_agent.user import UserMemory


def ask(
    agent: AgentMemory,
    source: Source,
    options: RecallOptions,
    *,
    kind: str = "recall",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Put every question to every arm and return the report of the contract.

    Raises:
        RuntimeError: a question to be asked stands among the trained ones although its wording was held out; the
            evaluation would prove nothing.
    """
    handles, asked = handles_of(agent, source, options), source.asked()
    trained = trained_wordings(agent, handles, asked, is_held_out=source.is_held_out)
    arms = RecallArms(agent, source, handles, asked)
    scores = {name: Arm(source.matches) for name in (*ARMS, "temp_lora")}
    answers: dict[str, list[str]] = {}
    right: dict[str, list[bool]] = {}
    seconds: dict[str, float] = {}
    put = [name for name in ARMS if name not in options.without]
    for number, name in enumerate(put, 1):
        started = time.perf_counter()
        answers[name] = arms.answers(name)
        right[name] = [
            scores[name].add(answer, one.fact.answers, one.user)
            for answer, one in zip(answers[name], asked, strict=True)
        ]
        seconds[name] = round(time.perf_counter() - started, 1)
        if progress is not None:
            progress("asked", number, len(put))
    peers = _peers(agent, source, options, handles, asked, scores, right["memory"])
    never = source.never_told()
    unknown, bare = (arms.answers_alone(never, with_memory=with_memory) for with_memory in (True, False))
    covered, study_coverage = covered_facts(agent, handles, source)
    rate = {name: mean([float(hit) for hit in right[name]]) for name in ("none", "context", "memory")}
    return {
        "kind": kind,
        "backbone": agent.backbone.name,
        "source": source.name,
        "seed": options.seed,
        "users": len(source.tellers),
        "sessions": source.sessions,
        "facts_per_session": source.facts_per_session,
        "consolidations": options.consolidations,
        "assistant_trust": options.assistant_trust,
        "objective": agent.config.training.objective,
        "reading_form": {"near": arms.near.name, "wide": arms.wide.name},
        "arms": {name: arm.report() for name, arm in scores.items()},
        "share": figures.share(**rate),
        "retention": figures.retention(source, asked, right["memory"]),
        "retention_by_age": figures.retention_by_age(source, asked, right["memory"]),
        "updated_facts": figures.updated(source, asked, answers["memory"], right),
        "study_coverage": study_coverage,
        "coverage": round(mean([float(each) for each in covered.values()]), 4),
        "trained_wordings": trained,
        "abstention": figures.abstention(source, unknown),
        "never_told": figures.never_told(source, unknown, bare),
        "names_other_fact": figures.names_other_fact(source, asked, answers),
        **figures.by_group(source, asked, right, covered),
        **_drift(agent, arms, options.seed),
        **costs(agent, handles, arms.memories),
        **peers,
        "context_tokens": {name: round(arms.prompt_tokens(name), 1) for name in ("full_context", "memory")},
        "asking_seconds": seconds,
    }


def _peers(
    agent: AgentMemory,
    source: Source,
    options: RecallOptions,
    handles: Sequence[UserMemory],
    asked: Sequence[Asked],
    scores: dict[str, Arm],
    remembered: Sequence[bool],
) -> dict[str, Any]:
    """Fill the arms of the peers and return their costs, and the memory's own score on the people each was taught."""
    found: dict[str, Any] = {}
    for name, users in (("temp_lora", options.lora_users), ("prefix", options.prefix_users)):
        if name == "prefix":
            if not users:
                continue
            scores[name] = Arm(source.matches)
        found |= peer_arm(name, agent, handles[:users], asked, scores[name])
        own = [float(hit) for hit, one in zip(remembered, asked, strict=True) if one.user < users]
        found[f"memory_of_{name}_users"] = round(mean(own), 4) if own else None
    return found


def _drift(agent: AgentMemory, arms: RecallArms, seed: int) -> dict[str, float]:
    present = [memory for memory in arms.memories if memory is not None]
    average, p99 = drift(agent.engine, present, neutral_rows(agent.engine, seed=seed)) if present else (0.0, 0.0)
    return {"drift_kl_nats": round(average, 5), "drift_kl_p99_nats": round(p99, 5)}


def run_recall(
    options: RecallOptions, *, agent: AgentMemory, source: Source, progress: Progress | None = None
) -> dict[str, Any]:
    """Teach and ask in one process.

    Args:
        options: what is evaluated.
        agent: with `evaluation_config`; its store holds what is learnt.
        source: `options.source()`, read before a backbone is loaded.
        progress: told of the stages.
    """
    started = time.perf_counter()
    teach(agent, source, options, progress=progress)
    report = ask(agent, source, options, progress=progress)
    return report | {"seconds": round(time.perf_counter() - started, 1)}

"""`eval recall`: what people told in sessions that left the context is answered from the weights, in other wordings.

Knows nothing of training: it calls the verbs anybody can call. Two halves, so that a new process can do the second:
`teach` fills a database, `ask` reads it. People follow from the seed alone and use values and wordings that the bundled
backbone never saw; the questions asked come from a group of wordings that it never writes, and `ask` checks against the
stored study sets that none was trained on.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from random import Random
from typing import Any

from locas_agent.agent import AgentMemory
from locas_agent.conversation import messages as prompting
from locas_agent.conversation.messages import Message, question
from locas_agent.evaluation import asking
from locas_agent.evaluation.drift import drift, neutral_rows
from locas_agent.evaluation.recall.peers import peer_arm
from locas_agent.evaluation.recall.setup import ANSWER_TOKENS, Asked, RecallOptions, handles_of, questions, teach
from locas_agent.evaluation.scoring import Arm, mean
from locas_agent.evaluation.synthetic.people import Person
from locas_agent.memory import LocasMemory
from locas_agent.study import prompts as seeds
from locas_agent.study.matching import contains
from locas_agent.types import Progress
from locas_agent.user import UserMemory
from locas_storage import Turn

ARMS = ("none", "context", "full_context", "memory", "window_memory", "search", "wrong_user", "temp_lora")
SEARCHED_TURNS = 3
UNKNOWN_ASKED = 4


def ask(
    agent: AgentMemory, options: RecallOptions, *, kind: str = "recall", progress: Progress | None = None
) -> dict[str, Any]:
    """Put every question to every arm and return the report of the contract.

    Raises:
        RuntimeError: a question to be asked stands among the trained ones; the evaluation would prove nothing.
    """
    people, handles = options.people(), handles_of(agent, options)
    asked = questions(agent, people, handles, options)
    journals = [handle.turns() for handle in handles]
    sessions = [[list(session) for session in prompting.split_sessions(journal)] for journal in journals]
    memories = [agent.memory_of(handle.key, agent.store.revision(handle.key)) for handle in handles]
    others = [*memories[1:], memories[0]]
    full = [
        asking.prompt(asking.fitting(agent, journals[each.user], each.text, answer_tokens=ANSWER_TOKENS), each.text)
        for each in asked
    ]
    searched = _searched(journals, asked)
    prompts: dict[str, list[list[Message]]] = {
        "none": [question(each.text) for each in asked],
        "context": [asking.prompt(sessions[each.user][each.fact.session], each.text) for each in asked],
        "full_context": full,
        "memory": [question(each.text) for each in asked],
        "window_memory": [asking.prompt(asking.window(agent, journals[each.user]), each.text) for each in asked],
        "search": [asking.prompt(turns, each.text) for turns, each in zip(searched, asked, strict=True)],
        "wrong_user": [question(each.text) for each in asked],
    }
    attached: dict[str, Sequence[LocasMemory | None]] = {
        "memory": memories,
        "window_memory": memories,
        "wrong_user": others,
    }
    arms = {name: Arm() for name in ARMS}
    right: dict[str, list[bool]] = {}
    recalled: list[str] = []
    for number, (name, messages) in enumerate(prompts.items()):
        chosen = [attached[name][each.user] if name in attached else None for each in asked]
        answers = _answers(agent, messages, chosen)
        right[name] = [
            arms[name].add(answer, each.fact.value, each.user) for answer, each in zip(answers, asked, strict=True)
        ]
        if name == "memory":
            recalled = answers
        if progress is not None:
            progress("asked", number + 1, len(prompts))
    report: dict[str, Any] = {
        "kind": kind,
        "backbone": agent.backbone.name,
        "seed": options.seed,
        "users": options.users,
        "sessions": options.sessions,
        "facts_per_session": options.facts,
        "objective": agent.config.training.objective,
    }
    costs = peer_arm("temp_lora", agent, handles[: options.lora_users], asked, arms["temp_lora"])
    if options.prefix_users:
        arms["prefix"] = Arm()
        costs |= peer_arm("prefix", agent, handles[: options.prefix_users], asked, arms["prefix"])
    report["arms"] = {name: arm.report() for name, arm in arms.items()}
    by_session = [
        [float(hit) for hit, each in zip(right["memory"], asked, strict=True) if each.fact.session == number]
        for number in range(options.sessions)
    ]
    report["retention"] = [
        round(mean(hits), 4) if hits else None for hits in by_session
    ]  # None: all its facts were told anew later
    report["updated_facts"] = _updated(people, asked, recalled, right["context"])
    report |= _coverage(agent, handles, people)
    report["abstention"] = _abstention(agent, people, memories, options)
    present = [memory for memory in memories if memory is not None]
    mean_drift, p99 = (
        drift(agent.engine, present, neutral_rows(agent.engine, seed=options.seed)) if present else (0.0, 0.0)
    )
    report |= {"drift_kl_nats": round(mean_drift, 5), "drift_kl_p99_nats": round(p99, 5)}
    report |= _costs(agent, handles, memories) | costs
    report["context_tokens"] = {
        name: round(mean([len(agent.backbone.encode_chat(m)) for m in prompts[name]]), 1)
        for name in ("full_context", "memory")
    }
    return report


def _updated(
    people: Sequence[Person], asked: Sequence[Asked], recalled: Sequence[str], read: Sequence[bool]
) -> dict[str, Any] | None:
    """Score the facts told anew.

    `exact_match` names the newest value, `stale` the share of answers that name the former one, and `context` the share
    that the backbone reads right where the session that tells it stands in the prompt: the ceiling.
    """
    arm, stale, context = Arm(), list[float](), list[float]()
    for answer, each, hit in zip(recalled, asked, read, strict=True):
        former = people[each.user].replaced.get(each.fact.relation.key)
        if former is not None:
            arm.add(answer, each.fact.value, each.user)
            stale.append(float(contains(answer, former)))
            context.append(float(hit))
    report = arm.report()
    return None if report is None else report | {"stale": round(mean(stale), 4), "context": round(mean(context), 4)}


def _searched(journals: Sequence[Sequence[Turn]], asked: Sequence[Asked]) -> list[list[Turn]]:
    """Return, for each question, its user's best turns by BM25; `asked` is in the order of the users."""
    found = []
    for user, journal in enumerate(journals):
        found += asking.searched(journal, [each.text for each in asked if each.user == user], limit=SEARCHED_TURNS)
    return found


def _answers(agent: AgentMemory, prompts: Sequence[list[Message]], memories: Sequence[LocasMemory | None]) -> list[str]:
    return [answer.text for answer in asking.answers(agent, prompts, memories, answer_tokens=ANSWER_TOKENS)]


def _coverage(agent: AgentMemory, handles: Sequence[UserMemory], people: Sequence[Person]) -> dict[str, Any]:
    """Return told facts (every telling) for which a kept item from the telling turn holds the value."""
    told = covered = 0
    for handle, person in zip(handles, people, strict=True):
        items = agent.store.study_items(handle.key, with_retired=True)
        seq = 0
        for session in person.sessions:
            for line in session.lines:
                seq += 1
                if line.fact is not None:
                    told += 1
                    covered += any(
                        item.turn_seq == seq and line.fact.value.casefold() in item.answer.casefold() for item in items
                    )
    return {"study_coverage": round(covered / told, 4)}


def _abstention(
    agent: AgentMemory, people: Sequence[Person], memories: Sequence[LocasMemory | None], options: RecallOptions
) -> dict[str, Any] | None:
    """Ask for what was never told."""
    rng = Random(f"unknown:{options.seed}")
    asked = [
        (user, rng.choice(relation.asked_held))
        for user, person in enumerate(people)
        for relation in person.unknown[:UNKNOWN_ASKED]
    ]
    answers = _answers(agent, [question(text) for _, text in asked], [memories[user] for user, _ in asked])
    arm = Arm()
    for (user, _), answer in zip(asked, answers, strict=True):
        arm.add("yes" if seeds.abstains(answer) else "no", "yes", user)
    return arm.report()


def _costs(agent: AgentMemory, handles: Sequence[UserMemory], memories: Sequence[LocasMemory | None]) -> dict[str, Any]:
    """Read seconds and sizes from the revisions, and refusals from the audit trail."""
    metrics = [revision.metrics for handle in handles for revision in handle.revisions()]
    refused = sum(entry.action == "refuse" for handle in handles for entry in agent.store.audit(handle.key))
    return {
        "refused_consolidations": refused,
        "seconds_per_user": round(sum(m.train_seconds or 0.0 for m in metrics) / len(handles), 3),
        "study_seconds_per_user": round(sum(m.study_seconds or 0.0 for m in metrics) / len(handles), 3),
        "params_per_user": max((memory.parameter_count for memory in memories if memory is not None), default=0),
    }


def run_recall(
    options: RecallOptions, *, agent: AgentMemory, kind: str = "recall", progress: Progress | None = None
) -> dict[str, Any]:
    """Teach and ask in one process."""
    started = time.perf_counter()
    teach(agent, options, progress=progress)
    report = ask(agent, options, kind=kind, progress=progress)
    return report | {"seconds": round(time.perf_counter() - started, 1)}

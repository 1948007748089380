"""`eval recall`: people tell facts over sessions, the sessions leave the context, other wordings are answered from the weights.

Knows nothing of training: it calls the verbs anybody can call. Two halves, so that a new process can do the second: `teach` fills a database, `ask`
reads it. People follow from the seed alone and use values and wordings that the bundled backbone never saw; the questions asked come from a group of
wordings that it never writes, and `ask` checks against the stored study sets that none was trained on.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from random import Random
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from rich.table import Table

from locas_agent import prompting, seeds
from locas_agent.agent import AgentMemory
from locas_agent.answers import contains
from locas_agent.config import LocasConfig, PolicySettings
from locas_agent.evaluation import asking
from locas_agent.evaluation.drift import drift, neutral_rows
from locas_agent.evaluation.peer_arm import ANSWER_TOKENS, peer_arm
from locas_agent.evaluation.people import Fact, Person, make_person
from locas_agent.evaluation.scoring import Arm, mean
from locas_agent.memory import LocasMemory
from locas_agent.progress import Progress
from locas_agent.prompting import Message, question
from locas_agent.user import UserMemory
from locas_storage import Turn

ARMS = ("none", "context", "full_context", "memory", "window_memory", "search", "wrong_user", "temp_lora")
SEARCHED_TURNS = 3
UNKNOWN_ASKED = 4


class RecallOptions(BaseModel):
    """What is evaluated."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    users: int = Field(64, ge=2)
    """People; at least two, since one is asked with another's memory."""
    sessions: int = Field(4, ge=1)
    """Dated sessions of each, one consolidation after each."""
    facts: int = Field(4, ge=1)
    """Facts told in each session; from the second on, one of them replaces an older value."""
    seed: int = Field(0, ge=0)
    """People follow from it."""
    lora_users: int = Field(16, ge=0)
    """Of the people, how many the LoRA peer is trained for, one after another; 0 leaves the arm out."""
    prefix_users: int = Field(0, ge=0)
    """The same for the prefix peer, whose arm is reported only where it was asked for."""
    users_per_batch: int = Field(32, ge=1)
    """People consolidated side by side."""

    def people(self) -> list[Person]:
        """Return the people, the same for the same seed."""
        return [
            make_person(Random(f"recall:{self.seed}:{index}"), sessions=self.sessions, facts_per_session=self.facts)
            for index in range(self.users)
        ]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Asked:
    """One question put to every arm."""

    user: int
    fact: Fact
    text: str


def teach(agent: AgentMemory, options: RecallOptions, *, progress: Progress | None = None) -> None:
    """Let everybody tell their sessions, and consolidate after each."""
    people = options.people()
    handles = handles_of(agent, options)
    for number in range(options.sessions):
        for handle, person in zip(handles, people, strict=True):
            _tell(handle, person, number)
        for start in range(0, len(handles), options.users_per_batch):
            agent.consolidate_many(handles[start : start + options.users_per_batch], flush=True)
            if progress is not None:
                done = number * len(handles) + min(start + options.users_per_batch, len(handles))
                progress("consolidated", done, options.sessions * len(handles))


def handles_of(agent: AgentMemory, options: RecallOptions) -> list[UserMemory]:
    """Return the handles of the people of an evaluation.

    Other people are another tenant, and so are other settings: in a store that was used before, memories learnt otherwise would be asked.
    """
    tenant = f"recall-{options.seed}-{options.sessions}x{options.facts}-{agent.config.digest()[:8]}"
    return [agent.for_user(f"person-{index}", tenant=tenant) for index in range(options.users)]


def evaluation_config(config: LocasConfig | None) -> LocasConfig:
    """Return the configuration with automatic consolidation off: the evaluation decides when."""
    return (config or LocasConfig()).model_copy(update={"policy": PolicySettings(automatic=False)})


def ask(agent: AgentMemory, options: RecallOptions, *, kind: str = "recall", progress: Progress | None = None) -> dict[str, Any]:
    """Put every question to every arm and return the report of the contract.

    Raises:
        RuntimeError: a question to be asked stands among the trained ones; the evaluation would prove nothing.
    """
    people, handles = options.people(), handles_of(agent, options)
    asked = _questions(agent, people, handles, options)
    journals = [handle.turns() for handle in handles]
    sessions = [[list(session) for session in prompting.split_sessions(journal)] for journal in journals]
    memories = [agent.memory_of(handle.key, agent.store.revision(handle.key)) for handle in handles]
    others = [*memories[1:], memories[0]]
    full = [
        asking.prompt(asking.fitting(agent, journals[each.user], each.text, answer_tokens=ANSWER_TOKENS), each.text) for each in asked
    ]  # fmt: skip
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
    attached: dict[str, Sequence[LocasMemory | None]] = {"memory": memories, "window_memory": memories, "wrong_user": others}
    arms = {name: Arm() for name in ARMS}
    right: list[bool] = []
    recalled: list[str] = []
    for number, (name, messages) in enumerate(prompts.items()):
        chosen = [attached[name][each.user] if name in attached else None for each in asked]
        answers = _answers(agent, messages, chosen)
        hits = [arms[name].add(answer, each.fact.value, each.user) for answer, each in zip(answers, asked, strict=True)]
        if name == "memory":
            right, recalled = hits, answers
        if progress is not None:
            progress("asked", number + 1, len(prompts))
    report: dict[str, Any] = {
        "kind": kind, "backbone": agent.backbone.name, "seed": options.seed, "users": options.users, "sessions": options.sessions,
        "facts_per_session": options.facts, "objective": agent.config.training.objective,
    }  # fmt: skip
    costs = peer_arm("temp_lora", agent, handles[: options.lora_users], asked, arms["temp_lora"])
    if options.prefix_users:
        arms["prefix"] = Arm()
        costs |= peer_arm("prefix", agent, handles[: options.prefix_users], asked, arms["prefix"])
    report["arms"] = {name: arm.report() for name, arm in arms.items()}
    by_session = [[float(hit) for hit, each in zip(right, asked, strict=True) if each.fact.session == number] for number in range(options.sessions)]
    report["retention"] = [round(mean(hits), 4) if hits else None for hits in by_session]  # None: all its facts were told anew later
    report["updated_facts"] = _updated(people, asked, recalled)
    report |= _coverage(agent, handles, people)
    report["abstention"] = _abstention(agent, people, memories, options)
    present = [memory for memory in memories if memory is not None]
    mean_drift, p99 = drift(agent.engine, present, neutral_rows(agent.engine, seed=options.seed)) if present else (0.0, 0.0)
    report |= {"drift_kl_nats": round(mean_drift, 5), "drift_kl_p99_nats": round(p99, 5)}
    report |= _costs(agent, handles, memories) | costs
    report["context_tokens"] = {
        name: round(mean([len(agent.backbone.encode_chat(m)) for m in prompts[name]]), 1) for name in ("full_context", "memory")
    }
    return report


def _tell(handle: UserMemory, person: Person, number: int) -> None:
    session = person.sessions[number]
    for index, line in enumerate(session.lines):
        at = session.at + timedelta(seconds=20 * index)
        handle.add(line.role, line.text, at=at, session=f"session {number + 1}", key=f"{number + 1}:{index}")


def _questions(agent: AgentMemory, people: Sequence[Person], handles: Sequence[UserMemory], options: RecallOptions) -> list[Asked]:
    """Choose one wording per fact from the group the backbone never writes, and prove that none was trained on."""
    rng = Random(f"ask:{options.seed}")
    asked = [Asked(user, fact, rng.choice(fact.relation.asked_held)) for user, person in enumerate(people) for fact in person.facts]
    for user, handle in enumerate(handles):
        trained = {item.question for item in agent.store.study_items(handle.key, with_retired=True)}
        both = trained & {each.text for each in asked if each.user == user}
        if both:
            raise RuntimeError(f"{len(both)} questions to be asked stand among the trained ones; the backbone wrote a held-out wording")
    return asked


def _updated(people: Sequence[Person], asked: Sequence[Asked], recalled: Sequence[str]) -> dict[str, Any] | None:
    """Score the facts told anew: `exact_match` names the newest value, `stale` the share of answers that name the former one."""
    arm, stale = Arm(), list[float]()
    for answer, each in zip(recalled, asked, strict=True):
        former = people[each.user].replaced.get(each.fact.relation.key)
        if former is not None:
            arm.add(answer, each.fact.value, each.user)
            stale.append(float(contains(answer, former)))
    report = arm.report()
    return None if report is None else report | {"stale": round(mean(stale), 4)}


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
                    covered += any(item.turn_seq == seq and line.fact.value.casefold() in item.answer.casefold() for item in items)
    return {"study_coverage": round(covered / told, 4)}


def _abstention(
    agent: AgentMemory, people: Sequence[Person], memories: Sequence[LocasMemory | None], options: RecallOptions
) -> dict[str, Any] | None:
    """Ask for what was never told."""
    rng = Random(f"unknown:{options.seed}")
    asked = [(user, rng.choice(relation.asked_held)) for user, person in enumerate(people) for relation in person.unknown[:UNKNOWN_ASKED]]
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
        "seconds_per_user": round(sum(m.get("train_seconds", 0.0) for m in metrics) / len(handles), 3),
        "study_seconds_per_user": round(sum(m.get("study_seconds", 0.0) for m in metrics) / len(handles), 3),
        "params_per_user": max((memory.parameter_count for memory in memories if memory is not None), default=0),
    }


def run_recall(options: RecallOptions, *, agent: AgentMemory, kind: str = "recall", progress: Progress | None = None) -> dict[str, Any]:
    """Teach and ask in one process."""
    started = time.perf_counter()
    teach(agent, options, progress=progress)
    report = ask(agent, options, kind=kind, progress=progress)
    return report | {"seconds": round(time.perf_counter() - started, 1)}


_MEANING = {
    "none": "nothing in the prompt, no memory",
    "context": "only the session that holds the fact (the ceiling)",
    "full_context": "every session, oldest dropped if they do not fit",
    "memory": "nothing in the prompt: answered from the weights",
    "window_memory": "the newest turns and the memory",
    "search": "three turns found by BM25",
    "wrong_user": "another user's memory",
    "temp_lora": "a LoRA of rank 16 on the same study sets",
    "prefix": "a tuned prefix of 32 tokens on the same study sets",
}
_PEERS = (("LoRA", "temp_lora"), ("prefix", "prefix"))


def recall_table(report: dict[str, Any]) -> Table:
    """Return the report as people read it."""
    told = f"{report['users']} people, {report['sessions']} sessions of {report['facts_per_session']} facts"
    title = f"{told}, backbone {report['backbone']}, {report['objective']}"
    table = Table(title=title, title_justify="left")
    for column in ("arm", "what it has", "exact match", "95 %", "n"):
        table.add_column(column, justify="left" if column in ("arm", "what it has") else "right")
    for name, arm in report["arms"].items():
        if arm is not None:
            low, high = arm["ci95"]
            table.add_row(name, _MEANING[name], f"{arm['exact_match']:.3f}", f"{low:.2f} to {high:.2f}", str(arm["n"]))
    table.add_section()
    for label, value in _figures(report):
        table.add_row(label, "", value, "", "")
    return table


def _figures(report: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the figures below the arms, as text."""
    updated, abstention = report["updated_facts"], report["abstention"]
    peers = [(label, report.get(f"{name}_seconds_per_user"), report.get(f"{name}_params_per_user")) for label, name in _PEERS]
    rows = [
        ("retention by session", " ".join("-" if value is None else f"{value:.2f}" for value in report["retention"])),
        ("study coverage", f"{report['study_coverage']:.3f}"),
        ("facts told anew", f"{updated['exact_match']:.3f} (the former value: {updated['stale']:.3f})" if updated else "none"),
        ("abstention", f"{abstention['exact_match']:.3f}" if abstention else "none"),
        ("drift, nats per token", f"{report['drift_kl_nats']:.4f}"),
        ("refused consolidations", str(report["refused_consolidations"])),
        ("training seconds per user", f"{report['seconds_per_user']:.2f}" + "".join(f" ({label} {spent:.2f})" for label, spent, _ in peers if spent)),
        ("numbers per user", f"{report['params_per_user']:,}" + "".join(f" ({label} {count:,})" for label, _, count in peers if count)),
    ]
    return rows

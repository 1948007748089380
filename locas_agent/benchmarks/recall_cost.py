"""What a recalled fact costs.

Seconds of training and bytes per user, beside PEFT adapters taught from the same study sets.

On the bundled backbone, which can write study sets and answer from what it learnt: people of `eval recall` tell one
session, everybody is consolidated once, and both sides are asked in wordings that neither was taught.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import cycle
from random import Random

from safetensors.torch import save

from locas_agent.agent import AgentMemory
from locas_agent.benchmarks.bench import Bench
from locas_agent.benchmarks.measuring import Goal, Row, interleaved
from locas_agent.config import LocasConfig, StudySettings, TrainingSettings
from locas_agent.consolidation.learner import Outcome, Task
from locas_agent.conversation.messages import question
from locas_agent.evaluation.baselines.peer import peft
from locas_agent.evaluation.baselines.temp_lora import TempLora
from locas_agent.evaluation.synthetic.people import Person, make_person
from locas_agent.memory import LocasMemory, MemoryBatch
from locas_agent.memory.serialization import to_bytes
from locas_agent.study.matching import contains
from locas_agent.training.neutral import NeutralText
from locas_agent.training.sampling.builder import TrainingTask
from locas_agent.training.trainer import Trainer

PEOPLE, FACTS = 4, 4
ROUNDS = 3
TIMED_RANK, STORED_RANK = 16, 64
ANSWER_TOKENS = 24
EQUAL_RECALL = 0.01
"""By so much our recall may be lower and counts as equal: what `eval recall` allows beside its LoRA."""

_SAME = "a session of 4 facts on the bundled backbone, the same study sets and as many steps"
SECONDS = Goal(
    "recall-seconds",
    f"training for {_SAME}, 4 users side by side; peer: PEFT adapters of rank 16 beside all linear layers, one by one",
    "seconds per user",
    "peer/ours",
    4.0,
    8.0,
)
BYTES = Goal(
    "bytes",
    f"what is stored of a user after {_SAME}; peer: a PEFT adapter of rank 64 beside all linear layers; holds where we "
    "recall as much",
    "bytes per user",
    "peer/ours",
    10.0,
    24.0,
)


@dataclass(frozen=True, eq=False)
class Learnt:
    """What one person's memory learnt, the memory, the steps it took, and what is asked with the values wanted."""

    task: TrainingTask
    memory: LocasMemory
    steps: int
    asked: tuple[tuple[str, str], ...]


def recall_cost(bench: Bench) -> list[Row]:
    """Measure both rows.

    Raises:
        MissingExtra: PEFT is not installed.
        RuntimeError: the backbone wrote no study set, so there is nothing to compare.
    """
    peft()  # before minutes of study
    people = [_person(bench, at) for at in range(2 if bench.is_quick else PEOPLE)]
    with AgentMemory.load("tiny", "sqlite://", config_of(bench), device=str(bench.device)) as agent:
        learnt = agent.learner.learn([_task(agent, person, f"person-{at}") for at, person in enumerate(people)])
        if any(each.metrics.steps is None for each in learnt):
            raise RuntimeError("somebody's study set is empty, so there is nothing to train on: take another seed")
        asked = [
            tuple((wording, fact.value) for fact in person.facts for wording in fact.relation.asked_held)
            for person in people
        ]
        told = [
            Learnt(one.training_task, one.memory, one.metrics.steps or 0, questions)
            for one, questions in zip(learnt, asked, strict=True)
        ]
        return [_seconds(bench, agent, learnt), compare_bytes(BYTES, agent, agent.learner.neutral, told)]


def _seconds(bench: Bench, agent: AgentMemory, learnt: list[Outcome]) -> Row:
    """Every round trains all memories side by side and the next person's adapter."""
    training_tasks = [each.training_task for each in learnt]
    trainer = Trainer(agent.engine, agent.config, agent.learner.neutral, agent.learner.last_layer)
    peer = TempLora(agent.backbone, agent.config, agent.learner.neutral, rank=TIMED_RANK)
    turns = cycle(learnt)

    def train_next() -> None:
        one = next(turns)
        peer.train(one.training_task, steps=one.metrics.steps)

    sides: dict[str, Callable[[], object]] = {"ours": lambda: trainer.train(training_tasks), "peer": train_next}
    taken = interleaved(sides, rounds=bench.rounds(ROUNDS), device=bench.device, warm_up=0)
    return SECONDS.row(
        [each / 1e3 / len(training_tasks) for each in taken["ours"]], [each / 1e3 for each in taken["peer"]]
    )


def compare_bytes(goal: Goal, agent: AgentMemory, neutral: NeutralText, learnt: Sequence[Learnt]) -> Row:
    """Teach everybody's adapter what a memory learnt, and ask both the same.

    Args:
        goal: of the row, which does not hold where the adapters recall more.
        agent: of whose backbone the memories are.
        neutral: text with which they were trained.
        learnt: one for each person.
    """
    peer = TempLora(agent.backbone, agent.config, neutral, rank=STORED_RANK)
    ours, theirs, recalled, count = [], [], [0, 0], 0
    for one in learnt:
        state = peer.train(one.task, steps=one.steps).state
        count += len(one.asked)
        prompts = [agent.backbone.encode_chat(question(text)) for text, _ in one.asked]
        for side, answers in enumerate(
            (_answers(agent, prompts, one.memory), peer.generate(prompts, state, max_new_tokens=ANSWER_TOKENS))
        ):
            recalled[side] += sum(
                contains(answer, value) for answer, (_, value) in zip(answers, one.asked, strict=True)
            )
        ours.append(float(len(to_bytes(one.memory, dtype=agent.config.memory.stored_as))))
        theirs.append(float(len(save(dict(state)))))
    shares = [right / count for right in recalled]
    told = f"{goal.workload}; recall {shares[0]:.3f}, peer {shares[1]:.3f} of {count} questions"
    return replace(goal, workload=told).row(ours, theirs, is_equal=shares[0] >= shares[1] - EQUAL_RECALL)


def _answers(agent: AgentMemory, prompts: list[list[int]], memory: LocasMemory) -> list[str]:
    batch = MemoryBatch.of([memory], agent.backbone, rows_per_memory=len(prompts))
    return [
        agent.backbone.decode(answer.ids)
        for answer in agent.engine.generate(prompts, memory=batch, max_new_tokens=ANSWER_TOKENS)
    ]


def _task(agent: AgentMemory, person: Person, name: str) -> Task:
    """Let a person tell the session."""
    handle = agent.for_user(name)
    for line in person.sessions[0].lines:
        handle.add(line.role, line.text, at=person.sessions[0].at)
    return Task(agent.learner.chunks(handle.turns()))


def _person(bench: Bench, number: int) -> Person:
    return make_person(
        Random(f"bench:{bench.seed}:{number}"), sessions=1, facts_per_session=2 if bench.is_quick else FACTS
    )


def config_of(bench: Bench) -> LocasConfig:
    """Return the settings of a run: those of the product, or of a quick one."""
    if not bench.is_quick:
        return LocasConfig()
    study = StudySettings(first_samples=2, samples_per_turn=2, max_rounds=1, negatives_per_piece=2)
    return LocasConfig(study=study, training=TrainingSettings(max_steps=4, anchor_tokens=16, window_tokens=64))

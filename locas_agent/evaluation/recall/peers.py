"""An arm of `eval recall` that a peer answers: the same study sets, the same steps, one adapter per person.

Knows the store and the peer; teaches it nothing new.

Each consolidation of the memory is repeated for the adapter from what the store kept: the items that revision added,
and the items in force before it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from locas_agent.agent import AgentMemory
from locas_agent.conversation.messages import question
from locas_agent.evaluation.baselines.peer import AdapterPeer, AdapterState
from locas_agent.evaluation.baselines.prefix_tuning import PrefixTuning
from locas_agent.evaluation.baselines.temp_lora import TempLora
from locas_agent.evaluation.recall.people import ANSWER_TOKENS, Asked
from locas_agent.evaluation.scoring import Arm, mean
from locas_agent.study.chunking import Chunk
from locas_agent.study.codec import from_record
from locas_agent.study.items import QUESTION
from locas_agent.training.sampling.builder import TrainingTask
from locas_agent.user import UserMemory
from locas_storage import Revision, StudyItem

PEERS: dict[str, Callable[[AgentMemory], AdapterPeer]] = {
    "temp_lora": lambda agent: TempLora(agent.backbone, agent.config, agent.learner.neutral),
    "prefix": lambda agent: PrefixTuning(agent.backbone, agent.config, agent.learner.neutral),
}
"""How the peer of each such arm is made."""


def peer_arm(
    name: str,
    agent: AgentMemory,
    handles: Sequence[UserMemory],
    asked: Sequence[Asked],
    arm: Arm,
) -> dict[str, Any]:
    """Train an adapter for each of the first people, ask it, and fill the arm.

    Args:
        name: one of `PEERS`.
        agent: whose backbone and store are used.
        handles: the people, the first ones of the evaluation.
        asked: every question; those of other people are left out.
        arm: filled with their answers.

    Returns:
        The peer's costs; nothing in them when there are no people.
    """
    if not handles:
        return {f"{name}_seconds_per_user": None, f"{name}_params_per_user": None}
    peer = PEERS[name](agent)
    seconds = []
    for user, handle in enumerate(handles):
        state, spent = _taught(peer, agent, handle)
        seconds.append(spent)
        mine = [each for each in asked if each.user == user]
        prompts = [agent.backbone.encode_chat(question(each.text)) for each in mine]
        for each, answer in zip(mine, peer.generate(prompts, state, max_new_tokens=ANSWER_TOKENS), strict=True):
            arm.add(answer, each.fact.answers, user)
    return {f"{name}_seconds_per_user": round(mean(seconds), 3), f"{name}_params_per_user": peer.parameter_count}


def _taught(peer: AdapterPeer, agent: AgentMemory, handle: UserMemory) -> tuple[AdapterState | None, float]:
    """Return one person's adapter after as many trainings as there were consolidations, and their seconds."""
    records, journal = agent.store.study_items(handle.key, with_retired=True), handle.turns()
    state: AdapterState | None = None
    spent = 0.0
    for revision in handle.revisions():
        learnt = [turn for turn in journal if revision.from_seq <= turn.seq <= revision.to_seq]
        task = training_task_of(revision, records, agent.learner.chunks(agent.learner.heard(learnt)))
        if not any(item.kind == QUESTION for item in task.new):
            continue
        trained = peer.train(task, state, steps=revision.metrics.steps)
        state, spent = trained.state, spent + trained.seconds
    return state, spent


def training_task_of(revision: Revision, records: Sequence[StudyItem], chunks: tuple[Chunk, ...]) -> TrainingTask:
    """Return what this revision was trained on, as the store kept it."""
    new = tuple(from_record(record) for record in records if record.added_rev == revision.number)
    earlier = tuple(
        from_record(record)
        for record in records
        if record.added_rev < revision.number and (record.retired_rev is None or record.retired_rev > revision.number)
    )
    return TrainingTask(new, earlier, chunks, None)

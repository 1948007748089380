"""The LoRA arm of `eval recall`: the same study sets, the same steps, one adapter per person.

Knows the store and the peer; teaches it nothing new.

Each consolidation of the memory is repeated for the adapter from what the store kept: the items that revision added, and the items in
force before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from locas_agent.agent import AgentMemory
from locas_agent.baselines.temp_lora import LoraState, TempLora
from locas_agent.curriculum import Lesson
from locas_agent.evaluation.scoring import Arm, mean
from locas_agent.pieces import Piece
from locas_agent.prompting import question
from locas_agent.study_items import QUESTION
from locas_agent.study_records import from_record
from locas_agent.user import UserMemory
from locas_storage import Revision, StudyItem

if TYPE_CHECKING:
    from locas_agent.evaluation.recall import Asked

ANSWER_TOKENS = 24


def temp_lora_arm(agent: AgentMemory, handles: Sequence[UserMemory], asked: Sequence[Asked], arm: Arm) -> dict[str, Any]:
    """Train an adapter for each person, ask it, and fill the arm.

    Returns:
        The peer's costs, and `memory`'s own seconds for the same people; nothing when there are no people.
    """
    if not handles:
        return {"temp_lora_seconds_per_user": None, "temp_lora_params_per_user": None}
    peer = TempLora(agent.backbone, agent.config, agent.learner.neutral)
    seconds = []
    for user, handle in enumerate(handles):
        records = agent.store.study_items(handle.key, with_retired=True)
        journal = handle.turns()
        state: LoraState | None = None
        spent = 0.0
        for revision in handle.revisions():
            learnt = [turn for turn in journal if revision.from_seq <= turn.seq <= revision.to_seq]
            lesson = _lesson(revision, records, agent.learner.pieces(learnt))
            if not any(item.kind == QUESTION for item in lesson.new):
                continue
            trained = peer.train(lesson, state, steps=revision.metrics.get("steps"))
            state, spent = trained.state, spent + trained.seconds
        seconds.append(spent)
        mine = [each for each in asked if each.user == user]
        prompts = [agent.backbone.encode_chat(question(each.text)) for each in mine]
        for each, answer in zip(mine, peer.generate(prompts, state or peer.empty_state(), max_new_tokens=ANSWER_TOKENS), strict=True):
            arm.add(answer, each.fact.value, user)
    return {"temp_lora_seconds_per_user": round(mean(seconds), 3), "temp_lora_params_per_user": peer.parameter_count}


def _lesson(revision: Revision, records: Sequence[StudyItem], pieces: tuple[Piece, ...]) -> Lesson:
    """Return what this revision was trained on, as the store kept it."""
    new = tuple(from_record(record) for record in records if record.added_rev == revision.number)
    earlier = tuple(
        from_record(record)
        for record in records
        if record.added_rev < revision.number and (record.retired_rev is None or record.retired_rev > revision.number)
    )
    return Lesson(new, earlier, pieces, None)

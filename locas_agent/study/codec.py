"""Study items to store records and back.

Owns the byte form of a teacher's distribution.
"""

from __future__ import annotations

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from locas_agent.errors import CorruptPayload, StorageError
from locas_agent.inference.generation import TopK
from locas_agent.study.items import Item
from locas_storage import StudyItem, StudyItemDraft

_NAMES = {"answer_ids", "teacher_ids", "teacher_logprobs"}


def to_draft(item: Item) -> StudyItemDraft:
    """Return an item as the store keeps it."""
    tensors = {
        "answer_ids": torch.tensor(item.answer_ids, dtype=torch.int32),
        "teacher_ids": item.teacher.ids.contiguous(),
        "teacher_logprobs": item.teacher.logprobs.contiguous(),
    }
    return StudyItemDraft(
        item_id=item.item_id,
        kind=item.kind,
        from_seq=item.from_seq,
        to_seq=item.to_seq,
        turn_seq=item.turn_seq,
        question=item.question,
        answer=item.answer,
        teacher=save(tensors),
    )


def can_be_kept(item: Item) -> bool:
    """Tell whether the store takes an item; its own records are the judge, so that no rule stands in two places."""
    try:
        to_draft(item)
    except StorageError:
        return False
    return True


def from_record(record: StudyItem) -> Item:
    """Return what `to_draft` wrote.

    Raises:
        CorruptPayload: the teacher's bytes are not ours.
    """
    try:
        tensors = load(record.teacher)
    except SafetensorError as error:
        raise CorruptPayload(
            "a study item's distribution is not a safetensors file; run `locas-agent verify`"
        ) from error
    if set(tensors) != _NAMES or tensors["teacher_ids"].shape != tensors["teacher_logprobs"].shape:
        raise CorruptPayload(f"a study item's distribution holds {sorted(tensors)}, expected {sorted(_NAMES)}")
    return Item(
        item_id=record.item_id,
        kind=record.kind,
        from_seq=record.from_seq,
        to_seq=record.to_seq,
        turn_seq=record.turn_seq,
        question=record.question,
        answer=record.answer,
        answer_ids=tuple(tensors["answer_ids"].tolist()),
        teacher=TopK(tensors["teacher_ids"], tensors["teacher_logprobs"]),
    )

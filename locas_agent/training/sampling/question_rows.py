"""Study items as rows: asked alone, and one after the other in a conversation."""

from __future__ import annotations

from collections.abc import Sequence

from locas_agent.backbone import Backbone
from locas_agent.conversation.messages import Message, exchange, question
from locas_agent.inference.generation import TopK
from locas_agent.study.items import Item
from locas_agent.training.examples import Example

_OPENING = exchange("Good morning!", "Good morning!")
"""Stands before messages that are encoded as they stand in the middle of a conversation."""


def question_example(backbone: Backbone, item: Item) -> Example:
    """Return a study item as it is trained and measured.

    The question alone in front, the teacher's answer to be given.
    """
    return Example(tuple(backbone.encode_chat(question(item.question))), item.answer_ids, item.teacher)


def conversation_example(backbone: Backbone, window: Sequence[int], items: Sequence[Item]) -> Example:
    """Return one row: a window, then each item asked and answered as in a running conversation.

    Only the answers are scored.
    """
    prompt, target, scored = list(window), list[int](), list[int]()
    for item in items:
        asked = _in_the_middle(backbone, question(item.question), generation_prompt=True)
        after = _in_the_middle(backbone, exchange(item.question, item.answer), generation_prompt=False)
        closing = after[len(asked) + len(item.answer_ids) :]  # what the template puts behind an answer
        if target:
            target += asked
        else:
            prompt += asked
        scored += range(len(target), len(target) + len(item.answer_ids))
        target += [*item.answer_ids, *closing]
    teacher = TopK.joined([item.teacher for item in items])
    return Example(tuple(prompt), tuple(target[: scored[-1] + 1]), teacher, 1.0, tuple(scored))


def _in_the_middle(backbone: Backbone, messages: Sequence[Message], *, generation_prompt: bool) -> list[int]:
    """Encode messages as they stand behind others.

    What opens a conversation is not said again: the beginning-of-text token, the template's own instructions.
    """
    opening = backbone.encode_chat(_OPENING, generation_prompt=False)
    whole = backbone.encode_chat([*_OPENING, *messages], generation_prompt=generation_prompt)
    if whole[: len(opening)] == opening:
        return whole[len(opening) :]
    ids = backbone.encode_chat(messages, generation_prompt=generation_prompt)  # a template that looks back
    start = backbone.tokenizer.bos_token_id
    return ids[1:] if start is not None and ids[:1] == [start] else ids

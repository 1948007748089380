"""How many tokens a turn takes, and whether it can stand in a prompt at all."""

from __future__ import annotations

from dataclasses import replace

from locas_agent.backbone import Backbone
from locas_agent.errors import TurnTooLong
from locas_storage import TurnDraft

TURN_OVERHEAD_TOKENS = 16
"""Room kept in a prompt for session headers and the opening of the answer, in tokens."""


def max_turn_tokens(backbone: Backbone, answer_tokens: int) -> int:
    """Return the longest turn, in tokens, that fits into the context beside an answer of that many.

    None does if it is not positive.
    """
    return backbone.context_tokens - answer_tokens - TURN_OVERHEAD_TOKENS


def longest_answer(backbone: Backbone) -> int:
    """Return the longest answer, in tokens, that can be a turn itself beside another such answer.

    None can if it is 0.
    """
    return max(0, (backbone.context_tokens - TURN_OVERHEAD_TOKENS) // 2)


def tokens_of(backbone: Backbone, draft: TurnDraft) -> int:
    """Return how many tokens a draft takes in a prompt: in the chat template, with the speaker's name if it has one."""
    text = f"{draft.name}: {draft.content}" if draft.name else draft.content
    return len(backbone.encode_chat([{"role": draft.role, "content": text}], generation_prompt=False))


def with_token_count(backbone: Backbone, draft: TurnDraft, *, answer_tokens: int) -> TurnDraft:
    """Return a draft with its token count, which is kept if it has one.

    Args:
        backbone: gives tokenizer, chat template and context.
        draft: what is to be said.
        answer_tokens: room that must be left for an answer.

    Raises:
        TurnTooLong: it leaves less.
    """
    tokens = draft.token_count or tokens_of(backbone, draft)
    if tokens > (limit := max_turn_tokens(backbone, answer_tokens)):
        raise TurnTooLong(
            f"the turn has {tokens} tokens, the context of {backbone.name!r} leaves room for {limit} beside an answer "
            f"of {answer_tokens}: "
            "split it into several turns"
        )
    return replace(draft, token_count=tokens)

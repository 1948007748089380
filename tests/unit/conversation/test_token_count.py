"""What a turn takes of the context, counted in the chat template, and which turns and answers fit."""

from __future__ import annotations

import pytest

from locas_agent.backbone import Backbone
from locas_agent.conversation.token_count import (
    TURN_OVERHEAD_TOKENS,
    longest_answer,
    max_turn_tokens,
    tokens_of,
    with_token_count,
)
from locas_agent.errors import TurnTooLong
from locas_storage import TurnDraft


def test_count_is_that_of_the_message_in_the_template(backbone: Backbone) -> None:
    bare, named = TurnDraft("user", "Hello."), TurnDraft("user", "Hello.", name="Ada")
    message = [{"role": "user", "content": "Hello."}]
    assert tokens_of(backbone, bare) == len(backbone.encode_chat(message, generation_prompt=False))
    assert tokens_of(backbone, named) == tokens_of(backbone, bare) + len("Ada: ")  # a token is a byte here


def test_a_count_that_is_known_is_kept(backbone: Backbone) -> None:
    assert with_token_count(backbone, TurnDraft("user", "Hello."), answer_tokens=4).token_count > 0
    assert with_token_count(backbone, TurnDraft("user", "Hello.", token_count=7), answer_tokens=4).token_count == 7


def test_longest_turn_fits_to_the_token(backbone: Backbone) -> None:
    most = max_turn_tokens(backbone, 40)
    assert most == backbone.context_tokens - 40 - TURN_OVERHEAD_TOKENS
    assert with_token_count(backbone, TurnDraft("user", "x", token_count=most), answer_tokens=40).token_count == most
    with pytest.raises(TurnTooLong, match=f"has {most + 1} tokens.*room for {most} beside an answer of 40"):
        with_token_count(backbone, TurnDraft("user", "x", token_count=most + 1), answer_tokens=40)


def test_longest_answer_is_a_turn_beside_another_such_answer(backbone: Backbone) -> None:
    most = longest_answer(backbone)
    assert max_turn_tokens(backbone, most) >= most
    assert max_turn_tokens(backbone, most + 1) < most + 1

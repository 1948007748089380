"""A reply asks the chat template once for each turn that it journals, and once for its prompt."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest

from locas_agent import AgentMemory, Backbone, LocasConfig
from locas_storage import InMemoryStore

CONFIG = LocasConfig.model_validate({"window": {"window_tokens": 120, "max_new_tokens": 6}, "memory": {"width": 2}})


@pytest.fixture
def agent(backbone: Backbone) -> Iterator[AgentMemory]:
    with AgentMemory(backbone=backbone, store=InMemoryStore(), config=CONFIG) as made:
        yield made


@pytest.mark.parametrize("is_streamed", [False, True])
def test_reply_runs_the_chat_template_once(
    agent: AgentMemory, monkeypatch: pytest.MonkeyPatch, is_streamed: bool
) -> None:
    ada = agent.for_user("ada")
    ada.add("user", "Good morning.")
    ada.add("assistant", "Good morning to you.")
    encoded: list[tuple[int, bool]] = []
    encode = Backbone.encode_chat

    def counting(backbone: Backbone, messages: Sequence[Mapping[str, Any]], **options: Any) -> list[int]:
        encoded.append((len(messages), options.get("generation_prompt", True)))
        return encode(backbone, messages, **options)

    monkeypatch.setattr(Backbone, "encode_chat", counting)
    if is_streamed:
        list(ada.stream("What is my dog called?"))
    else:
        ada.reply("What is my dog called?")
    date_and_turns = (1 + 3, True)
    assert encoded == [(1, False), date_and_turns, (1, False)]  # the question, the prompt, the answer


def test_prompt_is_empty_without_a_turn(agent: AgentMemory) -> None:
    built = agent.prompts.build(agent.for_user("ada").key)
    assert (built.ids, built.layout.prompt_turns) == ([], ())


def test_ids_are_those_of_the_turns_that_fit(agent: AgentMemory) -> None:
    ada = agent.for_user("ada")
    for number in range(30):
        ada.add("user", f"{number} " + "long " * 20)
    built = agent.prompts.build(ada.key, max_new_tokens=40)
    assert built.layout.unseen_turns > 0
    assert len(built.ids) <= agent.backbone.context_tokens - 40
    assert agent.backbone.decode(built.ids).count("long long") > 0
    assert built.layout.prompt_turns[-1].seq == 30


def test_stored_counts_are_those_of_the_chat_template(agent: AgentMemory) -> None:
    ada = agent.for_user("ada")
    reply = ada.reply("What is my dog called?")
    for turn in (*ada.turns(), reply.turn):
        message = [{"role": turn.role, "content": turn.content}]
        assert turn.token_count == len(agent.backbone.encode_chat(message, generation_prompt=False))

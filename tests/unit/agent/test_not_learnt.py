"""Turns said with `learn=False`: journalled, shown, found, and never studied."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from locas_agent import AgentMemory, Backbone, LocasConfig
from locas_agent.cli.chat import Chat
from locas_agent.config import PolicySettings, WindowSettings
from locas_agent.errors import InvalidTurn
from locas_storage import InMemoryStore, TurnDraft

CONFIG = LocasConfig(window=WindowSettings(window_tokens=64, max_new_tokens=8), policy=PolicySettings(automatic=False))


@pytest.fixture
def agent(backbone: Backbone) -> Iterator[AgentMemory]:
    with AgentMemory(backbone=backbone, store=InMemoryStore(), config=CONFIG) as memory:
        yield memory


def test_the_teacher_reads_no_turn_that_is_not_to_be_learnt(agent: AgentMemory) -> None:
    ada = agent.for_user("ada")
    ada.add("user", "I was born in Turin.")
    ada.add("user", "The gate code is 5512.", learn=False)
    ada.add("assistant", "Noted, 5512.", learn=False)
    ada.add("user", "I row.")
    heard = agent.learner.heard(ada.turns())
    assert [turn.content for turn in heard] == ["I was born in Turin.", "I row."]
    read = "".join(message["content"] for chunk in agent.learner.chunks(heard) for message in chunk.messages[1:])
    assert read == "I was born in Turin.I row."


def test_it_is_shown_in_the_window_and_found(agent: AgentMemory) -> None:
    ada = agent.for_user("ada")
    ada.add("user", "The gate code is 5512.", learn=False)
    assert "The gate code is 5512." in [message["content"] for message in ada.prompt("What is it?")]
    assert [(found.content, found.learn) for found in ada.search("gate")] == [("The gate code is 5512.", False)]


def test_both_turns_of_a_reply_say_so_also_when_it_is_tried_again(agent: AgentMemory) -> None:
    ada = agent.for_user("ada")
    ada.reply("One.", learn=False, idempotency_key="k")
    ada.reply("One.", idempotency_key="k")
    for _ in ada.stream("Two.", learn=False):
        pass
    ada.reply("Three.")
    assert [turn.learn for turn in ada.turns()] == [False] * 4 + [True] * 2


def test_a_span_of_nothing_else_counts_as_learnt_and_says_so(agent: AgentMemory) -> None:
    ada = agent.for_user("ada")
    ada.add("user", "The gate code is 5512.", learn=False)
    ada.add("user", "The alarm is 7731.", learn=False)
    done = ada.consolidate(flush=True)
    assert (done.status, done.reason, done.metrics.left_out_turns) == ("admitted", "nothing to remember", 2)
    assert "2 turns were left out: said with learn=False" in done.detail
    assert agent.store.study_items(ada.key, with_retired=True) == []
    assert ada.pending() == []


def test_a_corrected_turn_stays_out(agent: AgentMemory) -> None:
    ada = agent.for_user("ada")
    old = ada.add("user", "The gate code is 5512.", learn=False)
    assert ada.correct(old, "The gate code is 5513.").learn is False


def test_a_conversation_of_the_command_line_can_be_kept_out(agent: AgentMemory) -> None:
    Chat(agent.for_user("ada"), learn=False).run(["The gate code is 5512."])
    Chat(agent.for_user("ben")).run(["I row."])
    assert [turn.learn for turn in agent.for_user("ada").turns()] == [False, False]
    assert [turn.learn for turn in agent.for_user("ben").turns()] == [True, True]


def test_what_is_neither_true_nor_false_is_refused() -> None:
    with pytest.raises(InvalidTurn, match="learn: got str"):
        TurnDraft("user", "x", learn="no")  # type: ignore[arg-type]

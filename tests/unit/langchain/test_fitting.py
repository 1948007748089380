"""A history that is longer than the context: what stays behind, and that it is answered for ever."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from langchain_core.messages import AIMessage, BaseMessage, ChatMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder
from langchain_core.runnables import ConfigurableFieldSpec
from langchain_core.runnables.history import RunnableWithMessageHistory

from langchain_locas import ChatLocas, LocasChatMessageHistory, PromptTooLong
from langchain_locas import fitting as module
from langchain_locas.fitting import fitted
from langchain_locas.messages import to_chat
from locas_agent import AgentMemory, Backbone, LocasConfig
from tests.conftest import MakeMemory
from tests.unit.langchain.conftest import MakeAgent, taught, tool_backbone
from tests.unit.langchain.test_history import NOISE

CONTEXT = 600


@pytest.fixture
def small(make_agent: MakeAgent) -> AgentMemory:
    """A backbone of one token per byte whose context holds six hundred."""
    made: Backbone = tool_backbone()
    made.model.config.max_position_embeddings = CONTEXT
    return make_agent(
        backbone=made,
        config=LocasConfig.model_validate(
            {"memory": {"width": 2}, "window": {"max_new_tokens": 20, "window_tokens": 100}}
        ),
    )


@pytest.fixture
def prompts(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The texts of what was measured for each prompt; the last is the one that was answered."""
    seen: list[list[str]] = []
    to_chat = module.to_chat

    def noting(messages: Sequence[BaseMessage]) -> Any:
        seen.append([str(message.content) for message in messages])
        return to_chat(messages)

    monkeypatch.setattr(module, "to_chat", noting)
    return seen


def told(agent: AgentMemory, exchanges: int = 12, user: str = "ada") -> LocasChatMessageHistory:
    history = LocasChatMessageHistory(user, "monday", memory=agent)
    for at in range(exchanges):
        history.add_messages([HumanMessage(f"Fact {at} about my boat."), AIMessage(f"I see {at}.")])
    return history


def test_long_history_is_answered_with_its_newest_turns(small: AgentMemory, prompts: list[list[str]]) -> None:
    history = told(small)
    asked = [SystemMessage("Be brief."), *history.messages, HumanMessage("And now?")]
    answer = ChatLocas(memory=small).invoke(asked, user_id="ada")
    shown = prompts[-1]
    assert (shown[0], shown[-1]) == ("Be brief.", "And now?")
    assert shown[1:-1] == [message.content for message in asked[-len(shown) + 1 : -1]]
    assert shown[1].startswith("Fact")  # an answer went with its question
    assert 2 <= len(shown) - 2 < 24
    assert answer.response_metadata["left_out_messages"] == len(asked) - len(shown)
    assert answer.usage_metadata is not None
    assert answer.usage_metadata["input_tokens"] <= CONTEXT - 20
    # As much as fits: one exchange more would not.
    more = asked[-len(shown) - 1 : -1]
    assert ChatLocas(memory=small).get_num_tokens_from_messages([asked[0], *more, asked[-1]]) > CONTEXT - 20
    assert len(history.messages) == 24
    assert len(small.for_user("ada").turns()) == 24


def test_what_fits_is_shown_whole(small: AgentMemory, prompts: list[list[str]]) -> None:
    history = told(small, 5)
    answer = ChatLocas(memory=small).invoke([*history.messages, HumanMessage("And now?")], user_id="ada")
    assert answer.response_metadata["left_out_messages"] == 0
    assert len(prompts) == 1
    assert len(prompts[0]) == 11


def test_what_the_journal_does_not_hold_is_never_left_out(small: AgentMemory) -> None:
    history = told(small)
    model = ChatLocas(memory=small)
    question = HumanMessage("And now?")
    foreign = [message.model_copy(update={"id": None}) for message in history.messages]
    edited = [message.model_copy(update={"content": f"{message.content}!"}) for message in history.messages]
    for messages in (foreign, edited, [HumanMessage("x" * CONTEXT)], [*history.messages, HumanMessage("x" * CONTEXT)]):
        with pytest.raises(PromptTooLong):
            model.invoke([*messages, question], user_id="ada")
    with pytest.raises(PromptTooLong):
        model.invoke([*history.messages, question], user_id="ben")  # whose journal it is not
    forgotten = history.messages
    history.clear()
    with pytest.raises(PromptTooLong):
        model.invoke([*forgotten, question], user_id="ada")


def test_only_turns_of_the_journal_make_room(small: AgentMemory, prompts: list[list[str]]) -> None:
    history = told(small)
    calling = AIMessage("", tool_calls=[{"name": "look", "args": {}, "id": "c"}])
    fresh: list[BaseMessage] = [
        ChatMessage(role="user", content="Look it up."),
        calling,
        ToolMessage("found", tool_call_id="c"),
    ]
    ChatLocas(memory=small).invoke([HumanMessage("Before all."), *history.messages, *fresh], user_id="ada")
    assert prompts[-1][0] == "Before all."
    assert prompts[-1][-3:] == ["Look it up.", "", "found"]


def test_users_who_only_ask_are_answered_too(small: AgentMemory) -> None:
    history = LocasChatMessageHistory("ada", "monday", memory=small)
    history.add_messages([HumanMessage(f"Fact {at} about my boat.") for at in range(40)])
    assert ChatLocas(memory=small).invoke(history.messages, user_id="ada").content is not None
    shown = fitted(small, small.for_user("ada").key, history.messages, (), answer_tokens=20)
    assert len(small.backbone.encode_chat(to_chat(shown))) <= CONTEXT - 20
    assert 1 < len(shown) < 40


@pytest.mark.filterwarnings(NOISE)
@pytest.mark.parametrize("is_learnt", [False, True])
@pytest.mark.parametrize("has_template", [False, True])
def test_a_runnable_with_history_is_answered_for_ever(
    small: AgentMemory, make_memory: MakeMemory, is_learnt: bool, has_template: bool
) -> None:
    told(small)
    if is_learnt:
        taught(small, make_memory(1, on=small.backbone), "ada")
    ids = [ConfigurableFieldSpec(id=name, annotation=str) for name in ("user_id", "session_id")]
    template = ChatPromptTemplate.from_messages(
        [("system", "Be brief."), MessagesPlaceholder("history"), ("human", "{input}")]
    )
    model = ChatLocas(memory=small)
    keys = {"input_messages_key": "input", "history_messages_key": "history"} if has_template else {}
    chain: Any = RunnableWithMessageHistory(
        template | model if has_template else model,  # type: ignore[arg-type]
        lambda user_id, session_id: LocasChatMessageHistory(user_id, session_id, memory=small),
        history_factory_config=ids,
        **keys,
    )
    config = {"configurable": {"user_id": "ada", "session_id": "monday"}}
    for at in range(3):
        asked = f"Question {at}."
        chain.invoke({"input": asked} if has_template else [HumanMessage(asked)], config)
    kept = [turn.content for turn in small.for_user("ada").turns() if turn.role == "user"]
    assert kept == [*(f"Fact {at} about my boat." for at in range(12)), *(f"Question {at}." for at in range(3))]
    listed = LocasChatMessageHistory("ada", "monday", memory=small).messages
    assert [message.content for message in listed if message.type == "human"] == kept

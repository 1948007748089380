"""The history: the journal of one session of one user."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path

import pytest
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.runnables import ConfigurableFieldSpec
from langchain_core.runnables.history import RunnableWithMessageHistory

from langchain_locas import ChatLocas, LocasChainMemory, LocasChatMessageHistory
from locas_agent import AgentMemory, Backbone
from locas_agent.errors import LocasError
from locas_storage import SqlMemoryStore, Turn, UserKey
from tests.unit.langchain.conftest import CONFIG

# What these adapters are for is marked for removal, and says so.
NOISE = "ignore::langchain_core._api.deprecation.LangChainDeprecationWarning"


def texts(history: LocasChatMessageHistory) -> list[tuple[str, str]]:
    return [(message.type, str(message.content)) for message in history.messages]


def test_history_is_the_journal_in_order(agent: AgentMemory) -> None:
    history = LocasChatMessageHistory("ada", "monday", memory=agent)
    history.add_user_message("One.")
    history.add_messages([AIMessage("Two."), HumanMessage("Three.", name="Ada")])
    assert texts(history) == [("human", "One."), ("ai", "Two."), ("human", "Three.")]
    assert [(turn.role, turn.session) for turn in agent.for_user("ada").turns()] == [
        ("user", "monday"),
        ("assistant", "monday"),
        ("user", "monday"),
    ]
    assert history.messages[2].name == "Ada"
    assert asyncio.run(history.aget_messages()) == history.messages


def test_history_takes_each_message_once(agent: AgentMemory) -> None:
    history = LocasChatMessageHistory("ada", "monday", memory=agent)
    for _ in range(2):
        history.add_messages([HumanMessage("One.", id="1"), AIMessage("Two.", id="2")])
        history.add_messages(history.messages)  # read and given back
    assert texts(history) == [("human", "One."), ("ai", "Two.")]
    history.add_messages([HumanMessage("One."), HumanMessage("One.")])  # without ids they are two
    assert len(history.messages) == 4


@pytest.mark.parametrize("has_ids", [True, False])
def test_what_was_cleared_can_be_said_anew(agent: AgentMemory, has_ids: bool) -> None:
    history = LocasChatMessageHistory("ada", "monday", memory=agent)
    batch = [HumanMessage("One.", id="1" if has_ids else None), AIMessage("Two.", id="2" if has_ids else None)]
    for _ in range(4):
        history.add_messages(batch)
        if has_ids:
            history.add_messages(batch)
        assert texts(history) == [("human", "One."), ("ai", "Two.")]
        saved = history.messages
        history.add_messages(saved)  # read and given back
        assert len(history.messages) == 2
        history.clear()
        assert history.messages == []
    history.add_messages(saved)
    assert texts(history) == [("human", "One."), ("ai", "Two.")]


def test_order_is_kept_where_some_of_a_batch_was_forgotten(agent: AgentMemory) -> None:
    history = LocasChatMessageHistory("ada", "monday", memory=agent)
    batch = [HumanMessage(f"Text {at}.", id=str(at)) for at in range(4)]
    history.add_messages(batch[:3])
    agent.for_user("ada").forget([1, 3])
    history.add_messages(batch)
    assert [message.content for message in history.messages] == ["Text 1.", "Text 0.", "Text 2.", "Text 3."]


@pytest.mark.parametrize(
    "bad",
    [HumanMessage("x" * 17_000), AIMessage("nul \x00"), HumanMessage([{"type": "image", "url": "x"}])],
    ids=["long", "nul", "image"],
)
@pytest.mark.parametrize("has_ids", [True, False])
def test_a_batch_is_kept_whole_or_not_at_all(agent: AgentMemory, bad: BaseMessage, has_ids: bool) -> None:
    history = LocasChatMessageHistory("ada", "monday", memory=agent)
    good = [HumanMessage("One.", id="1" if has_ids else None), AIMessage("Three.", id="3" if has_ids else None)]
    classic = LocasChainMemory(memory=agent, user_id="ben")
    for _ in range(2):
        with pytest.raises(LocasError):
            history.add_messages([good[0], bad, good[1]])
        with pytest.raises(LocasError):
            classic.save_context({"input": "One."}, {"output": bad})
    assert agent.for_user("ada").turns() == agent.for_user("ben").turns() == []
    history.add_messages(good)
    assert texts(history) == [("human", "One."), ("ai", "Three.")]


@pytest.mark.parametrize("step", ["append.user", "append.turns", "append.before_commit"])
def test_a_batch_that_fails_midway_is_not_doubled(tmp_path: Path, with_tools: Backbone, step: str) -> None:
    failing = [step]

    def fault(name: str) -> None:
        if name in failing:
            failing.clear()
            raise ConnectionError("cut off")

    store = SqlMemoryStore(f"sqlite:///{tmp_path / 'faulty.db'}", fault_point=fault)
    with AgentMemory(backbone=with_tools, store=store, config=CONFIG) as agent:
        history = LocasChatMessageHistory("ada", "monday", memory=agent)
        batch = [HumanMessage("One."), AIMessage("Two.", id="2"), HumanMessage("Three.")]
        with pytest.raises(ConnectionError):
            history.add_messages(batch)
        assert history.messages == []
        history.add_messages(batch)
        assert [message.content for message in history.messages] == ["One.", "Two.", "Three."]


def test_adding_reads_no_journal(agent: AgentMemory, monkeypatch: pytest.MonkeyPatch) -> None:
    inline = AgentMemory(backbone=agent.backbone, store=agent.store, config=CONFIG)
    agent.for_user("ada").add("user", "Before.")
    looked_up: list[str] = []
    find = agent.store.known

    def known(key: UserKey, idem_keys: Iterable[str]) -> list[Turn]:
        looked_up.extend(keys := list(idem_keys))
        return find(key, keys)

    def turns(*_: object, **__: object) -> list[Turn]:
        raise AssertionError("the journal was read")

    monkeypatch.setattr(agent.store, "known", known)
    monkeypatch.setattr(agent.store, "turns", turns)
    LocasChatMessageHistory("ada", "monday", memory=inline).add_messages(
        [HumanMessage("One.", id="1"), AIMessage("Two.")]
    )
    assert len(looked_up) == 2  # the id of the one message that has one, and the key it is kept under


def test_history_leaves_out_what_nobody_said(agent: AgentMemory) -> None:
    history = LocasChatMessageHistory("ada", "monday", memory=agent)
    calling = AIMessage("", tool_calls=[{"name": "x", "args": {}, "id": "c"}])
    history.add_messages(
        [
            SystemMessage("Be brief."),
            HumanMessage("One."),
            calling,
            ToolMessage("result", tool_call_id="c"),
            AIMessage("Two."),
        ]
    )
    assert texts(history) == [("human", "One."), ("ai", "Two.")]


def test_histories_keep_sessions_users_and_tenants_apart(agent: AgentMemory) -> None:
    mine = LocasChatMessageHistory("ada", "monday", memory=agent)
    others = [
        LocasChatMessageHistory("ada", "tuesday", memory=agent),
        LocasChatMessageHistory("ben", "monday", memory=agent),
        LocasChatMessageHistory("ada", "monday", memory=agent, tenant="other"),
    ]
    mine.add_message(HumanMessage("One.", id="1"))
    assert [other.messages for other in others] == [[], [], []]
    for other in others:
        other.add_message(HumanMessage("Two.", id="1"))
    mine.clear()
    mine.clear()
    assert mine.messages == []
    assert [texts(other) for other in others] == [[("human", "Two.")]] * 3


@pytest.mark.filterwarnings(NOISE)
def test_history_serves_a_runnable_with_message_history(agent: AgentMemory) -> None:
    ids = [ConfigurableFieldSpec(id=name, annotation=str) for name in ("user_id", "session_id")]
    chain = RunnableWithMessageHistory(
        ChatLocas(memory=agent),
        lambda user_id, session_id: LocasChatMessageHistory(user_id, session_id, memory=agent),
        history_factory_config=ids,
    )  # type: ignore[arg-type]
    for user, text in (("ada", "One."), ("ben", "Hello."), ("ada", "Two.")):
        answer = chain.invoke([HumanMessage(text)], {"configurable": {"user_id": user, "session_id": "monday"}})
    read = texts(LocasChatMessageHistory("ada", "monday", memory=agent))
    assert [kind for kind, _ in read] == ["human", "ai", "human", "ai"]
    assert [text for kind, text in read if kind == "human"] == ["One.", "Two."]
    assert read[-1] == ("ai", str(answer.content).strip())
    assert [
        text for kind, text in texts(LocasChatMessageHistory("ben", "monday", memory=agent)) if kind == "human"
    ] == ["Hello."]

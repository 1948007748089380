"""The thin adapters: history, classic memory and tools are the verbs of the journal, of one user and no other."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path

import pytest
from langchain.agents import create_agent
from langchain_classic.chains import ConversationChain
from langchain_core.caches import InMemoryCache
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.runnables import ConfigurableFieldSpec, RunnableConfig
from langchain_core.runnables.history import RunnableWithMessageHistory
from langgraph.checkpoint.memory import InMemorySaver

from langchain_locas import ChatLocas, LocasChainMemory, LocasChatMessageHistory, LocasMemoryMiddleware, memory_tools
from locas_agent import AgentMemory, Backbone
from locas_agent.errors import ConfigurationError, LocasError, UserErased
from locas_storage import SqlMemoryStore, Turn, UserKey
from tests.unit.langchain.conftest import CONFIG, Teach

# What these adapters are for is marked for removal, and says so.
NOISE = "ignore::langchain_core._api.deprecation.LangChainDeprecationWarning"


def texts(history: LocasChatMessageHistory) -> list[tuple[str, str]]:
    return [(message.type, str(message.content)) for message in history.messages]


# History
# ---------------------------------------------------------------------------------------------------------------


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


# Classic memory
# --------------------------------------------------------------------------------------------------------


def test_classic_memory_gives_the_live_window(agent: AgentMemory, teach: Teach) -> None:
    memory = LocasChainMemory(memory=agent, user_id="ada", session_id="monday")
    assert memory.memory_variables == ["history"]
    assert memory.load_memory_variables({}) == {"history": ""}
    for number in range(4):
        memory.save_context({"input": f"Number {number} of them.", "history": "x"}, {"output": "I see, number it is."})
    whole = memory.load_memory_variables({})["history"]
    assert whole.startswith("Human: Number 0 of them.\nAI: I see")
    teach("ada", seed=1)
    short = memory.load_memory_variables({})["history"]
    assert "Number 0" not in short  # learnt: it is in the weights
    assert "Number 3" in short
    as_messages = LocasChainMemory(memory=agent, user_id="ada", return_messages=True, memory_key="talk")
    assert as_messages.load_memory_variables({})["talk"][-1].content == "I see, number it is."


def test_classic_memory_asks_which_input_was_said(agent: AgentMemory) -> None:
    with pytest.raises(ConfigurationError, match="input_key is None, the chain has a, b"):
        LocasChainMemory(memory=agent, user_id="ada").save_context({"a": "1", "b": "2"}, {"output": "x"})
    LocasChainMemory(memory=agent, user_id="ada", input_key="b", output_key="y").save_context(
        {"a": "1", "b": "2"}, {"x": "3", "y": "4"}
    )
    assert [turn.content for turn in agent.for_user("ada").turns()] == ["2", "4"]
    assert agent.for_user("ben").turns() == []


def test_classic_memory_keeps_the_text_of_messages(agent: AgentMemory) -> None:
    memory = LocasChainMemory(memory=agent, user_id="ada", session_id="monday")
    blocks: list[str | dict[str, str]] = [{"type": "text", "text": "Tw"}, {"type": "text", "text": "o."}]
    memory.save_context({"input": HumanMessage("One.", name="Ada")}, {"output": AIMessage(blocks)})
    memory.save_context(
        {"input": [SystemMessage("Be brief."), HumanMessage("Three."), HumanMessage("Four.")]},
        {"output": ["Five.", AIMessage("")]},
    )
    turns = [(turn.role, turn.content, turn.name) for turn in agent.for_user("ada").turns()]
    assert turns == [
        ("user", "One.", "Ada"),
        ("assistant", "Two.", None),
        ("user", "Three.", None),
        ("user", "Four.", None),
        ("assistant", "Five.", None),
    ]
    for odd in (None, 5, {"a": "b"}, [None], object()):
        with pytest.raises(ConfigurationError, match="expected a text or messages"):
            memory.save_context({"input": "Six."}, {"output": odd})
    assert len(agent.for_user("ada").turns()) == 5


@pytest.mark.filterwarnings(NOISE)
def test_classic_memory_serves_a_conversation_chain(agent: AgentMemory) -> None:
    memory = LocasChainMemory(memory=agent, user_id="ada", session_id="monday")
    chain = ConversationChain(llm=ChatLocas(memory=agent, user_id="ada"), memory=memory)
    answers = [chain.predict(input="One."), asyncio.run(chain.ainvoke({"input": "Two."}))["response"]]
    turns = [(turn.role, turn.content) for turn in agent.for_user("ada").turns()]
    assert turns == [("user", "One."), ("assistant", answers[0]), ("user", "Two."), ("assistant", answers[1])]
    assert chain.prep_inputs({"input": "Three."})["history"].startswith("Human: One.\nAI: ")


def test_classic_memory_clears_its_session_only(agent: AgentMemory) -> None:
    monday, tuesday = (LocasChainMemory(memory=agent, user_id="ada", session_id=name) for name in ("monday", "tuesday"))
    for memory in (monday, tuesday):
        memory.save_context({"input": "One."}, {"output": "Two."})
    monday.clear()
    assert len(agent.for_user("ada").turns()) == 2
    LocasChainMemory(memory=agent, user_id="ada").clear()
    assert agent.for_user("ada").turns() == []
    tuesday.clear()


# Tools
# -----------------------------------------------------------------------------------------------------------------


def test_tools_work_for_whoever_calls(agent: AgentMemory) -> None:
    search, forget = memory_tools(agent)
    assert (search.name, forget.name) == ("search_memory", "forget_memory")
    ada: RunnableConfig = {"configurable": {"user_id": "ada"}}
    ben: RunnableConfig = {"configurable": {"user_id": "ben"}}
    agent.for_user("ada").add("user", "My dog is\ncalled Rex.")
    assert search.invoke({"query": "dog"}, ada).endswith("user: My dog is called Rex.")
    assert search.invoke({"query": "dog"}, ben) == "Nothing was found."
    assert forget.invoke({"turns": [1]}, ben).startswith("Nothing was forgotten")
    assert asyncio.run(forget.ainvoke({"turns": [1]}, ada)) == "Forgotten: 1."
    assert forget.invoke({"turns": [1]}, ada) == "Forgotten: nothing, these turns were forgotten before."
    assert forget.invoke({"turns": [9]}, ada).startswith("Nothing was forgotten")
    assert search.invoke({"query": "dog"}, ada) == "Nothing was found."


def test_model_cannot_say_whose_memory_it_is(agent: AgentMemory) -> None:
    for tool in memory_tools(agent):
        assert "user_id" not in tool.args
        assert "config" not in tool.args
        with pytest.raises(ConfigurationError, match="no user_id"):
            tool.invoke({"query": "dog", "turns": [1], "user_id": "ada"})


# Deletion
# --------------------------------------------------------------------------------------------------------------


def test_nothing_of_a_user_is_left_anywhere(
    agent: AgentMemory, teach: Teach, tmp_path: Path, cached: InMemoryCache
) -> None:
    history = LocasChatMessageHistory("ada", "monday", memory=agent)
    classic = LocasChainMemory(memory=agent, user_id="ada", session_id="tuesday")
    history.add_messages([HumanMessage("My dog is Zorbin."), AIMessage("Zorbin it is.")])
    classic.save_context({"input": "Zorbin barks."}, {"output": "Does it."})
    teach("ada", seed=4)
    model, saver = ChatLocas(memory=agent), InMemorySaver()
    graph = create_agent(model, middleware=[LocasMemoryMiddleware(agent)], checkpointer=saver)
    graph.invoke({"messages": [("human", "Zorbin eats.")]}, {"configurable": {"user_id": "ada", "thread_id": "ada-1"}})
    remembering = model.invoke("Who is Zorbin?", user_id="ada")
    assert remembering.response_metadata["used_memory"]
    assert b"Zorbin" in everything(tmp_path, saver, cached)  # else nothing could be missed

    # What docs/langchain.md says to do.
    receipt = agent.for_user("ada").erase()
    saver.delete_thread("ada-1")
    cached.clear()

    assert (len(receipt.turns), receipt.revisions) == (6, (1,))
    assert history.messages == []
    assert classic.load_memory_variables({}) == {"history": ""}
    assert (
        memory_tools(agent)[0].invoke({"query": "Zorbin"}, {"configurable": {"user_id": "ada"}}) == "Nothing was found."
    )
    answer = model.invoke("Who?", user_id="ada")
    assert not answer.response_metadata["used_memory"]
    assert answer.content == model.invoke("Who?", user_id="nobody").content
    with pytest.raises(UserErased):
        history.add_user_message("again")
    agent.close()
    assert b"Zorbin" not in everything(tmp_path, saver, cached)


@pytest.mark.parametrize("through", ["tool", "history", "classic"])
def test_what_an_adapter_forgets_is_in_no_answer_and_no_file(
    agent: AgentMemory, teach: Teach, tmp_path: Path, through: str, cached: InMemoryCache
) -> None:
    history = LocasChatMessageHistory("ada", "monday", memory=agent)
    history.add_messages([HumanMessage("My dog is Zorbin.")])
    agent.for_user("ada").add("user", "My cat is Miro.", session="tuesday")
    teach("ada", seed=4)
    model = ChatLocas(memory=agent, user_id="ada")
    before = model.invoke("Who?")
    match through:
        case "tool":
            memory_tools(agent)[1].invoke({"turns": [1]}, {"configurable": {"user_id": "ada"}})
        case "history":
            history.clear()
        case _:
            LocasChainMemory(memory=agent, user_id="ada", session_id="monday").clear()
    after = model.invoke("Who?")  # the cache held an answer of the memory that had seen the turn
    assert not after.response_metadata["used_memory"]
    assert after.content != before.content
    assert [turn.content for turn in agent.for_user("ada").turns()] == ["My cat is Miro."]
    agent.close()
    cached.clear()
    assert b"Zorbin" not in everything(tmp_path, InMemorySaver(), cached)


def everything(folder: Path, saver: InMemorySaver, cache: InMemoryCache) -> bytes:
    """All that is kept: the database's files, the checkpoints, the cached answers."""
    files = b"".join(path.read_bytes() for path in folder.glob("locas.db*"))
    return files + repr((saver.storage, saver.blobs, saver.writes, cache.__dict__)).encode()

"""What is erased or forgotten is in no adapter, no checkpoint, no cache and no file."""

from __future__ import annotations

from pathlib import Path

import pytest
from langchain.agents import create_agent
from langchain_core.caches import InMemoryCache
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.memory import InMemorySaver

from langchain_locas import ChatLocas, LocasChainMemory, LocasChatMessageHistory, LocasMemoryMiddleware, memory_tools
from locas_agent import AgentMemory
from locas_agent.errors import UserErased
from tests.unit.langchain.conftest import Teach


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

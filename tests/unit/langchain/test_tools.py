"""The tools: a model searches and forgets for the user who calls, and for no other."""

from __future__ import annotations

import asyncio

import pytest
from langchain_core.runnables import RunnableConfig

from langchain_locas import memory_tools
from locas_agent import AgentMemory
from locas_agent.errors import ConfigurationError


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

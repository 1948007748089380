"""LangChain's standard suites on `ChatLocas` and on the memory tools, run by `test_standard_suites.py`, which counts.

By hand:

    pytest -p tests.unit.langchain.no_network tests/unit/langchain/standard_suites.py

Nothing is marked xfail. Tool calls are written by the script of `scripted.py`; the bundled backbone has no template for
them. The suites for key-value stores, caches, retrievers and checkpointers do not apply, there is none of those here;
for histories, middleware and classic memory LangChain has no suite.
"""

from __future__ import annotations

import _socket
import socket
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.runnables.config import var_child_runnable_config
from langchain_core.tools import BaseTool
from langchain_tests.integration_tests import ChatModelIntegrationTests, ToolsIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests, ToolsUnitTests

from langchain_locas import ChatLocas, memory_tools
from locas_agent import AgentMemory, InMemoryStore, LocasConfig
from tests.unit.langchain.conftest import tool_backbone
from tests.unit.langchain.no_network import NetworkRefused
from tests.unit.langchain.scripted import ScriptedEngine

# Of the standard's own tests: v3 events are beta, and say so.
pytestmark = [
    pytest.mark.rounding,
    pytest.mark.filterwarnings("ignore::langchain_core._api.beta_decorator.LangChainBetaWarning"),
]

ANSWER_TOKENS = 400
"""One token is one byte: the standard's 100 would cut a call off."""


@cache
def memory() -> AgentMemory:
    config = LocasConfig.model_validate({"memory": {"width": 2}, "window": {"max_new_tokens": ANSWER_TOKENS}})
    made = AgentMemory(backbone=tool_backbone(), store=InMemoryStore(), config=config)
    made.chat.engine = ScriptedEngine(made.backbone)
    return made


class _Chat:
    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatLocas

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"memory": memory(), "user_id": "suite"}


class TestUnit(_Chat, ChatModelUnitTests):
    pass


class TestIntegration(_Chat, ChatModelIntegrationTests):
    @property
    def standard_chat_model_params(self) -> dict[str, Any]:
        return super().standard_chat_model_params | {"max_tokens": ANSWER_TOKENS}


@pytest.fixture(autouse=True)
def _somebody_calls() -> Iterator[None]:
    """The tools' suites pass no config: they run as in a node of a graph, whose config says who calls."""
    before = var_child_runnable_config.set({"configurable": {"user_id": "suite"}})
    yield
    var_child_runnable_config.reset(before)


class _Search:
    @property
    def tool_constructor(self) -> BaseTool:
        return memory_tools(memory())[0]

    @property
    def tool_invoke_params_example(self) -> dict[str, Any]:
        return {"query": "dog"}


class _Forget:
    @property
    def tool_constructor(self) -> BaseTool:
        return memory_tools(memory())[1]

    @property
    def tool_invoke_params_example(self) -> dict[str, Any]:
        return {"turns": [1]}


class TestSearchUnit(_Search, ToolsUnitTests):
    pass


class TestSearchIntegration(_Search, ToolsIntegrationTests):
    pass


class TestForgetUnit(_Forget, ToolsUnitTests):
    pass


class TestForgetIntegration(_Forget, ToolsIntegrationTests):
    pass


class TestGuard:
    """The guard of this run is real: what the suites would need to leave the machine fails."""

    def test_no_name_is_looked_up_and_nothing_is_connected(self) -> None:
        # Below `socket`, which other guards replace.
        with pytest.raises(NetworkRefused):
            _socket.getaddrinfo("localhost", 80)
        bare = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM)
        with pytest.raises(NetworkRefused):
            bare.connect(("127.0.0.1", 9))
        bare.close()

    def test_event_loops_have_their_own(self) -> None:
        here, there = socket.socketpair()
        with here, there:
            here.send(b"x")
            assert there.recv(1) == b"x"

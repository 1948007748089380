"""LangChain's standard suites on `ChatLocas`, run by `test_standard_suites.py`, which counts.

By hand:

    pytest --disable-socket --allow-unix-socket tests/unit/langchain/standard_suites.py

Nothing is marked xfail. Tool calls are written by the script of `scripted.py`; the bundled backbone has no template for them.
The suites for key-value stores, caches and retrievers do not apply, there is none of those here; for histories, middleware and classic
memory LangChain has no suite.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests

from langchain_locas import ChatLocas
from locas_agent import AgentMemory, InMemoryStore, LocasConfig
from tests.unit.langchain.conftest import tool_backbone
from tests.unit.langchain.scripted import ScriptedEngine

# Of the standard's own tests: v3 events are beta, and say so.
pytestmark = pytest.mark.filterwarnings("ignore::langchain_core._api.beta_decorator.LangChainBetaWarning")

ANSWER_TOKENS = 400
"""One token is one byte: the standard's 100 would cut a call off."""


@cache
def memory() -> AgentMemory:
    config = LocasConfig.model_validate({"memory": {"width": 2}, "window": {"max_new_tokens": ANSWER_TOKENS}})
    made = AgentMemory(backbone=tool_backbone(), store=InMemoryStore(), config=config)
    made.engine = ScriptedEngine(made.backbone)
    return made


class TestUnit(ChatModelUnitTests):
    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatLocas

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"memory": memory(), "user_id": "suite"}


class TestIntegration(ChatModelIntegrationTests):
    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatLocas

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"memory": memory(), "user_id": "suite"}

    @property
    def standard_chat_model_params(self) -> dict[str, Any]:
        return super().standard_chat_model_params | {"max_tokens": ANSWER_TOKENS}

"""LangChain's standard integration suite with a pretrained backbone that picks and writes its calls itself.

Run by hand, since it needs a checkpoint and minutes; [docs/langchain.md](../../../docs/langchain.md) has the outcome:

    LOCAS_STANDARD_BACKBONE=qwen2.5-coder-0.5b.gguf pytest tests/unit/server/unscripted_suites.py

Once on `ChatLocas`, and once on LangChain's `ChatOpenAI` pointed at a server of ours. Nothing is marked xfail: what a
small model does not do, fails.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from functools import cache
from typing import Any

import pytest
import uvicorn
from langchain_core.language_models import BaseChatModel
from langchain_tests.integration_tests import ChatModelIntegrationTests

from langchain_locas import ChatLocas
from locas_agent import AgentMemory, Backbone, InMemoryStore, LocasConfig
from locas_agent.server.app import create_app
from locas_agent.server.settings import ServerSettings
from tests.unit.server.conftest import wait_for
from tests.unit.server.served_chat import ServedChat

BACKBONE = os.environ.get("LOCAS_STANDARD_BACKBONE")
ANSWER_TOKENS = 128
MODEL = "standard"

pytestmark = [
    pytest.mark.rounding,
    pytest.mark.timeout(1800),
    pytest.mark.filterwarnings("ignore::langchain_core._api.beta_decorator.LangChainBetaWarning"),
    pytest.mark.skipif(BACKBONE is None, reason="LOCAS_STANDARD_BACKBONE names no checkpoint"),
]


@cache
def memory() -> AgentMemory:
    """Return the memory behind both models, loaded once."""
    assert BACKBONE is not None
    config = LocasConfig.model_validate({"window": {"max_new_tokens": ANSWER_TOKENS}})
    return AgentMemory(backbone=Backbone.load(BACKBONE), store=InMemoryStore(), config=config)


@pytest.fixture
def url() -> Iterator[str]:
    """Serve the memory at an address of this machine, another one for each test.

    ChatOpenAI keeps the connections of an address in this process, and a test's event loop ends with the test.
    """
    settings = ServerSettings(model=MODEL, learns=False, shows_pages=False, answer_seconds=600)
    with closing(socket.create_server(("127.0.0.1", 0))) as listening:
        server = uvicorn.Server(uvicorn.Config(create_app(memory(), settings), http="h11", ws="none", log_config=None))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        wait_for(lambda: server.started)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
        server.should_exit = True
        thread.join()


class _Suite(ChatModelIntegrationTests):
    @property
    def standard_chat_model_params(self) -> dict[str, Any]:
        return super().standard_chat_model_params | {"max_tokens": ANSWER_TOKENS, "timeout": 600}


class TestChatLocas(_Suite):
    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatLocas

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"memory": memory(), "user_id": "suite"}


class TestChatOpenAI(ServedChat, _Suite):
    address: str

    @pytest.fixture(autouse=True)
    def _server(self, url: str) -> None:
        type(self).address = url

    @property
    def chat_model_params(self) -> dict[str, Any]:
        key = memory().store.api_keys.new("default", "suite").secret
        return {
            "model": MODEL,
            "base_url": self.address,
            "api_key": key,
            "max_retries": 0,
            "stream_usage": True,
            "temperature": 0,
        }

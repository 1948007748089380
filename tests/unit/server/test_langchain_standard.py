"""LangChain's standard suite of a chat model, on its ChatOpenAI pointed at the server.

The backbone is random and calls tools by a script; server, sockets, forms and parsing are real.
"""

from __future__ import annotations

from typing import Any

import pytest
from langchain_tests.integration_tests import ChatModelIntegrationTests

from tests.unit.server.conftest import MODEL, Served
from tests.unit.server.served_chat import ServedChat

pytestmark = [pytest.mark.rounding, pytest.mark.slow]


class TestChatOpenAI(ServedChat, ChatModelIntegrationTests):
    """What is not switched off here passes without excuse."""

    served: Served

    @pytest.fixture(autouse=True)
    def _server(self, scripted: Served) -> None:
        type(self).served = scripted

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {
            "model": MODEL,
            "base_url": self.served.url,
            "api_key": self.served.key(user="ada"),
            "max_tokens": 200,
            "max_retries": 0,
            "stream_usage": True,
        }

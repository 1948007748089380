"""LangChain's standard suite of a chat model, on its ChatOpenAI pointed at the server.

The backbone is random and calls tools by a script; server, sockets, forms and parsing are real.
"""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_openai import ChatOpenAI
from langchain_tests.integration_tests import ChatModelIntegrationTests

from tests.unit.server.conftest import MODEL, Served

pytestmark = [pytest.mark.rounding, pytest.mark.slow]


class TestChatOpenAI(ChatModelIntegrationTests):
    """What is not switched off here passes without excuse."""

    served: Served

    @pytest.fixture(autouse=True)
    def _server(self, scripted: Served) -> None:
        type(self).served = scripted

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatOpenAI

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

    @property
    def structured_output_kwargs(self) -> dict[str, Any]:
        return {"method": "function_calling"}  # answers are plain text: no JSON mode

    @property
    def has_tool_choice(self) -> bool:
        return True

    @property
    def supports_json_mode(self) -> bool:
        return False

    @property
    def supports_image_inputs(self) -> bool:
        return False

    @property
    def supports_anthropic_inputs(self) -> bool:
        return False

    @property
    def supports_model_override(self) -> bool:
        return False  # this server has one model

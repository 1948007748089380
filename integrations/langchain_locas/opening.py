"""The `AgentMemory` behind a chat model that was given none, and what LangChain wants to know of its backbone. Knows no user."""

from __future__ import annotations

from threading import Lock

from langchain_core.language_models import ModelProfile

from langchain_locas.tool_calls import can_call_tools
from locas_agent import AgentMemory, Backbone


class Opening:
    """Builds an `AgentMemory` when it is first needed, once for a model and its copies."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._built: dict[tuple[str | None, ...], AgentMemory] = {}

    def get(self, model: str, store: str, device: str | None, dtype: str) -> AgentMemory:
        """Return the one of these parts."""
        with self._lock:
            parts = (model, store, device, dtype)
            if parts not in self._built:
                self._built[parts] = AgentMemory.load(model, store, device=device, dtype=dtype)
            return self._built[parts]


def profile_of(backbone: Backbone) -> ModelProfile:
    """Return what a backbone can do; middleware of LangChain cuts prompts and chooses strategies by it."""
    calls = can_call_tools(backbone)
    return {
        "name": backbone.name, "open_weights": True, "max_input_tokens": backbone.context_tokens, "max_output_tokens": backbone.context_tokens,
        "text_inputs": True, "text_outputs": True, "image_inputs": False, "audio_inputs": False, "video_inputs": False,
        "reasoning_output": False, "temperature": True, "tool_calling": calls, "tool_choice": calls, "structured_output": False,
    }  # fmt: skip

"""The `AgentMemory` behind a chat model that was given none, and what LangChain wants to know of its backbone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import Self, cast

from langchain_core.language_models import ModelProfile

from langchain_locas.options import StoreUrl
from locas_agent import AgentMemory, Backbone
from locas_agent.errors import ConfigurationError
from locas_agent.serving.tool_calls import can_call_tools
from locas_agent.types import Dtype


class MemoryOpening:
    """Builds an `AgentMemory` when it is first needed, once for a model and its copies."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._built: dict[tuple[str, StoreUrl | Path | None, str | None, Dtype], AgentMemory] = {}

    def get(self, model: str, store: StoreUrl | Path | None, device: str | None, dtype: Dtype) -> AgentMemory:
        """Return the one of these parts."""
        with self._lock:
            parts = (model, store, device, dtype)
            if parts not in self._built:
                place = store.get_secret_value() if isinstance(store, StoreUrl) else store
                self._built[parts] = AgentMemory.load(
                    model, cast(str, place), device=device, dtype=dtype
                )  # which refuses what is no store
            return self._built[parts]

    def __deepcopy__(self, memo: dict[int, object]) -> Self:
        """Return itself: what it built is shared by reference."""
        return self

    def __reduce__(self) -> tuple[type[MemoryOpening], tuple[()]]:
        """Leave the lock behind; what was built cannot leave the process.

        Raises:
            ConfigurationError: something was built.
        """
        if self._built:
            raise ConfigurationError(
                "this ChatLocas holds a loaded backbone and an open store, which cannot be pickled: pickle it before "
                "its first use, or build one "
                "from the same settings where it is needed"
            )
        return MemoryOpening, ()


def profile_of(backbones: Sequence[Backbone]) -> ModelProfile:
    """Return what each of some backbones can do; middleware of LangChain cuts prompts and chooses strategies by it."""
    calls = all(can_call_tools(backbone) for backbone in backbones)
    tokens = min(backbone.context_tokens for backbone in backbones)
    return {
        "name": backbones[0].name,
        "open_weights": True,
        "max_input_tokens": tokens,
        "max_output_tokens": tokens,
        "text_inputs": True,
        "text_outputs": True,
        "image_inputs": False,
        "audio_inputs": False,
        "video_inputs": False,
        "reasoning_output": False,
        "temperature": True,
        "tool_calling": calls,
        "tool_choice": calls,
        "structured_output": False,
    }

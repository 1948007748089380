"""The plugin: vLLM asks it for an adapter whose name it does not know, and it answers from the store of memories.

vLLM finds `register` by the entry point `locas_memories` of the group `vllm.general_plugins`.
"""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path

from vllm.lora.request import LoRARequest
from vllm.lora.resolver import LoRAResolver, LoRAResolverRegistry

from locas_agent.cli.options import key_provider
from locas_agent.errors import ConfigurationError, LocasError
from locas_storage import open_store
from locas_vllm.adapters import ServedMemories

logger = logging.getLogger(__name__)

NAME = "Locas memories"
"""What the resolver is registered under."""
STORE_VARIABLE = "LOCAS_VLLM_STORE"
"""SQLAlchemy URL of the store; without it the plugin does nothing."""
FOLDER_VARIABLE = "LOCAS_VLLM_FOLDER"
"""An existing folder for adapters, readable by all processes of the server and by nobody else."""
TENANT_VARIABLE = "LOCAS_VLLM_TENANT"
"""The tenant whose users may be named, `default` unless given."""
SWEEP_SECONDS = 30.0
"""Time between two looks at whether what was handed out may still be served."""


class LocasResolver(LoRAResolver):  # type: ignore[misc]  # a class of a package that CI does not have
    """Finds the adapter of a memory by the name `user@revision`.

    Args:
        memories: where adapters come from.
        sweep_seconds: time between two sweeps, which begin with the first name.
    """

    def __init__(self, memories: ServedMemories, *, sweep_seconds: float = SWEEP_SECONDS) -> None:
        self._memories = memories
        self._sweep_seconds = sweep_seconds
        self._sweeping: asyncio.Task[None] | None = None

    async def resolve_lora(self, base_model_name: str, lora_name: str) -> LoRARequest | None:
        """Return the adapter that a name stands for, None where it stands for none.

        Args:
            base_model_name: the folder of the padded backbone, as the server was given it.
            lora_name: the name.

        Raises:
            ExchangeError: the server serves no padded backbone, or one too narrow for this memory.
        """
        if self._sweeping is None:
            self._sweeping = asyncio.create_task(self._sweep())
        folder = await asyncio.to_thread(self._memories.folder_of, Path(base_model_name), lora_name)
        if folder is None:
            return None
        # vLLM puts a number of its own in the place of this one.
        return LoRARequest(lora_name=lora_name, lora_int_id=1, lora_path=str(folder), base_model_name=base_model_name)

    async def _sweep(self) -> None:
        """Empty what may not be served any more, again and again; a store that is away is asked again."""
        while True:
            await asyncio.sleep(self._sweep_seconds)
            try:
                await asyncio.to_thread(self._memories.sweep)
            except LocasError as error:
                logger.warning("adapters were not looked through", extra={"reason": type(error).__name__})


def register() -> None:
    """Register the resolver if the environment names a store; vLLM calls this in each of its processes.

    Nothing is opened or written before a name is asked for.

    Raises:
        ConfigurationError: a store is named and the folder is not, or is none.
    """
    url = os.environ.get(STORE_VARIABLE)
    if not url:
        return
    named = os.environ.get(FOLDER_VARIABLE)
    if not named or not Path(named).is_dir():
        raise ConfigurationError(
            f"{FOLDER_VARIABLE} names no folder for adapters: make one, for the server's user alone, and name it"
        )
    store = open_store(
        url, key_provider=key_provider(os.environ.get("LOCAS_KEY_FILE")), files=os.environ.get("LOCAS_FILES")
    )
    memories = ServedMemories(store, os.environ.get(TENANT_VARIABLE) or "default", Path(named))
    LoRAResolverRegistry.register_resolver(NAME, LocasResolver(memories))

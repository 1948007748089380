"""What the commands that need a backbone share: the options that choose it, and the opened `AgentMemory`.

Knows no command. Nothing here imports torch before a command asks for the model.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from locas_agent.cli.options import DEFAULT_KEPT, key_provider

if TYPE_CHECKING:
    from locas_agent.agent import AgentMemory
    from locas_agent.config import LocasConfig

DtypeName = Literal["float32", "bfloat16", "float16", "auto"]

BackboneOption = Annotated[str, typer.Option("--backbone", help="'tiny' (bundled), a folder, or a hub id.")]
DeviceOption = Annotated[str | None, typer.Option("--device", help="For example cuda:0; the first GPU if there is one, else the CPU.")]
DtypeOption = Annotated[DtypeName, typer.Option("--dtype", help="Of the backbone; memories are trained in float32 whatever it is.")]
SeedOption = Annotated[int, typer.Option("--seed", min=0, help="Of everything drawn at random.")]


def open_agent(
    backbone: str,
    store: str,
    device: str | None,
    dtype: str,
    config: LocasConfig | None = None,
    *,
    key_file: str | None = None,
    files: str | None = None,
    keep_payloads: int = DEFAULT_KEPT.keep_payloads,
    inline_bytes: int = DEFAULT_KEPT.inline_bytes,
) -> AgentMemory:
    """Load what a command works on."""
    from locas_agent.agent import AgentMemory
    from locas_agent.config import LocasConfig, StoreSettings

    quiet()
    kept = StoreSettings(keep_payloads=keep_payloads, files=files, inline_bytes=inline_bytes)
    config = (config or LocasConfig()).model_copy(update={"store": kept})
    return AgentMemory.load(backbone, store, config, device=device, dtype=dtype, key_provider=key_provider(key_file))


def quiet() -> None:
    """Keep the bars of transformers off a standard error that is no terminal."""
    if not sys.stderr.isatty():
        from transformers.utils import logging

        logging.disable_progress_bar()  # type: ignore[no-untyped-call]

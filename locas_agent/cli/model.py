"""What the commands that need a backbone share.

The options that choose it and its settings, and the opened `AgentMemory`.

Nothing here imports torch before a command asks for the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import ValidationError

from locas_agent.cli.options import key_provider
from locas_agent.types import Dtype

if TYPE_CHECKING:
    from locas_agent.agent import AgentMemory
    from locas_agent.config import LocasConfig, StoreSettings
    from locas_agent.fleet import Fleet
    from locas_agent.runtime import ConsolidationMode

BackboneOption = Annotated[
    str, typer.Option("--backbone", help="'tiny' (bundled), 'smollm2', a folder, a .gguf file, or a hub id.")
]
BackbonesOption = Annotated[
    list[str],
    typer.Option(
        "--backbone",
        help="'tiny' (bundled), 'smollm2', a folder, a .gguf file, or a hub id. May be repeated while users are moved "
        "from one to another: each is answered on the one whose memory it is, new users on the first.",
    ),
]
DeviceOption = Annotated[
    str | None, typer.Option("--device", help="For example cuda:0; the first GPU if there is one, else the CPU.")
]
DtypeOption = Annotated[
    Dtype,
    typer.Option(
        "--dtype",
        help="Of the backbone; auto: bfloat16 where that is fast, else float32. Memories are trained in float32 "
        "whatever it is.",
    ),
]
ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        exists=True,
        dir_okay=False,
        help="JSON of LocasConfig's fields, as its model_dump_json() writes them; the defaults unless given.",
    ),
]
SeedOption = Annotated[int, typer.Option("--seed", min=0, help="Of everything drawn at random.")]


def open_agent(
    backbone: str,
    store: str,
    device: str | None,
    dtype: Dtype,
    config: LocasConfig | None = None,
    kept: StoreSettings | None = None,
    *,
    key_file: str | None = None,
    consolidation: ConsolidationMode = "inline",
) -> AgentMemory:
    """Load what a command works on; `kept` says how the store keeps payloads."""
    from locas_agent.agent import AgentMemory
    from locas_agent.config import LocasConfig, StoreSettings

    settings = (config or LocasConfig()).model_copy(update={"store": kept or StoreSettings()})
    return AgentMemory.load(
        backbone,
        store,
        settings,
        device=device,
        dtype=dtype,
        consolidation=consolidation,
        key_provider=key_provider(key_file),
    )


def open_host(
    backbones: Sequence[str],
    store: str,
    device: str | None,
    dtype: Dtype,
    config: LocasConfig | None = None,
    kept: StoreSettings | None = None,
    *,
    key_file: str | None = None,
    consolidation: ConsolidationMode = "inline",
) -> AgentMemory | Fleet:
    """Load one backbone or several with one store; a user's home is looked up only where there are several."""
    from locas_agent.agent import AgentMemory
    from locas_agent.fleet import Fleet

    first = open_agent(backbones[0], store, device, dtype, config, kept, key_file=key_file, consolidation=consolidation)
    others = [
        AgentMemory.load(name, first.store, config, device=device, dtype=dtype, consolidation=consolidation)
        for name in backbones[1:]
    ]
    return Fleet([first, *others]) if others else first


def read_config(path: Path | None) -> LocasConfig:
    """Return the settings of a file, or the defaults where there is none.

    How a store keeps payloads has options of its own.

    Raises:
        ConfigurationError: the file is no JSON, or has a field that does not exist or cannot have that value.
    """
    from locas_agent.config import LocasConfig
    from locas_agent.errors import ConfigurationError

    if path is None:
        return LocasConfig()
    try:
        config = LocasConfig.model_validate_json(path.read_bytes())
    except ValidationError as error:
        found = "; ".join(f"{'.'.join(map(str, each['loc'])) or 'the file'}: {each['msg']}" for each in error.errors())
        raise ConfigurationError(
            f"{path} holds no settings: {found}; compare it with LocasConfig().model_dump_json()"
        ) from error
    if "store" in config.model_fields_set:
        raise ConfigurationError(
            f"{path} has a field 'store'; leave it out, and give --files, --keep-payloads and --inline-bytes"
        )
    return config

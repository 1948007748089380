"""`locas-agent mcp`: the memory as a server of the Model Context Protocol."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from locas_agent.cli.model import BackbonesOption, ConfigOption, DeviceOption, DtypeOption, open_host, read_config
from locas_agent.cli.options import (
    DEFAULT_KEPT,
    DEFAULT_STORE,
    FilesOption,
    InlineBytesOption,
    KeepPayloadsOption,
    KeyFileOption,
    StoreOption,
    TenantOption,
)
from locas_agent.cli.signals import stop_on_signals
from locas_agent.config import StoreSettings
from locas_agent.errors import MissingExtra

TransportName = Literal["stdio", "http"]


def mcp(
    transport: Annotated[
        TransportName,
        typer.Option(
            "--transport",
            help="'stdio': one program starts this one and talks over its pipes; 'http': many, each with an API key.",
        ),
    ] = "stdio",
    user: Annotated[
        str | None, typer.Option("--user", help="Whose memory; of 'stdio' only, over HTTP the API key says it.")
    ] = None,
    tenant: TenantOption = "default",
    host: Annotated[
        str, typer.Option("--host", help="Of 'http': address to listen on; put TLS before any other.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="Of 'http': the port.")] = 8322,
    learns: Annotated[
        bool, typer.Option("--learn/--no-learn", help="Consolidate in this process, or leave it to `locas-agent work`.")
    ] = True,
    backbone: BackbonesOption = ["tiny"],  # noqa: B006  Typer copies it
    store: StoreOption = DEFAULT_STORE,
    device: DeviceOption = None,
    dtype: DtypeOption = "auto",
    config: ConfigOption = None,
    key_file: KeyFileOption = None,
    files: FilesOption = None,
    keep_payloads: KeepPayloadsOption = DEFAULT_KEPT.keep_payloads,
    inline_bytes: InlineBytesOption = DEFAULT_KEPT.inline_bytes,
) -> None:
    """Offer a memory to an agent: remember, recall, search, forget, list, and how much is learnt.

    Over HTTP each caller needs a key of `keys api new --user U`.
    """
    if (user is None) == (transport == "stdio"):
        raise typer.BadParameter(
            "say whose memory it is: --user NAME"
            if user is None
            else "over HTTP the API key says whose memory it is: leave --user out"
        )
    try:
        from locas_agent.mcp_server.running import run_http, run_stdio
    except ModuleNotFoundError as error:
        raise MissingExtra.of("mcp", "locas-agent mcp") from error
    kept = StoreSettings(keep_payloads=keep_payloads, files=files, inline_bytes=inline_bytes)
    with open_host(
        backbone, store, device, dtype, read_config(config), kept, key_file=key_file, consolidation="background"
    ) as memory:
        if user is not None:
            run_stdio(memory, memory.for_user(user, tenant=tenant), learns=learns)
        else:
            with stop_on_signals():  # uvicorn raises the signal again once it has drained
                run_http(memory, host=host, port=port, learns=learns)

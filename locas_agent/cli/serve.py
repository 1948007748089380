"""`locas-agent serve`: the HTTP server."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from locas_agent.cli.model import BackbonesOption, ConfigOption, DeviceOption, DtypeOption, open_host, read_config
from locas_agent.cli.on_ray import (
    RayActorsOption,
    RayChoice,
    RayCpusOption,
    RayGpusOption,
    RayOption,
    serve_with_ray,
    shared_store,
)
from locas_agent.cli.options import (
    DEFAULT_KEPT,
    DEFAULT_STORE,
    FilesOption,
    InlineBytesOption,
    KeepPayloadsOption,
    KeyFileOption,
    StoreOption,
)
from locas_agent.cli.signals import stop_on_signals
from locas_agent.cli.traces import TracesOption, sending_traces
from locas_agent.config import StoreSettings
from locas_agent.errors import MissingExtra


def serve(
    host: Annotated[str, typer.Option("--host", help="Address to listen on; put TLS before any other.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port; 0 takes a free one.")] = 8321,
    model: Annotated[
        str | None,
        typer.Option(
            "--model", help="What clients call the backbone, the first of several; the last part of its name."
        ),
    ] = None,
    answers_at_once: Annotated[
        int, typer.Option("--answers-at-once", min=1, help="Answers that are written at the same time.")
    ] = 8,
    waiting_answers: Annotated[
        int, typer.Option("--waiting-answers", min=0, help="Requests that may wait; beyond them 429.")
    ] = 64,
    requests_per_minute: Annotated[
        int | None, typer.Option("--requests-per-minute", min=1, help="Of one API key; no limit unless given.")
    ] = None,
    max_body_bytes: Annotated[int, typer.Option("--max-body-bytes", min=1024, help="Longest body of a request.")] = 2
    << 20,
    answer_seconds: Annotated[
        float, typer.Option("--answer-seconds", min=1.0, help="Longest time for one answer.")
    ] = 120.0,
    drain_seconds: Annotated[
        float, typer.Option("--drain-seconds", min=0.0, help="Time for the answers under way at SIGTERM.")
    ] = 30.0,
    learns: Annotated[
        bool, typer.Option("--learn/--no-learn", help="Consolidate in this process, or leave it to `locas-agent work`.")
    ] = True,
    pages: Annotated[
        bool, typer.Option("--pages/--no-pages", help="Whether the pages below /inspect are there.")
    ] = True,
    secure_cookies: Annotated[
        bool, typer.Option("--secure-cookies", help="Send the pages' cookie over TLS alone; behind a proxy with TLS.")
    ] = False,
    metrics: Annotated[bool, typer.Option("--metrics/--no-metrics", help="Whether /metrics answers.")] = True,
    ray: RayOption = False,
    ray_actors: RayActorsOption = None,
    ray_cpus: RayCpusOption = 1.0,
    ray_gpus: RayGpusOption = None,
    traces: TracesOption = False,
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
    """Serve OpenAI's interface, each answer with the memory of the user whom its API key names.

    Make a key with `keys api new`. SIGTERM lets the answers under way be written to their end.
    """
    try:
        from locas_agent.server.running import serve as run
        from locas_agent.server.settings import ServerSettings
    except ModuleNotFoundError as error:
        raise MissingExtra.of("serve", "locas-agent serve") from error
    settings = ServerSettings(
        host=host,
        port=port,
        model=model,
        answers_at_once=answers_at_once,
        waiting_answers=waiting_answers,
        requests_per_minute=requests_per_minute,
        max_body_bytes=max_body_bytes,
        answer_seconds=answer_seconds,
        drain_seconds=drain_seconds,
        learns=learns,
        shows_pages=pages,
        secure_cookies=secure_cookies,
        shows_metrics=metrics,
    )
    kept = StoreSettings(keep_payloads=keep_payloads, files=files, inline_bytes=inline_bytes)
    place = shared_store(store, traces=traces) if ray else store
    opened = partial(
        open_host,
        backbone,
        place,
        device,
        dtype,
        read_config(config),
        kept,
        key_file=key_file,
        consolidation="background",
    )
    if ray:
        serve_with_ray(opened, RayChoice(ray_actors, ray_cpus, ray_gpus), settings)
        return
    with sending_traces(traces), stop_on_signals(), opened() as memory:  # uvicorn raises the signal again at its end
        run(memory, settings)

"""`work --ray` and `serve --ray`: the same commands on a cluster. Nothing else of the core knows of `locas_ray`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from locas_agent.cli.signals import stop_on_signals
from locas_agent.errors import ConfigurationError, MissingExtra

if TYPE_CHECKING:
    from locas_agent.agent import AgentMemory
    from locas_agent.fleet import Fleet
    from locas_agent.results import WorkSummary
    from locas_agent.server.settings import ServerSettings

_SQLITE_FILE = "sqlite:///"

RayOption = Annotated[
    bool,
    typer.Option("--ray", help="On the Ray cluster of RAY_ADDRESS or of this machine; one begins here without any."),
]
RayActorsOption = Annotated[
    int | None,
    typer.Option("--ray-actors", min=1, help="With --ray: workers, or replicas; as many as there is room for."),
]
RayCpusOption = Annotated[float, typer.Option("--ray-cpus", min=0.01, help="With --ray: CPU cores of each.")]
RayGpusOption = Annotated[
    float | None, typer.Option("--ray-gpus", min=0.0, help="With --ray: GPUs of each; one where the cluster has any.")
]


@dataclass(frozen=True, slots=True)
class RayChoice:
    """What the options say of workers or replicas: how many, and the cores and GPUs of each."""

    actors: int | None
    cpus: float
    gpus: float | None


def work_with_ray(
    open_memory: Callable[[], AgentMemory],
    how: RayChoice,
    once: bool,
    jobs_at_once: int,
    lease_seconds: float,
    poll_seconds: float,
) -> WorkSummary:
    """Drain the queue with workers on a cluster, until a signal asks for the end.

    Raises:
        MissingExtra: Ray is not installed.
    """
    try:
        from locas_ray.cluster import RayResources, join_cluster
        from locas_ray.workers import work_on_ray
    except ModuleNotFoundError as error:
        raise MissingExtra.of("ray", "locas-agent work --ray") from error
    join_cluster()  # it sets handlers of signals of its own, so ours come after
    with stop_on_signals() as stop:
        return work_on_ray(
            open_memory,
            resources=RayResources(**asdict(how)),
            stop=stop,
            once=once,
            jobs_at_once=jobs_at_once,
            lease_seconds=lease_seconds,
            poll_seconds=poll_seconds,
        )


def serve_with_ray(open_memory: Callable[[], AgentMemory | Fleet], how: RayChoice, settings: ServerSettings) -> None:
    """Serve on a cluster, until a signal asks for the end.

    Raises:
        MissingExtra: Ray is not installed.
    """
    try:
        from locas_ray.cluster import RayResources, join_cluster
        from locas_ray.serving import serve_on_ray
    except ModuleNotFoundError as error:
        raise MissingExtra.of("ray", "locas-agent serve --ray") from error
    join_cluster()
    with stop_on_signals() as stop:
        serve_on_ray(open_memory, settings, RayResources(**asdict(how)), stop)


def shared_store(url: str, *, traces: bool) -> str:
    """Return the URL of a store as processes that run in other folders find it.

    Args:
        url: of the store.
        traces: whether spans are wanted, which are sent by one process alone.

    Raises:
        ConfigurationError: it is a database in the memory of one process, or there are to be spans.
    """
    if traces:
        raise ConfigurationError("--traces sends the spans of one process: leave it out, or --ray")
    if url in ("sqlite://", f"{_SQLITE_FILE}:memory:"):
        raise ConfigurationError(
            "--ray was given a store in memory, which no other process sees: name a database with --store, on several "
            "machines one of PostgreSQL"
        )
    return f"{_SQLITE_FILE}{Path(url.removeprefix(_SQLITE_FILE)).absolute()}" if url.startswith(_SQLITE_FILE) else url

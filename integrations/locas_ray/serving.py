"""The server on Ray Serve: a front that finds whose memory answers, and replicas that have it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from threading import Event

from ray import serve
from ray.serve import Application
from ray.serve.config import HTTPOptions
from ray.serve.schema import LoggingConfig

from locas_agent import AgentMemory, Fleet
from locas_agent.errors import ConfigurationError
from locas_agent.server.settings import ServerSettings
from locas_ray.cluster import RayResources, join_cluster
from locas_ray.front import Front
from locas_ray.replica import AnsweringReplica

APPLICATION = "locas-agent"
"""Its name on the cluster."""
_FRONTS = 2
"""One may die while the other goes on."""
_REQUESTS_PER_FRONT = 1000
_HEALTH_SECONDS = 2.0
"""Between two looks of Ray Serve at a replica: so long it may take until a dead one is replaced."""
_QUIET = LoggingConfig(enable_access_log=False)
"""The application logs each request itself, without a name or a word of anybody."""


def ray_application(
    open_memory: Callable[[], AgentMemory | Fleet], settings: ServerSettings, resources: RayResources
) -> Application:
    """Return the server as an application of Ray Serve, for `serve.run`.

    Each replica answers `settings.answers_at_once` requests in one running batch, as many more wait there, and what
    exceeds all replicas waits at the front. Ray Serve's own batches are not used: it never joins two users in one.

    Args:
        open_memory: opens the backbone, or several, and the store, in each replica; it has to be importable there.
        settings: of the server. Its pages and counts are left out: each replica would have its own.
        resources: how many replicas, and what each takes.
    """
    chosen = resources.settled()
    at_once = 2 * settings.answers_at_once
    inside = settings.model_copy(
        update={"shows_pages": False, "shows_metrics": False, "waiting_answers": max(at_once, settings.waiting_answers)}
    )
    answers = serve.deployment(AnsweringReplica).options(
        name="answers",
        num_replicas=chosen.actors,
        max_ongoing_requests=at_once,
        max_queued_requests=settings.waiting_answers,
        graceful_shutdown_timeout_s=settings.drain_seconds,
        health_check_period_s=_HEALTH_SECONDS,
        ray_actor_options={"num_cpus": chosen.cpus, "num_gpus": chosen.gpus},
        logging_config=_QUIET,
    )
    front = serve.deployment(Front).options(
        name="front",
        num_replicas=_FRONTS,
        max_ongoing_requests=_REQUESTS_PER_FRONT,
        graceful_shutdown_timeout_s=settings.drain_seconds,
        health_check_period_s=_HEALTH_SECONDS,
        ray_actor_options={"num_cpus": 0},
        logging_config=_QUIET,
    )
    return front.bind(answers.bind(open_memory, inside), settings)


def serve_on_ray(
    open_memory: Callable[[], AgentMemory | Fleet], settings: ServerSettings, resources: RayResources, stop: Event
) -> None:
    """Serve on a Ray cluster until stopped; then write the answers under way to their end and return.

    Args:
        open_memory: opens the backbone, or several, and the store, in each replica; it has to be importable there.
        settings: where, and how much at once.
        resources: how many replicas, and what each takes.
        stop: the call returns when it is set.

    Raises:
        ConfigurationError: no replica could begin.
    """
    join_cluster()
    serve.start(http_options=HTTPOptions(host=settings.host, port=settings.port))
    try:
        serve.run(ray_application(open_memory, settings, resources), name=APPLICATION)
    except RuntimeError as error:
        serve.delete(APPLICATION)
        raise ConfigurationError(
            "no replica could begin: the reason is in Ray's log, in the folder logs/serve of its session; mend it and "
            "call again"
        ) from error
    sys.stderr.write(f"locas-agent serves on http://{settings.host}:{settings.port} with Ray\n")
    try:
        stop.wait()
    finally:
        serve.delete(APPLICATION)

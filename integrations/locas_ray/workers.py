"""Consolidation workers as Ray actors: each drains the queue of the store in batches, and Ray restarts what dies.

Who learns what is the store's affair: jobs are claimed there, leases run out there, fences are compared there.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from threading import Event

import ray
from ray.exceptions import RayTaskError

from locas_agent import AgentMemory, WorkSummary
from locas_ray.cluster import RayResources, join_cluster

LOOK_SECONDS = 0.5
"""Between two looks at whether somebody asked for the end."""
LEAVE_SECONDS = 30.0
"""Time that workers have to give back what they have in progress."""


class ConsolidationActor:
    """One worker in a process of its own; to be made a Ray actor.

    Its calls are coroutines, so that `stop` is heard while `work` runs.

    Args:
        open_memory: opens the backbone and the store; called here, in the worker's process.
    """

    def __init__(self, open_memory: Callable[[], AgentMemory]) -> None:
        self._open_memory = open_memory
        self._stop = Event()

    async def work(self, *, once: bool, jobs_at_once: int, lease_seconds: float, poll_seconds: float) -> WorkSummary:
        """Drain the queue, see `AgentMemory.work`; Ray calls it again on the actor that replaces a dead one."""
        with await asyncio.to_thread(self._open_memory) as memory:
            return await memory.awork(
                stop=self._stop,
                once=once,
                jobs_at_once=jobs_at_once,
                lease_seconds=lease_seconds,
                poll_seconds=poll_seconds,
            )

    async def stop(self) -> None:
        """Have what is in progress given back, and `work` return."""
        self._stop.set()


def work_on_ray(
    open_memory: Callable[[], AgentMemory],
    *,
    resources: RayResources | None = None,
    stop: Event | None = None,
    once: bool = False,
    jobs_at_once: int = 8,
    lease_seconds: float = 300.0,
    poll_seconds: float = 2.0,
) -> WorkSummary:
    """Drain queued consolidations with workers on a Ray cluster, until stopped.

    A worker that dies, or whose machine does, is begun anew by Ray; what it had claimed is claimed again once its lease
    has run out, by any worker. The workers end with the process that called this.

    Args:
        open_memory: opens the backbone and the store, in each worker; it has to be importable there.
        resources: how many workers, and what each takes.
        stop: the call returns when it is set, after the workers have given back what they have in progress.
        once: return as soon as nothing is due.
        jobs_at_once: jobs of similar length that a worker learns side by side.
        lease_seconds: time after which another worker takes over from one that fell silent.
        poll_seconds: time between two looks at an empty queue.

    Returns:
        What came of the jobs, all workers together; of one that died only what it did since.

    Raises:
        LocasError: a worker could not begin, or its store is of another version.
    """
    join_cluster()
    chosen = (resources or RayResources()).settled()
    actor = ray.remote(ConsolidationActor).options(
        num_cpus=chosen.cpus, num_gpus=chosen.gpus, max_restarts=-1, max_task_retries=-1
    )
    workers = [actor.remote(open_memory) for _ in range(chosen.actors or 1)]
    try:
        draining = [
            worker.work.remote(
                once=once, jobs_at_once=jobs_at_once, lease_seconds=lease_seconds, poll_seconds=poll_seconds
            )
            for worker in workers
        ]
        return _sum(_until_done(draining, workers, stop or Event()))
    finally:
        for worker in workers:
            ray.kill(worker)


def _until_done(
    draining: Sequence[ray.ObjectRef], workers: Sequence[ray.actor.ActorHandle], stop: Event
) -> list[WorkSummary]:
    summaries: list[WorkSummary] = []
    waiting, until = list(draining), float("inf")
    while waiting and time.monotonic() < until:  # one that found no room in the cluster never returns
        done, waiting = ray.wait(waiting, num_returns=len(waiting), timeout=LOOK_SECONDS)
        try:
            summaries += ray.get(done)
        except RayTaskError as error:
            raise error.cause from error
        if stop.is_set() and until == float("inf"):
            until = time.monotonic() + LEAVE_SECONDS
            for worker in workers:
                worker.stop.remote()
    return summaries


def _sum(summaries: Sequence[WorkSummary]) -> WorkSummary:
    counts: Counter[str] = Counter()
    for summary in summaries:
        counts.update(asdict(summary))
    return WorkSummary(**counts)

"""The cluster: how a process joins it, and what each worker or replica takes of it."""

from __future__ import annotations

import os

import ray
from pydantic import BaseModel, ConfigDict, Field


class RayResources(BaseModel):
    """How many actors there are, and what each of them takes of the cluster. Frozen; unknown names are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    actors: int | None = Field(None, ge=1)
    """Workers, or replicas; as many as the cluster has room for unless given."""
    cpus: float = Field(1.0, gt=0)
    """CPU cores of each. Ray lets torch use so many threads where OMP_NUM_THREADS does not say otherwise."""
    gpus: float | None = Field(None, ge=0)
    """GPUs of each, which sees no other; one where the cluster has any, unless given."""

    def settled(self) -> RayResources:
        """Return the same with what was left open, as the cluster of this process has room for it now."""
        have = ray.cluster_resources()
        gpus = min(1.0, have.get("GPU", 0.0)) if self.gpus is None else self.gpus
        room = have.get("GPU", 0.0) / gpus if gpus else have.get("CPU", 0.0) / self.cpus
        return RayResources(actors=self.actors or max(1, int(room)), cpus=self.cpus, gpus=gpus)


def join_cluster() -> None:
    """Join the cluster that `RAY_ADDRESS` names or that runs on this machine, else begin one here.

    One that begins here sends no usage statistics and shows no dashboard. Does nothing where the process has joined.
    """
    if not ray.is_initialized():
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        ray.init(include_dashboard=False)

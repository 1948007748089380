"""Scores of an evaluation arm: exact match by containment, token F1, bootstrap intervals.

Knows no model, no store and no person.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from locas_agent.study.matching import contains, token_f1

RESAMPLES = 1000


@dataclass(slots=True)
class Arm:
    """The answers of one arm, each with the user it belongs to.

    Intervals resample users, since one user's answers hang together.
    """

    exact: list[float] = field(default_factory=list)
    f1: list[float] = field(default_factory=list)
    clusters: list[int] = field(default_factory=list)

    def add(self, answer: str, gold: str, cluster: int) -> bool:
        """Score one answer; return whether it holds the gold value."""
        right = contains(answer, gold)
        self.exact.append(float(right))
        self.f1.append(token_f1(answer, gold))
        self.clusters.append(cluster)
        return right

    def report(self) -> dict[str, Any] | None:
        """Return exact match, F1, n and the 95 % bootstrap interval of exact match, clustered by user.

        None without answers.
        """
        if not self.exact:
            return None
        return {
            "exact_match": round(mean(self.exact), 4),
            "f1": round(mean(self.f1), 4),
            "n": len(self.exact),
            "ci95": clustered_interval(self.exact, self.clusters),
        }


def mean(values: Sequence[float]) -> float:
    """Return the mean; 0.0 of nothing."""
    return sum(values) / len(values) if values else 0.0


def clustered_interval(values: Sequence[float], clusters: Sequence[int]) -> list[float]:
    """Return the 2.5 % and 97.5 % points of the mean when whole clusters are drawn with replacement; a fixed seed."""
    names = sorted(set(clusters))
    index = {name: at for at, name in enumerate(names)}
    sums, counts = np.zeros(len(names)), np.zeros(len(names))
    for value, cluster in zip(values, clusters, strict=True):
        sums[index[cluster]] += value
        counts[index[cluster]] += 1
    drawn = np.random.default_rng(0).integers(0, len(names), (RESAMPLES, len(names)))
    means = sums[drawn].sum(1) / counts[drawn].sum(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return [round(float(low), 4), round(float(high), 4)]

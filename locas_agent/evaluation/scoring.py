"""Scores of an evaluation arm: exact match by containment or whole words, token F1, bootstrap intervals."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from locas_agent.study.matching import contains, token_f1

RESAMPLES = 1000
_LEAST_DRAWS = 0.975
"""Share of the draws that must have a ratio before an interval of it is given."""


@dataclass(slots=True)
class Arm:
    """The answers of one arm, each with the user it belongs to.

    Intervals resample users, since one user's answers hang together.
    """

    matches: Callable[[str, str], bool] = contains
    """Tells whether an answer holds a gold value."""
    exact: list[float] = field(default_factory=list)
    f1: list[float] = field(default_factory=list)
    clusters: list[int] = field(default_factory=list)

    def add(self, answer: str, golds: Sequence[str], cluster: int) -> bool:
        """Score one answer by the accepted form that it comes nearest to; return whether it holds one."""
        right = any(self.matches(answer, gold) for gold in golds)
        self.exact.append(float(right))
        self.f1.append(max(token_f1(answer, gold) for gold in golds))
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


def names(answer: str, form: str) -> bool:
    """Tell whether a form stands in an answer as whole words, casefolded, its punctuation with it.

    "3" is no part of "3.9" or "13", and "Rex" stands in "Rex's".
    """
    text, sought = _spoken(answer), _spoken(form)
    if not sought:
        return False
    before = r"(?<!\d[.,:])" if sought[0].isdigit() else ""
    behind = r"(?![.,:]\d)" if sought[-1].isdigit() else ""
    return re.search(rf"(?<!\w){before}{re.escape(sought)}(?!\w){behind}", text) is not None


def _spoken(text: str) -> str:
    """Return a text casefolded, with one kind of apostrophe and single spaces."""
    return " ".join(
        unicodedata.normalize("NFC", text).casefold().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'").split()
    )


def mean(values: Sequence[float]) -> float:
    """Return the mean; 0.0 of nothing."""
    return sum(values) / len(values) if values else 0.0


def clustered_interval(values: Sequence[float], clusters: Sequence[int]) -> list[float]:
    """Return the 2.5 % and 97.5 % points of the mean when whole clusters are drawn with replacement; a fixed seed."""
    return _middle(_drawn_means(values, clusters))


def ratio_interval(above: Sequence[float], below: Sequence[float], clusters: Sequence[int]) -> list[float] | None:
    """Return the 2.5 % and 97.5 % points of mean(above) / mean(below) when whole clusters are drawn with replacement.

    Args:
        above: one value for each question.
        below: one value for each question, in the same order.
        clusters: to which each question belongs.

    Returns:
        None where more than one draw of forty has nothing above zero to divide by: there is no such interval then.
    """
    numerators, denominators = _drawn_means(above, clusters), _drawn_means(below, clusters)
    has_ratio = denominators > 0
    if has_ratio.mean() < _LEAST_DRAWS:
        return None
    return _middle(numerators[has_ratio] / denominators[has_ratio])


def _drawn_means(values: Sequence[float], clusters: Sequence[int]) -> NDArray[np.float64]:
    """Return the mean of each draw; draws of the same clusters are the same ones."""
    names = sorted(set(clusters))
    index = {name: at for at, name in enumerate(names)}
    sums, counts = np.zeros(len(names)), np.zeros(len(names))
    for value, cluster in zip(values, clusters, strict=True):
        sums[index[cluster]] += value
        counts[index[cluster]] += 1
    drawn = np.random.default_rng(0).integers(0, len(names), (RESAMPLES, len(names)))
    means: NDArray[np.float64] = sums[drawn].sum(1) / counts[drawn].sum(1)
    return means


def _middle(means: NDArray[np.float64]) -> list[float]:
    low, high = np.quantile(means, [0.025, 0.975])
    return [round(float(low), 4), round(float(high), 4)]

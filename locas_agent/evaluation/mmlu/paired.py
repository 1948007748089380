"""Statistics of one model measured twice on the same questions, off and on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from locas_agent.evaluation.scoring import mean

NORMAL_975 = 1.959964
"""97.5 % point of the standard normal distribution."""


@dataclass(frozen=True, slots=True)
class Pair:
    """One question, measured without and with a memory.

    Attributes:
        right: whether it was answered right, off and on; None where the task has no right or wrong.
        nll: negative log-likelihood of the right answer, nats, off and on; None where the task has none.
    """

    right: tuple[bool, bool] | None
    nll: tuple[float, float] | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """What the pairs come to. Fields that no pair has a value for are None.

    Attributes:
        n: pairs with a right or wrong.
        accuracy_off, accuracy_on: share of right answers.
        accuracy_delta_ci95: 95 % interval of the paired difference on - off, normal approximation.
        lost, gained: questions right only off, and only on; their sum are the flips.
        mcnemar_p: two-sided exact p of the flips going one way as often as the other.
        mean_abs_delta_nll: mean |NLL on - NLL off| of the right answer, nats per question.
        mean_delta_nll: mean NLL on - NLL off: positive where the right answers got less likely.
    """

    n: int
    accuracy_off: float | None
    accuracy_on: float | None
    accuracy_delta_ci95: tuple[float, float] | None
    lost: int
    gained: int
    mcnemar_p: float | None
    mean_abs_delta_nll: float | None
    mean_delta_nll: float | None

    @property
    def flips(self) -> int:
        """Questions whose answer became right or wrong."""
        return self.lost + self.gained


def compare(pairs: Sequence[Pair]) -> Comparison:
    """Compare off and on over the same questions."""
    rights = [pair.right for pair in pairs if pair.right is not None]
    moves = [on - off for off, on in (pair.nll for pair in pairs if pair.nll is not None)]
    lost, gained = sum(off and not on for off, on in rights), sum(on and not off for off, on in rights)
    n = len(rights)
    return Comparison(
        n=n,
        accuracy_off=mean([float(off) for off, _ in rights]) if n else None,
        accuracy_on=mean([float(on) for _, on in rights]) if n else None,
        accuracy_delta_ci95=paired_interval(lost, gained, n) if n else None,
        lost=lost,
        gained=gained,
        mcnemar_p=mcnemar_p(lost, gained) if n else None,
        mean_abs_delta_nll=mean([abs(move) for move in moves]) if moves else None,
        mean_delta_nll=mean(moves) if moves else None,
    )


def mcnemar_p(lost: int, gained: int) -> float:
    """Return McNemar's exact two-sided p.

    How likely a fair coin, thrown once for each flip, falls at least as unevenly; 1 without flips.
    """
    flips, fewer = lost + gained, min(lost, gained)
    return min(1.0, 2 * sum(math.comb(flips, heads) for heads in range(fewer + 1)) / (1 << flips))


def paired_interval(lost: int, gained: int, n: int) -> tuple[float, float]:
    """Return the 95 % interval of accuracy on - off from the flips among n pairs, by the normal approximation."""
    delta = (gained - lost) / n
    half = NORMAL_975 * math.sqrt(max(0.0, (lost + gained) / n - delta**2) / n)
    return delta - half, delta + half

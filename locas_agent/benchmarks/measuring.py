"""Two sides measured in turn, and the ratio between them.

On the CPU a time is the CPU time of the one thread that computes, so that other work on the machine does not count; on
a GPU it is what CUDA events say. Every round calls every side once, a round's sides make one ratio, and the row holds
the median of these ratios with the least and the greatest: a machine that slows down slows both sides of a round.
"""

from __future__ import annotations

import ctypes
import gc
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from locas_agent.errors import ConfigurationError

Call = Callable[[], object]
_CLEAR = Path("/proc/self/clear_refs")
Over = Literal["ours/peer", "peer/ours"]


@dataclass(frozen=True, slots=True)
class Goal:
    """What a row compares and what it has to reach.

    Attributes:
        name: of the row.
        workload: what both sides do, for people.
        unit: of both sides' figures.
        over: what is divided by what.
        limit: the ratio holds up to here.
        target: the ratio to reach; above the limit where more is better, below it where less is.
    """

    name: str
    workload: str
    unit: str
    over: Over
    limit: float
    target: float

    def row(self, ours: Sequence[float], peer: Sequence[float], *, is_equal: bool = True) -> Row:
        """Return the row of both sides' figures, round by round.

        Args:
            ours: one figure for each round.
            peer: those of the same rounds.
            is_equal: False where a condition of the comparison is not met; the row then does not hold, whatever its
                ratio.
        """
        pairs = zip(ours, peer, strict=True)
        ratios = [mine / theirs if self.over == "ours/peer" else theirs / mine for mine, theirs in pairs]
        ratio = statistics.median(ratios)
        reached = ratio >= self.limit if self.target > self.limit else ratio <= self.limit
        return Row(
            name=self.name,
            ours=statistics.median(ours),
            peer=statistics.median(peer),
            ratio=ratio,
            unit=self.unit,
            limit=self.limit,
            target=self.target,
            holds=reached and is_equal,
            spread=(min(ratios), max(ratios)),
            workload=self.workload,
        )


@dataclass(frozen=True, slots=True)
class Row:
    """One ratio with its figures: medians of both sides, the median ratio, its least and greatest."""

    name: str
    ours: float
    peer: float
    ratio: float
    unit: str
    limit: float
    target: float
    holds: bool
    spread: tuple[float, float]
    workload: str

    def facts(self) -> dict[str, Any]:
        """Return the row as JSON holds it."""
        return {
            "name": self.name,
            "ours": _short(self.ours),
            "peer": _short(self.peer),
            "ratio": _short(self.ratio),
            "unit": self.unit,
            "limit": self.limit,
            "target": self.target,
            "holds": self.holds,
            "spread": [_short(value) for value in self.spread],
            "workload": self.workload,
        }


def interleaved(
    sides: Mapping[str, Call],
    *,
    rounds: int,
    device: torch.device,
    warm_up: int = 1,
    before: Mapping[str, Call] | None = None,
) -> dict[str, list[float]]:
    """Time every side in every round; each round begins with another side.

    Args:
        sides: what is timed, by name.
        rounds: rounds that count.
        device: where the work is done.
        warm_up: rounds before that, which fill caches.
        before: what makes a side ready again for the next round; not timed.

    Returns:
        Milliseconds of each side, one for each round.
    """
    names = list(sides)
    found: dict[str, list[float]] = {name: [] for name in names}
    for number in range(-warm_up, rounds):
        for at in range(len(names)):
            name = names[(at + number) % len(names)]
            if before is not None and name in before:
                before[name]()
            taken = milliseconds(sides[name], device)
            if number >= 0:
                found[name].append(taken)
    return found


def milliseconds(call: Call, device: torch.device) -> float:
    """Time one call."""
    if device.type == "cuda":
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        start.record()
        call()
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end))
    started = time.thread_time()
    call()
    return (time.thread_time() - started) * 1e3


def peak_bytes(call: Call, device: torch.device) -> int:
    """Return how far a call raises what is taken, over what is taken before it.

    On a GPU that is what torch has allocated; elsewhere what the process has in memory, which Linux counts.

    Raises:
        ConfigurationError: the machine does not count it.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        return int(torch.cuda.max_memory_allocated(device)) - before
    if not _CLEAR.exists():
        raise ConfigurationError("peak bytes are measured on Linux or on a GPU; leave this row out")
    gc.collect()
    if (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:
        trim(0)  # what was freed before would be taken again unseen
    _CLEAR.write_text("5", encoding="ascii")  # the peak begins again at what is taken now
    before = _resident("VmRSS")
    call()
    return _resident("VmHWM") - before


def _resident(name: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute on one thread inside the block: the time of the calling thread is then all of the work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _short(value: float) -> float:
    """Four digits that mean something."""
    return float(f"{value:.4g}")

"""Which benchmarks there are, and a run of some of them."""

from __future__ import annotations

import platform
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast, get_args

import torch

from locas_agent.backbone.loading import find_device
from locas_agent.benchmarks import append, decode, latency, learn, loading, recall_cost
from locas_agent.benchmarks.bench import Bench, RealName
from locas_agent.benchmarks.measuring import Row, one_thread
from locas_agent.benchmarks.real import consolidating, decoding, kernel, learning, recorded, users
from locas_agent.errors import ConfigurationError
from locas_agent.types import Progress

Measure = Callable[[Bench], list[Row]]

FAMILIES: dict[Measure, tuple[str, ...]] = {
    decoding.base: ("decode-base-real", "decode-all-real"),
    decoding.together: ("decode-batch",),
    decoding.hugging_face: ("decode-hf",),
    learning.deep: ("learn-deep", "learn-templora-real"),
    learning.long: ("learn-long-real",),
    users.first_token: ("reply-first-token",),
    users.flat: ("flat-real",),
    users.stored: ("load-real", "bytes-real"),
    users.serving_peak: ("serve-peak",),
    users.training_peak: ("train-peak",),
    consolidating.consolidate: ("consolidate-real", "study-forward"),
    consolidating.recalled: ("bytes-talk",),
    kernel.fused: ("side-ffn-fused",),
    recorded.recorded: ("decode-recorded",),
    decode.decode: ("decode-base", "decode-peft-equal", "decode-peft-r64", "decode-sequential"),
    learn.short: ("learn-short", "learn-templora-short"),
    learn.long: ("learn-long", "learn-templora", "step-forward"),
    recall_cost.recall_cost: ("recall-seconds", "bytes"),
    loading.load: ("load",),
    latency.flat: ("flat",),
    latency.growth: ("growth", "growth-kept"),
    append.append: ("append",),
}
"""What is measured together, with the rows it gives: real shapes first, then the random backbone of four layers."""
NAMES = tuple(name for rows in FAMILIES.values() for name in rows)


def run(
    names: Sequence[str] = (),
    *,
    is_quick: bool = False,
    seed: int = 0,
    device: str | None = None,
    real: RealName = "smollm2",
    budget_seconds: float | None = None,
    progress: Progress | None = None,
) -> Iterator[dict[str, Any]]:
    """Measure rows, each beside its peer in this process, on one thread, and yield them as they come.

    Args:
        names: of rows; none means all.
        is_quick: small sizes and two rounds: checks that both sides compute what they should, says nothing about time.
        seed: of everything drawn at random.
        device: a GPU takes sizes of its own, see `bench.GPU`.
        real: the backbone of the rows on real shapes; the larger one takes most of an hour on a processor.
        budget_seconds: nothing more is begun after so many seconds.
        progress: told how many rows are done.

    Yields:
        Rows as JSON holds them, with what they were measured on.

    Raises:
        ConfigurationError: there is no such row.
        MissingExtra: a peer is not installed.
        RuntimeError: two sides that should compute the same do not.
    """
    if unknown := [name for name in names if name not in NAMES]:
        raise ConfigurationError(f"no benchmark {unknown[0]!r}: there are {', '.join(NAMES)}")
    wanted = names or NAMES
    done = 0
    target, started = find_device(device), time.monotonic()
    with one_thread():
        for measure in [measure for measure, rows in FAMILIES.items() if set(rows) & set(wanted)]:
            if budget_seconds is not None and time.monotonic() - started > budget_seconds:
                break
            with tempfile.TemporaryDirectory(prefix="locas-bench-") as folder:
                rows = measure(Bench(Path(folder), target, is_quick, seed, real))
            asked = [row for row in rows if row.name in wanted]
            yield from (row.facts() | {"device": device_name(target)} for row in asked)
            done += len(asked)
            if progress is not None:
                progress("measured", done, len(wanted))


def real_name(name: str) -> RealName:
    """Return the name of a backbone of real shapes as it is known here.

    Raises:
        ConfigurationError: there is no such one.
    """
    if name not in get_args(RealName):
        raise ConfigurationError(f"backbone is one of {', '.join(get_args(RealName))}, got {name!r}")
    return cast(RealName, name)


def device_name(device: torch.device) -> str:
    """Return what computed: the GPU's name, or the processor's kind and the one thread."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"{platform.machine()}, one thread"

#!/usr/bin/env python3
"""Say in which operations study spends its time: eight turns of talk, smollm2, one thread, torch's profiler.

    python -m scripts.profile_study

Products with weights and attention are what prefill and decoding ask for; all the rest is ours to make smaller.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from locas_agent.benchmarks.bench import Bench
from locas_agent.benchmarks.measuring import one_thread
from locas_agent.benchmarks.real.consolidating import School, agent_of
from locas_agent.benchmarks.real.talk import talkers_of

PARTS = {
    "products": ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm"),
    "attention": ("aten::_scaled_dot_product_flash_attention_for_cpu",),
}
"""Operations by what they are for; those of no part are the rest."""


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, one_thread():
        bench = Bench(Path(folder), torch.device("cpu"))
        with agent_of(bench) as agent:
            school = School(bench, agent, agent.engine)
            request = school.request(talkers_of(bench)[0], "talker")
            school.study([request])  # first calls are slower
            started = time.perf_counter()
            with profile(activities=[ProfilerActivity.CPU]) as found:
                school.study([request])
            seconds = time.perf_counter() - started
    own = {event.key: event.self_cpu_time_total / 1e6 for event in found.key_averages()}
    known = {part: sum(own.get(name, 0.0) for name in names) for part, names in PARTS.items()}
    operators = sum(own.values())
    print(f"study: {seconds:.1f} s on the clock, of these {operators:.1f} s in operations of torch")
    for part, taken in (known | {"other operations": operators - sum(known.values())}).items():
        print(f"{part:20} {taken:6.1f} s  {taken / seconds:5.1%}")
    print(f"{'outside torch':20} {seconds - operators:6.1f} s  {1 - operators / seconds:5.1%}")


if __name__ == "__main__":
    main()

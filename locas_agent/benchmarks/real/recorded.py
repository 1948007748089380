"""Tokens written by recorded steps, beside the steps that serve today: on a GPU alone."""

from __future__ import annotations

import torch

from locas_agent.benchmarks.bench import Bench, largest_difference
from locas_agent.benchmarks.decode import STEPS, writer
from locas_agent.benchmarks.measuring import Goal, Row, interleaved
from locas_agent.benchmarks.real.backbones import backbone_of, ids_of, memories_of, tolerance_of
from locas_agent.benchmarks.real.decoding import PROMPT_TOKENS, ROUNDS, USERS
from locas_agent.inference import Engine
from locas_agent.inference.decoding import BatchGeneration
from locas_agent.inference.generation import AnswerRow
from locas_agent.inference.recorded_step import RecordedStep
from locas_agent.memory import MemoryBatch

_SAME = f"{USERS} users, each a memory of 32 slots beside the topmost third of the layers, one token each, context 128"
RECORDED = Goal(
    "decode-recorded",
    f"{_SAME}, steps repeated as CUDA graphs, on a GPU alone; peer: steps launched anew",
    "ms per token",
    "peer/ours",
    1.0,
    2.0,
)


def recorded(bench: Bench) -> list[Row]:
    """Measure the row; no row without a GPU.

    Raises:
        RuntimeError: a recorded step gives other logits than one that is launched anew.
    """
    return measured(bench) if bench.device.type == "cuda" else []


def measured(bench: Bench) -> list[Row]:
    """Measure recorded steps on whatever device: where nothing is recorded the time says nothing."""
    backbone = backbone_of(bench)
    plain, ours = Engine(backbone), Engine(backbone, records_steps=True)
    prompts = ids_of(bench, backbone, [8 if bench.is_quick else PROMPT_TOKENS] * USERS)
    memory = MemoryBatch.of(memories_of(bench, backbone, USERS), backbone)
    if (difference := _difference(plain, prompts, memory)) > tolerance_of(backbone):
        raise RuntimeError(f"a recorded step differs by {difference:.2g} of the largest logit: nothing was measured")
    rounds = bench.real_rounds(ROUNDS)
    tokens = STEPS * (rounds + 4) + 1
    sides = {name: writer(engine, prompts, memory, tokens=tokens) for name, engine in (("ours", ours), ("anew", plain))}
    for write in sides.values():  # until the step of one has been recorded
        write()
        write()
    taken = interleaved(sides, rounds=rounds, device=bench.device)
    return [RECORDED.row(*([each / STEPS for each in taken[name]] for name in ("ours", "anew")))]


@torch.inference_mode()
def _difference(engine: Engine, prompts: list[list[int]], memory: MemoryBatch) -> float:
    """Return how far the logits of a recorded step are from those of one that is run anew."""
    found = []
    for is_recorded in (True, False):
        batch = BatchGeneration(engine, [AnswerRow(prompt, 8, 0.0, (0, 0)) for prompt in prompts], memory)
        for _ in range(2):
            batch.step()
        if is_recorded:
            step = RecordedStep(engine, memory, batch.cache, batch.mask)
            found.append(step(batch.inputs, batch.mask).clone())
            continue
        places = batch.mask.sum(dim=1, keepdim=True) - 1
        hidden = engine.hidden(batch.inputs, batch.mask, memory, cache=batch.cache, position_ids=places)
        found.append(engine.lm_head(hidden[:, -1]).float())
    return largest_difference(*found)

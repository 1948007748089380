"""One more token for a batch of users, each with a memory.

Beside the bare backbone, PEFT's mixed batches, and the users one by one.

Every side runs in the same loop, the engine's, from the same prompts. Where both compute the same function, their
logits are compared first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from locas_agent.benchmarks.bench import Bench, largest_difference, without_hooks
from locas_agent.benchmarks.measuring import Goal, Row, interleaved
from locas_agent.benchmarks.peers import adapted, exported, mixed_batch
from locas_agent.inference import Engine
from locas_agent.inference.decoding import BatchGeneration
from locas_agent.inference.generation import AnswerRow
from locas_agent.memory import MemoryBatch

ROUNDS, STEPS = 24, 3
"""Rounds, and tokens timed in each."""
PROMPT_TOKENS = 92
"""With the tokens written while it is measured, 128 tokens of context on average."""

_SAME = "8 users (16 on a GPU) with memories of 32 slots beside all layers, one token each, context 128"
BASE = Goal("decode-base", f"{_SAME}; peer: the bare backbone", "ms per token", "ours/peer", 1.15, 1.06)
EQUAL = Goal(
    "decode-peft-equal",
    f"{_SAME}; peer: the same function as PEFT adapters on the padded backbone",
    "ms per token",
    "peer/ours",
    1.3,
    1.6,
)
RANK_64 = Goal(
    "decode-peft-r64",
    f"{_SAME}; peer: PEFT adapters of rank 64 beside all linear layers",
    "ms per token",
    "peer/ours",
    2.0,
    3.0,
)
SEQUENTIAL = Goal(
    "decode-sequential", f"{_SAME}; peer: the same users one by one", "ms per token", "peer/ours", 3.5, 5.0
)


def decode(bench: Bench) -> list[Row]:
    """Measure the four rows.

    Raises:
        MissingExtra: PEFT is not installed.
        RuntimeError: sides that are the same function give different logits, or the memories change nothing.
    """
    backbone = bench.backbone()
    memories = bench.memories(backbone, bench.sizes.users)
    prompts = bench.ids(len(memories), 8 if bench.is_quick else PROMPT_TOKENS)
    names = [f"user-{at}" for at in range(len(memories))]
    ours = Engine(backbone)
    bare = without_hooks(bench.backbone())
    equal = mixed_batch(exported(backbone, memories, names, bench.folder), names)
    rank_64 = mixed_batch(adapted(bare.backbone, names, rank=bench.sizes.rank), names)
    batch = MemoryBatch.of(memories, backbone)
    _check_same_function(bench, torch.tensor(prompts), ours, batch, bare=bare, equal=equal)

    rounds = bench.rounds(ROUNDS)
    tokens = STEPS * (rounds + 2) + 1
    writers = [
        writer(ours, [prompt], MemoryBatch.of([memory], backbone), tokens=tokens)
        for prompt, memory in zip(prompts, memories, strict=True)
    ]
    sides = {
        "ours": writer(ours, prompts, batch, tokens=tokens),
        "bare": writer(bare, prompts, tokens=tokens),
        "equal": writer(equal, prompts, tokens=tokens),
        "rank_64": writer(rank_64, prompts, tokens=tokens),
        "alone": lambda: [write() for write in writers],
    }
    taken = {
        name: [each / STEPS for each in times]
        for name, times in interleaved(sides, rounds=rounds, device=bench.device).items()
    }
    pairs = ((BASE, "bare"), (EQUAL, "equal"), (RANK_64, "rank_64"), (SEQUENTIAL, "alone"))
    return [goal.row(taken["ours"], taken[peer]) for goal, peer in pairs]


def writer(
    engine: Engine, prompts: Sequence[Sequence[int]], memory: MemoryBatch | None = None, *, tokens: int
) -> Callable[[], None]:
    """Run the prompts and their first token, and return what writes the next `STEPS` of each."""
    decoding = BatchGeneration(engine, [AnswerRow(prompt, tokens) for prompt in prompts], memory)
    decoding.step()

    def write() -> None:
        for _ in range(STEPS):
            decoding.step()

    return write


def _check_same_function(
    bench: Bench, ids: torch.Tensor, ours: Engine, batch: MemoryBatch, *, bare: Engine, equal: Engine
) -> None:
    with torch.inference_mode():
        expected = ours.logits(ids, memory=batch)  # (B, T, V)
        same = {
            "PEFT on the padded backbone": equal.logits(ids),
            "one by one": torch.cat(
                [ours.logits(ids[row : row + 1], memory=batch.select([row])) for row in range(len(ids))]
            ),
        }
        moved = largest_difference(expected, bare.logits(ids))
    for name, logits in same.items():
        if (difference := largest_difference(expected, logits)) > bench.tolerance:
            raise RuntimeError(
                f"{name}: logits differ by {difference:.2g} of the largest, so it is another function: nothing was "
                "measured"
            )
    if moved < 100 * bench.tolerance:
        raise RuntimeError(
            f"the memories move logits by {moved:.2g} of the largest only: equal logits would prove nothing"
        )

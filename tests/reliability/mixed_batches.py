"""Puts users into batches of every composition, and counts the rows that were answered with another's memory."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

import torch

from locas_agent.inference import Engine
from locas_agent.memory import LocasMemory, MemoryBatch
from tests.reliability.answer_attribution import alone, misattributed, strangers

USERS = 64
PROMPT = [72, 101, 108, 108, 111, 63]


def compositions(number: int, *, seed: int = 0) -> Iterator[list[int]]:
    """Yield batches: all users shuffled, some of them, one user in several rows.

    USERS itself stands for nobody's memory.
    """
    rng = random.Random(seed)
    for turn in range(number):
        if turn % 3 == 0:
            yield rng.sample(range(USERS + 1), USERS)
        elif turn % 3 == 1:
            yield rng.sample(range(USERS), rng.randint(2, USERS - 1))
        else:
            yield [rng.choice([rng.randrange(USERS), USERS, 0]) for _ in range(USERS)]


def memories_of(rows: Sequence[int], memories: Sequence[LocasMemory]) -> list[LocasMemory | None]:
    return [None if row == USERS else memories[row] for row in rows]


def wrong_rows(engine: Engine, memories: Sequence[LocasMemory], batches: int) -> tuple[int, int]:
    """Ask all users the same in many compositions.

    Return how many rows there were, and how many were not their user's.
    """
    with torch.inference_mode():
        ids = torch.tensor([PROMPT])
        of_each = torch.cat([engine.logits(ids, memory=alone(engine, memory)) for memory in [*memories, None]])
        count = wrong = 0
        for rows in compositions(batches):
            batch = MemoryBatch.of(memories_of(rows, memories), engine.backbone)
            for chosen in (range(len(rows)), random.Random(count).sample(range(len(rows)), len(rows) // 2)):
                selected = batch if len(chosen) == len(rows) else batch.select(chosen)
                logits = engine.logits(ids.expand(len(chosen), -1), memory=selected)
                wrong += len(misattributed(logits, of_each, [rows[at] for at in chosen]))
                count += len(chosen)
    return count, wrong


def wrong_generations(engine: Engine, memories: Sequence[LocasMemory], steps: int) -> tuple[int, int]:
    """Let all users be answered in batches until that many decode steps are done.

    Return rows, and those not of their user.
    """
    done = count = wrong = 0
    for turn, rows in enumerate(compositions(steps)):
        mine = memories_of(rows, memories)
        prompts = [
            PROMPT[: 2 + (row + turn) % 4] for row in rows
        ]  # of several lengths, so that rows change places inside
        made = engine.generate(
            prompts, memory=MemoryBatch.of(mine, engine.backbone), max_new_tokens=100, max_batch_tokens=4096
        )
        wrong += len(strangers(engine, prompts, made, mine))
        count += len(rows)
        done += max(len(generation.ids) for generation in made)
        if done >= steps:
            return count, wrong
    raise AssertionError("the backbone writes nothing")

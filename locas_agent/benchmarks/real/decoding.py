"""Tokens written on real shapes, beside the bare backbone, users one by one and `generate` of transformers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from locas_agent.benchmarks.bench import Bench, largest_difference, without_hooks
from locas_agent.benchmarks.decode import STEPS, writer
from locas_agent.benchmarks.measuring import Goal, Row, interleaved
from locas_agent.benchmarks.real.backbones import backbone_of, bare_copy, ids_of, memories_of, tolerance_of
from locas_agent.inference import Engine
from locas_agent.inference.requests import GenerationRequest
from locas_agent.inference.running_batch import RunningBatch
from locas_agent.memory import MemoryBatch

ROUNDS = 12
HF_ROUNDS, HF_TOKENS = 5, 32
PROMPT_TOKENS = 92
USERS, MANY = 8, 16

_SAME = f"{USERS} users, each a memory of 32 slots beside {{}}, one token each, context 128"
BASE = Goal(
    "decode-base-real",
    f"{_SAME.format('the topmost third of the layers, the default')}; peer: the bare backbone",
    "ms per token",
    "ours/peer",
    1.12,
    1.05,
)
ALL = Goal(
    "decode-all-real", f"{_SAME.format('all layers')}; peer: the bare backbone", "ms per token", "ours/peer", 1.12, 1.05
)
BATCH = Goal(
    "decode-batch",
    f"{MANY} users in a running batch, each an own memory, one token each, context 128; peer: one by one",
    "ms per token",
    "peer/ours",
    4.0,
    8.0,
)
HF = Goal(
    "decode-hf",
    f"{HF_TOKENS} tokens for {USERS} prompts of 61 to 92 tokens without memories; peer: transformers' generate, the "
    "same tokens",
    "ms per token",
    "peer/ours",
    1.0,
    1.3,
)


def base(bench: Bench) -> list[Row]:
    """Measure our decoding beside the bare backbone, at the default placement and beside all layers.

    Raises:
        RuntimeError: the memories change nothing.
    """
    backbone = backbone_of(bench)
    ours, bare = Engine(backbone), without_hooks(bare_copy(backbone))
    prompts = ids_of(bench, backbone, [8 if bench.is_quick else PROMPT_TOKENS] * USERS)
    batches = {
        goal: MemoryBatch.of(memories_of(bench, backbone, USERS, layers=layers), backbone)
        for goal, layers in ((BASE, "auto"), (ALL, "all"))
    }
    ids = torch.tensor(prompts)
    with torch.inference_mode():
        plain = bare.logits(ids)
        for batch in batches.values():
            if largest_difference(plain, ours.logits(ids, memory=batch)) < tolerance_of(backbone):
                raise RuntimeError("the memories change nothing: a time would prove nothing")
    rounds = bench.real_rounds(ROUNDS)
    tokens = STEPS * (rounds + 2) + 1
    sides = {goal.name: writer(ours, prompts, batch, tokens=tokens) for goal, batch in batches.items()}
    sides["bare"] = writer(bare, prompts, None, tokens=tokens)
    taken = interleaved(sides, rounds=rounds, device=bench.device)
    per_token = {name: [each / STEPS for each in times] for name, times in taken.items()}
    return [goal.row(per_token[goal.name], per_token["bare"]) for goal in batches]


def together(bench: Bench) -> list[Row]:
    """Measure a running batch beside the same users one by one.

    Raises:
        RuntimeError: in the batch a user's logits are others than alone.
    """
    backbone = backbone_of(bench)
    engine = Engine(backbone)
    users = 3 if bench.is_quick else MANY
    prompts = ids_of(bench, backbone, [8 if bench.is_quick else PROMPT_TOKENS] * users)
    batches = [MemoryBatch.of([memory], backbone) for memory in memories_of(bench, backbone, users)]
    _check_alone(engine, prompts, batches)
    rounds = bench.real_rounds(ROUNDS)
    tokens = STEPS * (rounds + 2) + 1
    running = RunningBatch(engine, max_rows=users)
    for prompt, memory in zip(prompts, batches, strict=True):
        running.submit(GenerationRequest(prompt, memory=memory, max_new_tokens=tokens + 2 * users))
    while running.n_waiting or running.is_prefilling:
        running.step()
    writers = [writer(engine, [prompt], memory, tokens=tokens) for prompt, memory in zip(prompts, batches, strict=True)]

    def step() -> None:
        for _ in range(STEPS):
            running.step()

    sides: dict[str, Callable[[], object]] = {"ours": step, "alone": lambda: [write() for write in writers]}
    taken = interleaved(sides, rounds=rounds, device=bench.device)
    return [BATCH.row(*([each / STEPS for each in taken[side]] for side in ("ours", "alone")))]


def hugging_face(bench: Bench) -> list[Row]:
    """Measure our engine without memories beside `generate`.

    Raises:
        RuntimeError: the tokens differ.
    """
    backbone = backbone_of(bench)
    ours, peer = Engine(backbone), bare_copy(backbone)
    without_hooks(peer)
    peer.model.set_attn_implementation("sdpa")
    tokens = 4 if bench.is_quick else HF_TOKENS
    longest = 8 if bench.is_quick else PROMPT_TOKENS
    prompts = ids_of(bench, backbone, [longest * (16 + at) // 23 for at in range(USERS)])
    width = max(map(len, prompts))
    ids = torch.tensor([[backbone.pad_id] * (width - len(row)) + row for row in prompts], device=bench.device)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in prompts], device=bench.device)
    written: dict[str, list[list[int]]] = {}

    def mine() -> None:
        made = ours.generate(prompts, max_new_tokens=tokens)
        written["ours"] = [list(one.ids) for one in made]

    @torch.inference_mode()
    def theirs() -> None:
        made = peer.model.generate(
            input_ids=ids,
            attention_mask=mask,
            do_sample=False,
            max_new_tokens=tokens,
            eos_token_id=None,
            pad_token_id=backbone.pad_id,
        )
        written["theirs"] = made[:, width:].tolist()

    sides: dict[str, Callable[[], object]] = {"ours": mine, "theirs": theirs}
    taken = interleaved(sides, rounds=bench.real_rounds(HF_ROUNDS), device=bench.device)
    if written["ours"] != written["theirs"]:
        raise RuntimeError("transformers wrote other tokens: nothing was measured")
    return [HF.row(*([each / tokens for each in taken[side]] for side in ("ours", "theirs")))]


def _check_alone(engine: Engine, prompts: Sequence[Sequence[int]], batches: Sequence[MemoryBatch]) -> None:
    ids = torch.tensor(prompts)
    joined = MemoryBatch.joined([(batch, 1) for batch in batches], engine.backbone)
    last = torch.tensor([(row + 1) * ids.shape[1] - 1 for row in range(len(ids))])
    with torch.inference_mode():
        side_by_side = engine.logits(ids, memory=joined, positions=last)
        alone = torch.cat(
            [engine.logits(ids[row : row + 1], memory=own, positions=last[:1]) for row, own in enumerate(batches)]
        )
    if (difference := largest_difference(alone, side_by_side)) > 2 * tolerance_of(engine.backbone):
        raise RuntimeError(f"side by side logits differ by {difference:.2g} of the largest: nothing was measured")

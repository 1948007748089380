"""What a user costs on real shapes: a reply and its first word, a memory brought from the store, bytes.

A memory's rows are random: what it recalls is not measured here, so nothing is said about equal recall.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace

from safetensors.torch import save

from locas_agent.benchmarks.bench import Bench
from locas_agent.benchmarks.latency import FLAT, Talk, late_beside_soon
from locas_agent.benchmarks.learn import Memories
from locas_agent.benchmarks.loading import compare
from locas_agent.benchmarks.measuring import Goal, Row, interleaved, peak_bytes
from locas_agent.benchmarks.peers import adapted
from locas_agent.benchmarks.real.backbones import backbone_of, ids_of, memories_of, tolerance_of
from locas_agent.config import TrainingSettings
from locas_agent.inference import Engine
from locas_agent.inference.decoding import BatchGeneration
from locas_agent.inference.generation import AnswerRow
from locas_agent.memory import MemoryBatch
from locas_agent.memory.serialization import to_bytes
from locas_agent.training.examples import Example
from locas_agent.training.loss.backend import loss_backend_for
from locas_agent.training.loss.last_layer import LastLayer
from locas_storage import open_store

TURNS, ROUNDS, FLAT_ROUNDS, RANK, USERS = 400, 3, 7, 64, 16
GIB = 1 << 30
_LORA = "a PEFT adapter of rank 64 beside all linear layers"
_THIRD = "memory of 32 slots beside the topmost third of the layers"

FIRST = Goal(
    "reply-first-token",
    f"the first text of a reply after {TURNS} turns, window of 256 tokens and a memory; peer: all turns in the prompt",
    "ms",
    "peer/ours",
    10.0,
    30.0,
)
FLAT_REAL = replace(FLAT, name="flat-real")
LOAD = Goal(
    "load-real",
    f"stored payload to bound and ready, {_THIRD}, in SQLite; peer: {_LORA}, from its folder beside one that is there",
    "ms",
    "peer/ours",
    5.0,
    20.0,
)
BYTES = Goal(
    "bytes-real",
    f"what is stored of a user, {_THIRD}, fp32; peer: {_LORA}; recall is not measured here, so the row does not hold",
    "bytes per user",
    "peer/ours",
    10.0,
    24.0,
)
SERVE_PEAK = Goal(
    "serve-peak",
    f"bytes that answering {USERS} users at once takes beyond the backbone, context 128, {_THIRD}; peer: {_LORA} for "
    "each, in the backbone's dtype, alone",
    "MiB per user",
    "peer/ours",
    1.0,
    4.0,
)
TRAIN_PEAK = Goal(
    "train-peak",
    f"bytes that training {USERS} users at once takes, 256 tokens each, {_THIRD}, the backbone included; peer: 8 GiB",
    "GiB",
    "ours/peer",
    1.0,
    0.5,
)


def first_token(bench: Bench) -> list[Row]:
    """Measure how long the first text of a reply takes; the two sides are not the same function.

    Raises:
        RuntimeError: a side wrote nothing.
    """
    backbone, turns = backbone_of(bench), 60 if bench.is_quick else TURNS
    (memory,) = memories_of(bench, backbone, 1, strength=0.01)
    with closing(open_store(f"sqlite:///{bench.folder / 'first.db'}")) as store:
        ours = Talk(store, backbone, memory, turns=turns)
        theirs = Talk(store, backbone, None, turns=turns)
        taken = interleaved(
            {"ours": ours.begin, "theirs": theirs.begin},
            rounds=bench.real_rounds(ROUNDS),
            device=bench.device,
            warm_up=0,
            before={"ours": ours.prepare, "theirs": theirs.prepare},
        )
    if not all((*ours.answers, *theirs.answers)):
        raise RuntimeError("a side wrote nothing, so there was no first text: nothing was measured")
    return [FIRST.row(taken["ours"], taken["theirs"])]


def flat(bench: Bench) -> list[Row]:
    """Measure our reply late and soon.

    Raises:
        RuntimeError: the same window was answered differently.
    """
    backbone = backbone_of(bench)
    (memory,) = memories_of(bench, backbone, 1, strength=0.01)
    return [late_beside_soon(bench, FLAT_REAL, backbone, memory, rounds=bench.real_rounds(FLAT_ROUNDS))]


def stored(bench: Bench) -> list[Row]:
    """Measure loading and bytes.

    Raises:
        MissingExtra: PEFT is not installed.
        RuntimeError: what was loaded computes something else than what was stored.
    """
    backbone = backbone_of(bench)
    (memory,) = memories_of(bench, backbone, 1)
    rank = 4 if bench.is_quick else RANK
    peer = adapted(backbone, ["user"], rank=rank)
    own = {name: part.float() for name, part in peer.state_dict().items() if ".lora_" in name}
    size = BYTES.row([float(len(to_bytes(memory)))], [float(len(save(own)))], is_equal=False)
    del peer, own
    return [compare(bench, LOAD, backbone, memory, tolerance=tolerance_of(backbone)), size]


def serving_peak(bench: Bench) -> list[Row]:
    """Measure what a user takes while answers are written."""
    backbone, users = backbone_of(bench), 3 if bench.is_quick else USERS
    memories = memories_of(bench, backbone, users)
    prompts = ids_of(bench, backbone, [8 if bench.is_quick else 96] * users)
    engine, mib = Engine(backbone), (1 << 20) * users

    def answer() -> None:
        batch = MemoryBatch.of(memories, backbone)
        decoding = BatchGeneration(engine, [AnswerRow(prompt, 32) for prompt in prompts], batch)
        while decoding.alive:
            decoding.step()

    answer()  # what is taken once and for all
    taken = [peak_bytes(answer, bench.device) / mib for _ in range(bench.real_rounds(ROUNDS))]
    peer = adapted(backbone, ["user"], rank=4 if bench.is_quick else RANK)
    adapter = sum(part.nbytes for name, part in peer.state_dict().items() if ".lora_" in name) / (1 << 20)
    return [SERVE_PEAK.row([max(each, 1e-6) for each in taken], [adapter] * len(taken))]


def training_peak(bench: Bench) -> list[Row]:
    """Measure what training many users at once takes."""
    backbone, users = backbone_of(bench), 3 if bench.is_quick else USERS
    weights = sum(part.nbytes for part in backbone.model.parameters())
    memories = memories_of(bench, backbone, users)
    texts = ids_of(bench, backbone, [17 if bench.is_quick else 257] * users)
    examples = [[Example(tuple(text[:-16]), tuple(text[-16:]), None)] for text in texts]
    engine = Engine(backbone)
    last_layer = LastLayer.of(engine)

    def train() -> None:
        flat = [each for own in examples for each in own]
        loss_backend = loss_backend_for(
            engine, last_layer, memories, flat, max_batch_tokens=TrainingSettings().max_batch_tokens
        )
        trained = Memories(loss_backend, backbone, memories, examples)
        for _ in range(2):
            trained.step()

    taken = [(peak_bytes(train, bench.device) + weights) / GIB for _ in range(bench.real_rounds(2))]
    return [TRAIN_PEAK.row(taken, [8.0] * len(taken))]

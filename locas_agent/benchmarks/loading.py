"""From what is stored of a user to a model that answers with it, with nothing in memory before.

Beside reading a PEFT adapter.
"""

from __future__ import annotations

from contextlib import closing

import torch

from locas_agent.backbone import Backbone
from locas_agent.benchmarks.bench import Bench, largest_difference, wrapped
from locas_agent.benchmarks.journals import commit, fill
from locas_agent.benchmarks.measuring import Goal, Row, interleaved
from locas_agent.benchmarks.peers import adapted
from locas_agent.inference import Engine
from locas_agent.memory import LocasMemory, MemoryBatch
from locas_agent.memory_cache import MemoryCache
from locas_storage import UserKey, open_store

ROUNDS = 20
USER = UserKey("default", "bench")

LOAD = Goal(
    "load",
    "stored payload to bound and ready, memory of 32 slots beside all layers in SQLite; peer: a PEFT adapter of rank "
    "64 beside all linear layers, "
    "from its folder beside an adapter that is there already",
    "ms",
    "peer/ours",
    5.0,
    20.0,
)


def load(bench: Bench) -> list[Row]:
    """Measure the row.

    Raises:
        MissingExtra: PEFT is not installed.
        RuntimeError: what was loaded computes something else than what was stored.
    """
    backbone = bench.backbone()
    return [compare(bench, LOAD, backbone, bench.memories(backbone, 1)[0], tolerance=bench.tolerance)]


def compare(bench: Bench, goal: Goal, backbone: Backbone, memory: LocasMemory, *, tolerance: float) -> Row:
    """Load a memory and an adapter in turn; raises as `load` does."""
    peer = adapted(backbone, ["stored", "kept"], rank=bench.sizes.rank)
    folder = bench.folder / "adapters"
    peer.save_pretrained(folder, selected_adapters=["stored"])
    peer_engine = Engine(wrapped(peer.get_base_model(), name="PEFT"))
    ids = torch.tensor(bench.ids(1, 8))
    peer.set_adapter("stored")
    expected = _logits(peer_engine, ids)
    found: dict[str, MemoryBatch | None] = {}

    with closing(open_store(f"sqlite:///{bench.folder / 'load.db'}")) as store:
        fill(store, USER, backbone, turns=2, words=4, repeats=2)
        commit(store, USER, memory, to_seq=2)

        def ours() -> None:
            memories = MemoryCache(backbone, store)
            found["ours"] = memories.batch([memories.current(USER)[1]])

        def drop() -> None:
            if "read" in peer.peft_config:
                peer.set_adapter("kept")
                peer.delete_adapter("read")

        def theirs() -> None:
            peer.load_adapter(folder / "stored", adapter_name="read")
            peer.set_adapter("read")

        sides = {"ours": ours, "theirs": theirs}
        taken = interleaved(sides, rounds=bench.rounds(ROUNDS), device=bench.device, before={"theirs": drop})
    engine = Engine(backbone)
    pairs = (
        (_logits(engine, ids, MemoryBatch.of([memory], backbone)), _logits(engine, ids, found["ours"])),
        (expected, _logits(peer_engine, ids)),
    )
    if any(largest_difference(stored, read) > tolerance for stored, read in pairs):
        raise RuntimeError("what was loaded computes something else than what was stored: nothing was measured")
    return goal.row(taken["ours"], taken["theirs"])


@torch.inference_mode()
def _logits(engine: Engine, ids: torch.Tensor, memory: MemoryBatch | None = None) -> torch.Tensor:
    return engine.logits(ids, memory=memory)

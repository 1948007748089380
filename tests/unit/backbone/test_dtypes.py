"""Which dtype "auto" stands for, and that a memory serves under each."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from locas_agent import AgentMemory
from locas_agent.backbone import Backbone, dtypes, model
from locas_agent.memory.serialization import to_bytes
from locas_storage import RevisionDraft, UserKey, open_store
from tests.conftest import MakeMemory

CPU = torch.device("cpu")


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[torch.dtype, float]]:
    """Seconds that a product takes, in place of the clock's; what was measured before is forgotten."""
    seconds = {torch.bfloat16: 0.01, torch.float32: 0.02}
    monkeypatch.setattr(dtypes, "product_seconds", lambda left, _: seconds[left.dtype])
    dtypes.is_fast_at_bfloat16.cache_clear()
    yield seconds
    dtypes.is_fast_at_bfloat16.cache_clear()


def test_auto_is_what_the_device_is_fast_at(timed: dict[torch.dtype, float]) -> None:
    assert dtypes.fast_dtype(CPU, dtypes.SMALL) == torch.bfloat16
    timed[torch.bfloat16] = 0.019  # no gain worth its rounding
    assert dtypes.fast_dtype(CPU, dtypes.SMALL) == torch.bfloat16  # measured once
    dtypes.is_fast_at_bfloat16.cache_clear()
    assert dtypes.fast_dtype(CPU, dtypes.SMALL) == torch.float32


def test_a_small_backbone_stays_in_fp32_wherever_it_runs(timed: dict[torch.dtype, float]) -> None:
    assert dtypes.fast_dtype(CPU, dtypes.SMALL - 1) == torch.float32
    tiny = Backbone.load("tiny", device="cpu")
    assert tiny.model.num_parameters() < dtypes.SMALL
    assert tiny.dtype == torch.float32


def test_a_larger_one_is_loaded_as_measured(
    timed: dict[torch.dtype, float], backbone_folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dtypes, "SMALL", 1)
    assert Backbone.load(backbone_folder, device="cpu").dtype == torch.bfloat16


def test_a_device_without_bf16_computes_in_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: torch.Tensor) -> float:
        raise RuntimeError("not implemented for 'BFloat16'")

    monkeypatch.setattr(dtypes, "product_seconds", refuse)
    dtypes.is_fast_at_bfloat16.cache_clear()
    assert dtypes.fast_dtype(CPU, dtypes.SMALL) == torch.float32
    dtypes.is_fast_at_bfloat16.cache_clear()


def test_the_measurement_is_a_real_one() -> None:
    dtypes.is_fast_at_bfloat16.cache_clear()
    assert dtypes.is_fast_at_bfloat16("cpu") in (True, False)
    assert dtypes.product_seconds(torch.ones(64, 64), torch.ones(64, 64)) > 0


def test_auto_is_the_default_everywhere() -> None:
    for loads in (model.Backbone.load, AgentMemory.load):
        assert inspect.signature(loads).parameters["dtype"].default == "auto"


def test_a_memory_learnt_in_one_dtype_serves_in_the_others(
    backbone_folder: str, make_memory: MakeMemory, tmp_path: Path
) -> None:
    store = open_store(f"sqlite:///{tmp_path / 'a.db'}")
    half = Backbone.load(backbone_folder, device="cpu", dtype="bfloat16")
    made = to_bytes(make_memory(1, on=half))
    with AgentMemory.load(half, store) as memory:
        memory.for_user("ada").add("user", "My dog is called Rex.")
        draft = RevisionDraft(0, half.fingerprint, "config", "0", 0, 1, 1, made)
        store.commit(UserKey("default", "ada"), draft)
    for dtype in ("bfloat16", "float32", "float16", "auto"):
        with AgentMemory.load(backbone_folder, store, device="cpu", dtype=dtype) as memory:
            assert memory.for_user("ada").recall("Who is Rex?").revision == 1

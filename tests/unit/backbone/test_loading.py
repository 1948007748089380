"""Backbones from folders: what is refused, and which attention runs."""

from __future__ import annotations

import importlib.machinery
import importlib.util
from pathlib import Path

import pytest
import torch

from locas_agent.backbone import Backbone, loading, sources
from locas_agent.errors import BackboneError, ConfigurationError, MissingExtra
from tests.conftest import byte_tokenizer, tiny_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("saved")
    tiny_model().save_pretrained(path)
    byte_tokenizer().save_pretrained(path)
    return path


def test_missing_backbones_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "_TINY_FOLDER", tmp_path / "none")
    with pytest.raises(BackboneError, match="bundled backbone is missing"):
        Backbone.load("tiny")
    with pytest.raises(BackboneError, match="no folder"):
        Backbone.load("./nowhere/at/all")
    with pytest.raises(BackboneError, match=r"config\.json"):
        Backbone.load(tmp_path)
    with pytest.raises(BackboneError, match="network"):
        Backbone.load("nobody-at-all/no-such-backbone")  # HF_HUB_OFFLINE: never leaves the machine
    with pytest.raises(ConfigurationError, match="dtype"):
        Backbone.load(tmp_path, dtype="float8")  # type: ignore[arg-type]


def test_pickled_weights_are_not_read(folder: Path, tmp_path: Path) -> None:
    for file in folder.iterdir():
        target = "pytorch_model.bin" if file.suffix == ".safetensors" else file.name
        (tmp_path / target).write_bytes(file.read_bytes())
    with pytest.raises(BackboneError, match="safetensors"):
        Backbone.load(tmp_path, device="cpu")


def test_flash_without_the_package_names_the_extra(folder: Path) -> None:
    if importlib.util.find_spec("flash_attn") is not None:
        pytest.skip("flash-attn is installed")
    with pytest.raises(MissingExtra, match=r'pip install "locas-agent\[flash\]"'):
        Backbone.load(folder, attention="flash")


def test_flash_is_taken_only_where_it_can_run(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = importlib.machinery.ModuleSpec("flash_attn", None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: spec)
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    kernel = loading.attention_kernel
    half, full = torch.bfloat16, torch.float32
    assert kernel("auto", cuda, half) == "flash_attention_2"
    assert kernel("auto", cuda, full) == kernel("auto", cpu, half) == kernel("sdpa", cuda, torch.float16) == "sdpa"
    with pytest.raises(ConfigurationError, match="CUDA device and dtype bfloat16 or float16, got cuda and float32"):
        kernel("flash", cuda, full)
    with pytest.raises(ConfigurationError, match="CUDA"):
        loading.check_attention("flash", cpu)

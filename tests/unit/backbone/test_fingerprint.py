"""What identifies a backbone: the same in every dtype, another with every change."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from locas_agent.backbone import Backbone
from tests.conftest import MakeBackbone, byte_tokenizer, tiny_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("saved")
    tiny_model().save_pretrained(path)
    byte_tokenizer().save_pretrained(path)
    return path


def test_loaded_backbone_has_the_fingerprint_of_its_parts_in_every_dtype(folder: Path, backbone: Backbone) -> None:
    loaded = [Backbone.load(folder, device="cpu", dtype=dtype) for dtype in ("float32", "bfloat16", "float16", "auto")]
    assert {each.fingerprint for each in loaded} == {backbone.fingerprint}
    assert [each.dtype for each in loaded] == [torch.float32, torch.bfloat16, torch.float16, torch.float32]
    assert loaded[1].decoder.rotary_emb.inv_freq.dtype == torch.float32  # rounding it would move every position


@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float16])
def test_weights_stored_in_half_precision_have_one_fingerprint(stored: torch.dtype, tmp_path: Path) -> None:
    tiny_model().to(stored).save_pretrained(tmp_path)
    byte_tokenizer().save_pretrained(tmp_path)
    loaded = [Backbone.load(tmp_path, device="cpu", dtype=dtype) for dtype in ("auto", "bfloat16", "float16")]
    assert [each.dtype for each in loaded] == [torch.float32, torch.bfloat16, torch.float16]
    assert len({each.fingerprint for each in loaded}) == 1


def test_fingerprint_changes_with_a_weight_a_config_field_or_a_token(
    make_backbone: MakeBackbone, backbone: Backbone
) -> None:
    weight, field, token, template = (make_backbone() for _ in range(4))
    assert weight.fingerprint == backbone.fingerprint
    changed = []
    with torch.no_grad():
        moved = tiny_model()
        moved.model.layers[1].mlp.up_proj.weight[0, 0] += 1e-6
    changed.append(Backbone(moved, byte_tokenizer(), name="weight"))
    field.model.config.rms_norm_eps = 1e-5
    token.tokenizer.add_tokens(["<new>"])
    template.tokenizer.chat_template += " "
    changed += [field, token, template]
    assert len({backbone.fingerprint, *(each.fingerprint for each in changed)}) == 5


def test_fingerprint_survives_a_call_with_padding(make_backbone: MakeBackbone, backbone: Backbone) -> None:
    used = make_backbone()
    used.tokenizer(["a", "bcd"], padding=True, truncation=True, max_length=3)
    assert used.fingerprint == backbone.fingerprint

"""Ways to compute that are ours: the same numbers as the ones they stand in for, gradients too."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from locas_agent.backbone import Backbone
from locas_agent.backbone.kernels import attention
from locas_agent.inference import Engine
from tests.conftest import byte_tokenizer
from tests.unit.core.architectures import build

ROWS, HEADS, SHARED, LENGTH, SIZE = 2, 6, 2, 9, 8
LAYER: Any = SimpleNamespace(num_key_value_groups=HEADS // SHARED, is_causal=True)


def masks() -> dict[str, Tensor | None]:
    seen = torch.ones(LENGTH, LENGTH, dtype=torch.bool).tril().expand(ROWS, 1, -1, -1).clone()
    seen[1, :, :, :3] = False  # left padding: the first three queries of the second row look at nothing
    added = torch.zeros(ROWS, 1, LENGTH, LENGTH).masked_fill(~seen, torch.finfo(torch.float32).min)
    return {"none": None, "bool": seen, "added": added}


@pytest.mark.parametrize("name", ["none", "bool", "added"])
def test_products_are_attention_with_its_gradients(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = [torch.randn(ROWS, heads, LENGTH, SIZE) for heads in (HEADS, SHARED, SHARED)]
    mask, found = masks()[name], []
    tokens = torch.ones(ROWS, LENGTH, 1, 1)
    tokens[1, :3] = 0 if name != "none" else 1
    for attend in (attention.attention, sdpa_attention_forward):
        parts = [part.clone().requires_grad_(True) for part in drawn]
        out = attend(LAYER, *parts, mask, scaling=0.3)[0] * tokens
        (out * torch.arange(out.numel()).view(out.shape).cos()).sum().backward()
        found.append([out.detach(), *(part.grad for part in parts)])
        monkeypatch.setattr(attention, "_products", None)  # the second way must not be the first
    for mine, theirs in zip(*found, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-4)


def test_products_serve_short_texts_with_gradients_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(attention, "_products", refuse)
    one = torch.randn(1, HEADS, 1, SIZE, requires_grad=True)
    long = torch.randn(1, HEADS, attention.LONGEST + 1, SIZE, requires_grad=True)
    for query in (one, long, torch.randn(1, HEADS, LENGTH, SIZE)):
        key = torch.randn(1, SHARED, query.shape[2], SIZE)
        assert attention.attention(LAYER, query, key, key, None, scaling=0.3)[0].shape == query.transpose(1, 2).shape
    with pytest.raises(AssertionError):
        attention.attention(LAYER, long[:, :, :LENGTH], long[:, :SHARED, :LENGTH], long[:, :SHARED, :LENGTH], None)


@pytest.mark.parametrize("name", ["qwen3", "mistral", "gemma3"])
def test_backbone_with_it_is_the_same_function(name: str) -> None:
    plain, ours = (Backbone(build(name), byte_tokenizer(), name=name) for _ in range(2))
    ours.model.set_attn_implementation(attention.register())
    ids = torch.arange(10, 34).view(2, 12)
    mask = torch.ones(2, 12, dtype=torch.int64)
    mask[1, :4] = 0
    torch.testing.assert_close(
        Engine(ours).logits(ids, attention_mask=mask)[mask.bool()],
        Engine(plain).logits(ids, attention_mask=mask)[mask.bool()],
        atol=1e-5,
        rtol=1e-4,
    )
    assert ours.fingerprint == plain.fingerprint

"""Kinds of FFN as objects: which modules each recognises, and a kind of one's own."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from locas_agent.backbone import Backbone
from locas_agent.backbone.ffn import KINDS, NamedProjections, find_ffns
from locas_agent.errors import UnsupportedBackbone
from tests.conftest import byte_tokenizer
from tests.unit.core.architectures import build

D, N = 6, 10


class Ffn(nn.Module):
    """A gated FFN whose projections have the names that are asked for."""

    def __init__(self, *gate_up: str, down: str = "down_proj") -> None:
        super().__init__()
        self.act_fn = nn.SiLU()
        for name in gate_up:
            self.add_module(name, nn.Linear(D, N * 2 // len(gate_up), bias=False))
        self.add_module(down, nn.Linear(N, D, bias=False))


def decoder(*ffns: nn.Module) -> nn.Module:
    made = nn.Module()
    made.layers = nn.ModuleList(nn.Sequential(nn.Identity(), ffn) for ffn in ffns)
    return made


def test_two_projections_and_a_fused_one_are_found() -> None:
    parted, fused = Ffn("gate_proj", "up_proj"), Ffn("gate_up_proj")
    first, second = find_ffns(decoder(parted, fused), name="made up")
    assert (first.module, second.module) == (parted, fused)
    assert torch.equal(first.up_rows(), parted.get_submodule("up_proj").weight)
    assert torch.equal(second.gate_rows(), fused.get_submodule("gate_up_proj").weight[:N])
    assert torch.equal(second.up_rows(), fused.get_submodule("gate_up_proj").weight[N:])
    assert first.n_neurons == second.n_neurons == N


def test_a_kind_of_ones_own_is_one_line() -> None:
    other = Ffn("w1", "w3", down="w2")
    with pytest.raises(UnsupportedBackbone, match="found 0"):
        find_ffns(decoder(other), name="made up")
    (site,) = find_ffns(decoder(other), name="made up", kinds=(*KINDS, NamedProjections(("w1", "w3"), down="w2")))
    assert torch.equal(site.gate_rows(), other.get_submodule("w1").weight)
    assert torch.equal(site.up_rows(), other.get_submodule("w3").weight)
    assert torch.equal(site.down_rows(), other.get_submodule("w2").weight.t())


@pytest.mark.parametrize("wrong", ["no activation", "another width", "three dimensions"])
def test_parts_that_do_not_fit_are_no_ffn(wrong: str) -> None:
    ffn = Ffn("gate_proj", "up_proj")
    if wrong == "no activation":
        del ffn.act_fn
    elif wrong == "another width":
        ffn.add_module("up_proj", nn.Linear(D, N + 1, bias=False))
    else:
        ffn.add_module("gate_proj", nn.Conv1d(D, N, 1))
    assert [kind.site(ffn) for kind in KINDS] == [None, None]


def test_fused_projection_is_read_as_gate_then_up() -> None:
    backbone = Backbone(build("phi3"), byte_tokenizer(), name="phi3")
    fused = backbone.model.model.layers[0].mlp.gate_up_proj.weight
    assert torch.equal(backbone.sites[0].gate_rows(), fused[:48])
    assert torch.equal(backbone.sites[0].up_rows(), fused[48:])

"""Locas-MLP at work on a small OPT trained here.

What reading with a memory is worth, what is refused, and that a memory leaves no trace.

The equations are checked in `tests/conformance/test_mlp_equations.py`.
"""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.resources import files

import pytest
import torch
from torch import Tensor
from transformers import OPTConfig, OPTForCausalLM

from locas_agent.backbone import Backbone
from locas_agent.errors import ConfigurationError, IncompatibleMemory, UnsupportedBackbone
from locas_agent.evaluation.drift import PROSE
from locas_agent.paper.mlp import MlpMemory, ReluBackbone, clone, compress, learn_by_backprop, learn_by_writing, write
from tests.conftest import byte_tokenizer
from tests.unit.core.architectures import build

TRAINING_STEPS = 250


def letters(text: str) -> Tensor:
    return torch.tensor(byte_tokenizer().encode(text, add_special_tokens=False))


def corpus() -> Tensor:
    """The neutral text that ships with the package, and not the page that is read here."""
    lines = [
        json.loads(line)
        for line in files("locas_agent.training").joinpath("neutral.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    return letters(
        "\n".join(line.get("text") or "\n".join(one["content"] for one in line["messages"]) for line in lines)
    )


@pytest.fixture(scope="module")
def small() -> ReluBackbone:
    """Two layers that have learnt to spell: some twenty seconds of training."""
    torch.manual_seed(0)
    config = OPTConfig(
        vocab_size=259,
        hidden_size=64,
        ffn_dim=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=256,
        word_embed_proj_dim=64,
        dropout=0.0,
        pad_token_id=256,
        bos_token_id=256,
        eos_token_id=258,
    )
    model, text = OPTForCausalLM(config), corpus()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for step in range(TRAINING_STEPS):
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * (1 - step / TRAINING_STEPS)
        starts = torch.randint(0, len(text) - 97, (16,)).tolist()
        rows = torch.stack([text[start : start + 97] for start in starts])
        loss = torch.nn.functional.cross_entropy(
            model(input_ids=rows).logits[:, :-1].flatten(0, 1), rows[:, 1:].flatten()
        )
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return ReluBackbone(model, name="small opt")


@pytest.fixture(scope="module")
def opt() -> ReluBackbone:
    return ReluBackbone(build("opt"), name="opt")


@pytest.mark.slow
def test_a_passage_that_comes_again_is_foretold_better_by_writing_by_nl_svd_and_by_backprop(
    small: ReluBackbone,
) -> None:
    page = letters(PROSE)[:300].repeat(2)
    # the window is too short to see the passage's first coming; a step so small that the memory says nothing is the
    # bare backbone in the same windows
    bare = learn_by_backprop(small, page, width=1, learning_rate=1e-12, chunk_tokens=16)
    written = learn_by_writing(small, page, epsilon=0.01, capacity=1000, keep=1, chunk_tokens=16)
    compressed = learn_by_writing(small, page, epsilon=0.01, capacity=64, keep=32, chunk_tokens=16)
    trained = learn_by_backprop(small, page, width=32, learning_rate=3e-2, chunk_tokens=16)
    assert bare.nll.mean() < 3.0  # it has learnt to spell: chance is 5.6
    assert (written.memory.width, trained.memory.width) == (599, 32)
    assert 32 <= compressed.memory.width < 64
    for read in (written, compressed, trained):
        assert len(read.nll) == 599
        torch.testing.assert_close(
            read.nll[:16], bare.nll[:16], atol=1e-5, rtol=0
        )  # each chunk is scored before it is learnt
        assert read.nll[300:].mean() < bare.nll[300:].mean() - 0.01


def test_without_a_memory_the_backbone_is_the_model_and_a_memory_leaves_no_trace(opt: ReluBackbone) -> None:
    ids = torch.arange(12)[None]
    plain = build("opt").eval()
    with torch.no_grad():
        expected = plain(input_ids=ids).logits
        assert torch.equal(opt.logits(ids), expected)
        assert not torch.equal(opt.logits(ids, write(opt, ids[0], epsilon=0.5)), expected)
        assert torch.equal(opt.logits(ids), expected)
        assert torch.equal(opt.logits(ids, clone(opt, ids[0], width=3)), expected)  # values are zero
    assert not any(parameter.requires_grad for parameter in opt.model.parameters())


def test_slots_written_on_top_of_a_memory_see_it_and_join_it(opt: ReluBackbone) -> None:
    ids = torch.arange(10)
    first = write(opt, ids, epsilon=0.3)
    alone, seeing = write(opt, ids, epsilon=0.3, first=6), write(opt, ids, first, epsilon=0.3, first=6)
    assert (alone.width, seeing.width, first.parameter_count) == (4, 4, 2 * 2 * 9 * 32)
    assert not torch.allclose(alone.values, seeing.values, atol=1e-3)
    both = first.joined(seeing)
    hidden = torch.randn(5, 32)
    torch.testing.assert_close(
        both.output(hidden, 1), first.output(hidden, 1) + seeing.output(hidden, 1), atol=1e-5, rtol=1e-4
    )


def test_gated_and_other_backbones_are_refused_and_each_loader_names_what_serves(opt: ReluBackbone) -> None:
    with pytest.raises(UnsupportedBackbone, match=r"looked for fc1, fc2 and a ReLU.*OPT"):
        ReluBackbone(build("qwen3"), name="qwen3")
    smooth = build("opt")
    for layer in smooth.get_decoder().layers:
        layer.activation_fn = torch.nn.GELU()
    with pytest.raises(UnsupportedBackbone, match="ReLU"):
        ReluBackbone(smooth, name="smooth")
    with pytest.raises(UnsupportedBackbone, match="called 'layers'"):
        ReluBackbone(build("gpt2"), name="gpt2")
    with pytest.raises(UnsupportedBackbone, match=r"looked for one gated FFN.*locas_agent\.paper\.mlp\.ReluBackbone"):
        Backbone(build("opt"), byte_tokenizer(), name="opt")


def test_bad_input_is_refused(opt: ReluBackbone) -> None:
    ids = torch.arange(8)
    memory = write(opt, ids, epsilon=0.1)
    for call, message in (
        (lambda: write(opt, ids[:1], epsilon=0.1), "at least 2 tokens"),
        (lambda: write(opt, ids, epsilon=0.0), "epsilon is positive"),
        (lambda: write(opt, ids, epsilon=0.1, first=8), r"1\.\.7"),
        (lambda: clone(opt, ids, width=49), r"1\.\.48"),
        (lambda: compress(memory, keep=8), r"1\.\.7"),
        (lambda: opt.logits(torch.zeros(1, 300, dtype=torch.int64)), "up to 256"),
        (lambda: learn_by_writing(opt, ids[:1], epsilon=0.1, capacity=4, keep=2), "at least 2 tokens"),
        (lambda: learn_by_writing(opt, ids, epsilon=0.1, capacity=4, keep=4), "fewer than the capacity"),
        (lambda: learn_by_backprop(opt, ids, width=2, learning_rate=0.1, window_tokens=256), "256 at most"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            call()


def test_a_memory_that_is_none_is_refused(opt: ReluBackbone) -> None:
    keys = torch.randn(2, 3, 32)
    good = MlpMemory(keys, keys, torch.ones(2))
    for broken, message in (
        (lambda: replace(good, values=keys[:, :2]), "one shape"),
        (lambda: replace(good, keys=keys[:, :0], values=keys[:, :0]), "W >= 1"),
        (lambda: replace(good, keys=keys.double()), "fp32"),
        (lambda: replace(good, values=keys * torch.nan), "not finite"),
        (lambda: opt.logits(torch.arange(4)[None], MlpMemory(keys[:1], keys[:1], torch.ones(1))), "2 layers"),
        (lambda: good.joined(replace(good, scale=2 * torch.ones(2))), "another scale"),
    ):
        with pytest.raises(IncompatibleMemory, match=message):
            broken()

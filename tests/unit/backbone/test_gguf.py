"""Backbones from .gguf files: what is loaded is what was written, and what cannot be loaded is said."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch

from locas_agent.backbone import Backbone
from locas_agent.errors import BackboneError, MissingExtra, UnsupportedBackbone
from tests.conftest import byte_tokenizer
from tests.unit.core.gguf_files import FAMILIES, SIZE, random_model, tensors_of, write_gguf

Q8 = gguf.GGMLQuantizationType.Q8_0
IDS = torch.tensor([[1, 72, 105, 33, 200, 7, 64, 64, 12]])


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gguf(tmp_path_factory.mktemp("gguf") / "llama.gguf", random_model("llama"), "llama", form=Q8)


def bare(path: Path, architecture: str, **numbers: int) -> Path:
    """A file that names an architecture and has no tensors."""
    writer = gguf.GGUFWriter(path, architecture)
    for key, value in numbers.items():
        writer.add_uint32(f"{architecture}.{key.replace('__', '.')}", value)
    writer.add_token_list(["a", "b"])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("architecture", FAMILIES)
def test_what_is_loaded_computes_what_was_written(architecture: str, tmp_path: Path) -> None:
    written = random_model(architecture)
    loaded = Backbone.load(write_gguf(tmp_path / "a.gguf", written, architecture), device="cpu").model
    with torch.no_grad():
        expected, got = written(IDS).logits, loaded(IDS).logits
    # gemma's norms are stored with one added, and rounded there; the rest is the same numbers in the same order
    torch.testing.assert_close(got, expected, atol=2e-4 if architecture == "gemma3" else 0, rtol=0)
    assert loaded.config.tie_word_embeddings == written.config.tie_word_embeddings  # an export is written by it
    head, embedding = loaded.get_output_embeddings().weight, loaded.get_input_embeddings().weight
    assert (head.data_ptr() == embedding.data_ptr()) == written.config.tie_word_embeddings
    assert written.config.tie_word_embeddings or not torch.equal(head, embedding)


def test_every_dtype_has_one_fingerprint_and_another_weight_another(file: Path, tmp_path: Path) -> None:
    loaded = [Backbone.load(file, device="cpu", dtype=dtype) for dtype in ("float32", "bfloat16", "float16", "auto")]
    assert len({each.fingerprint for each in loaded}) == 1
    assert [each.dtype for each in loaded] == [torch.float32, torch.bfloat16, torch.float16, torch.float32]
    model = random_model("llama")
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[0] *= 2
    other = write_gguf(tmp_path / "other.gguf", model, "llama", form=Q8)
    assert Backbone.load(other, device="cpu").fingerprint != loaded[0].fingerprint


def test_saved_as_a_folder_it_is_the_same_backbone(file: Path, tmp_path: Path) -> None:
    loaded = Backbone.load(file, device="cpu", dtype="float32")
    loaded.model.save_pretrained(tmp_path)
    loaded.tokenizer.save_pretrained(tmp_path)
    again = Backbone.load(tmp_path, device="cpu", dtype="float32")
    with torch.no_grad():
        assert torch.equal(again.model(IDS).logits, loaded.model(IDS).logits)
    assert again.encode_chat([{"role": "user", "content": "12 12"}]) == loaded.encode_chat(
        [{"role": "user", "content": "12 12"}]
    )


@pytest.mark.parametrize("form", ["F16", "BF16", "Q8_0", "Q4_0", "Q5_0", "Q4_1"])
def test_weights_are_dequantised(form: str, tmp_path: Path) -> None:
    model = random_model("llama")
    kind = gguf.GGMLQuantizationType[form]
    loaded = Backbone.load(write_gguf(tmp_path / "a.gguf", model, "llama", form=kind), device="cpu", dtype="float32")
    exact = model.model.layers[0].mlp.gate_proj.weight.detach()
    got = loaded.sites[0].gate_rows()
    expected = gguf.dequantize(gguf.quantize(exact.numpy(), kind), kind)
    assert torch.equal(got, torch.from_numpy(np.array(expected)))
    assert not torch.equal(got, exact)


def test_chat_template_and_end_of_turn_are_the_files(file: Path) -> None:
    loaded, known = Backbone.load(file, device="cpu"), byte_tokenizer()
    assert loaded.has_chat_template
    assert loaded.end_id == known.convert_tokens_to_ids("<|im_end|>")
    messages = [{"role": "user", "content": "Hi<|im_end|>"}]
    assert loaded.encode_chat(messages) == known.apply_chat_template(
        messages, add_generation_prompt=True, return_dict=False, sanitize_control_tokens=True
    )


def test_end_of_turn_beside_the_end_of_text_is_known(tmp_path: Path) -> None:
    path = write_gguf(
        tmp_path / "a.gguf",
        random_model("llama"),
        "llama",
        template="{{ messages[0].content }}",
        change=lambda writer: writer.add_eot_token_id(257),
    )
    loaded = Backbone.load(path, device="cpu")
    assert loaded.end_id == 257
    assert loaded.stop_ids == {257, 258}


def test_digits_are_split_by_the_rule_that_the_file_names(tmp_path: Path) -> None:
    model = random_model("llama")
    tokens = {
        rule: Backbone.load(write_gguf(tmp_path / f"{rule}.gguf", model, "llama", rule=rule), device="cpu")
        for rule in ("gpt-2", "smollm")
    }
    one, two, both, breaks = 16, 17, SIZE - 3, SIZE - 2
    assert tokens["gpt-2"].encode("12") == [both]  # the vocabulary has a token for the two digits
    assert tokens["smollm"].encode("12") == [one, two]
    # a space belongs to the word behind it, unless that is a digit that stands apart
    assert tokens["smollm"].encode("\n\n1") == [breaks, one]
    assert tokens["gpt-2"].encode("\n\n1") != [breaks, one]
    assert tokens["smollm"].encode("a  b") == tokens["gpt-2"].encode("a  b")


def test_an_unknown_rule_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write_gguf(tmp_path / "a.gguf", random_model("llama"), "llama", rule="never-heard-of")
    Backbone.load(path, device="cpu")
    assert ["never-heard-of" in record.message for record in caplog.records] == [True]


def sentencepiece(writer: gguf.GGUFWriter) -> None:
    """A vocabulary with bytes to fall back on and no chat template, as files of Llama 2 have it."""
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁h", "hi", *"▁hi"]
    kinds = [gguf.TokenType.UNKNOWN, *[gguf.TokenType.CONTROL] * 2, *[gguf.TokenType.BYTE] * 256]
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([-float(at) for at in range(len(tokens))])
    writer.add_token_types([*kinds, *[gguf.TokenType.NORMAL] * 5])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)


def test_a_vocabulary_of_sentencepiece_is_read(tmp_path: Path) -> None:
    model = random_model("llama", vocab_size=264)
    loaded = Backbone.load(write_gguf(tmp_path / "a.gguf", model, "llama", tokenizer=sentencepiece), device="cpu")
    assert loaded.decode(loaded.encode("hi\nhi é")) == "hi\nhi é"
    assert loaded.tokenizer.convert_ids_to_tokens(loaded.encode("hi")) == ["▁h", "i"]
    assert not loaded.has_chat_template
    line = loaded.tokenizer.convert_tokens_to_ids("<0x0A>")
    assert (loaded.end_id, loaded.stop_ids) == (line, {line, 2})
    assert loaded.encode_chat([{"role": "user", "content": "hi"}])[0] == 1  # the beginning of text


def scaled(factor: float) -> tuple[Any, dict[str, np.ndarray]]:
    """A Llama whose positions are scaled as since 3.1, and its tensors with the factors."""
    rule = {"rope_type": "llama3", "rope_theta": 500000.0, "factor": factor, "low_freq_factor": 1.0}
    rule |= {"high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
    model, plain = random_model("llama", rope_parameters=rule), random_model("llama", rope_theta=500000.0)
    factors = plain.model.rotary_emb.inv_freq / model.model.rotary_emb.inv_freq
    return model, tensors_of(model, "llama") | {"rope_freqs.weight": factors.numpy()}


def test_scaled_positions_of_llama_are_read(tmp_path: Path) -> None:
    model, tensors = scaled(32.0)
    assert tensors["rope_freqs.weight"].max() > 2  # what would be missed
    loaded = Backbone.load(write_gguf(tmp_path / "a.gguf", model, "llama", tensors=tensors), device="cpu").model
    torch.testing.assert_close(loaded.model.rotary_emb.inv_freq, model.model.rotary_emb.inv_freq)
    assert loaded.config.rope_parameters["factor"] == pytest.approx(32.0)


def test_positions_scaled_otherwise_are_refused(tmp_path: Path) -> None:
    model, tensors = scaled(32.0)
    path = write_gguf(
        tmp_path / "a.gguf", model, "llama", tensors=tensors | {"rope_freqs.weight": np.ones(4, np.float32) * 3}
    )
    with pytest.raises(UnsupportedBackbone, match="rope_freqs"):
        Backbone.load(path, device="cpu")
    change = lambda writer: writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)  # noqa: E731
    path = write_gguf(tmp_path / "b.gguf", random_model("llama"), "llama", change=change)
    with pytest.raises(UnsupportedBackbone, match="yarn"):
        Backbone.load(path, device="cpu")


def test_a_file_that_ends_anywhere_is_refused(file: Path, tmp_path: Path) -> None:
    whole = file.read_bytes()
    cut = tmp_path / "cut.gguf"
    for length in (0, 3, 4, 10, 24, 30, 200, 2000, 9000, len(whole) // 2, len(whole) - 64):
        cut.write_bytes(whole[:length])
        with pytest.raises(BackboneError, match=r"damaged or cut short|no GGUF file"):
            Backbone.load(cut, device="cpu")


def test_a_damaged_header_is_a_backbone_error(file: Path, tmp_path: Path) -> None:
    whole, damaged = file.read_bytes(), tmp_path / "damaged.gguf"
    draw = np.random.default_rng(0)
    refused = 0
    for at in draw.integers(4, 2000, size=60):
        damaged.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        try:
            Backbone.load(damaged, device="cpu")
        except BackboneError:
            refused += 1
    assert refused > 5  # a changed letter of a name or a token is no damage that a file without digests shows


def test_what_is_no_gguf_file_is_named(file: Path, tmp_path: Path) -> None:
    other = tmp_path / "model.safetensors"
    other.write_bytes(b"\x10\0\0\0\0\0\0\0{}")
    with pytest.raises(BackboneError, match="no GGUF file"):
        Backbone.load(other)
    with pytest.raises(BackboneError, match="no file"):
        Backbone.load("models/absent.gguf")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.gguf").write_bytes(file.read_bytes())
    with pytest.raises(BackboneError, match=r"it holds a\.gguf: name that file"):
        Backbone.load(tmp_path / "folder")
    version = tmp_path / "old.gguf"
    version.write_bytes(b"GGUF\x01\0\0\0" + bytes(64))
    with pytest.raises(BackboneError, match="of version 1"):
        Backbone.load(version)


def test_unknown_architectures_and_those_without_gated_ffns_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedBackbone, match=r"'teapot'.*read are gemma2.*llama.*qwen2"):
        Backbone.load(bare(tmp_path / "a.gguf", "teapot", block_count=2))
    with pytest.raises(UnsupportedBackbone, match="'qwen35', which is not read"):
        Backbone.load(bare(tmp_path / "e.gguf", "qwen35", block_count=2))
    sizes = {"block_count": 2, "embedding_length": 32, "context_length": 64, "attention__head_count": 4}
    with pytest.raises(UnsupportedBackbone, match="layers"):
        Backbone.load(bare(tmp_path / "b.gguf", "gpt2", **sizes))
    with pytest.raises(UnsupportedBackbone, match="gated FFN"):
        Backbone.load(bare(tmp_path / "c.gguf", "starcoder2", feed_forward_length=48, **sizes))
    with pytest.raises(UnsupportedBackbone, match="no causal language model"):
        Backbone.load(bare(tmp_path / "d.gguf", "t5", **sizes))


def test_missing_and_misshapen_tensors_are_refused(tmp_path: Path) -> None:
    model = random_model("llama")
    tensors = tensors_of(model, "llama")
    less = {name: values for name, values in tensors.items() if name != "blk.1.ffn_up.weight"}
    with pytest.raises(BackboneError, match=r"lacks 1 tensors.*up_proj"):
        Backbone.load(write_gguf(tmp_path / "a.gguf", model, "llama", tensors=less), device="cpu")
    smaller = tensors | {"blk.1.ffn_up.weight": tensors["blk.1.ffn_up.weight"][:32]}
    with pytest.raises(BackboneError, match=r"ffn_up.* has the shape \(32, 32\), expected \(48, 32\)"):
        Backbone.load(write_gguf(tmp_path / "b.gguf", model, "llama", tensors=smaller), device="cpu")


def test_one_part_of_several_is_refused(tmp_path: Path) -> None:
    path = write_gguf(
        tmp_path / "a-00001-of-00003.gguf",
        random_model("llama"),
        "llama",
        change=lambda writer: writer.add_uint16("split.count", 3),
    )
    with pytest.raises(BackboneError, match="one of 3 parts"):
        Backbone.load(path)


def test_without_the_package_the_extra_is_named(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "gguf" else found(name))
    with pytest.raises(MissingExtra, match=r'pip install "locas-agent\[gguf\]"'):
        Backbone.load(file)


def test_a_command_that_loads_a_file_says_nothing_on_standard_error(file: Path) -> None:
    program = (
        "from locas_agent.cli.output import keep_libraries_quiet; keep_libraries_quiet()\n"
        f"from locas_agent import Backbone; print(Backbone.load({str(file)!r}, device='cpu').n_layers)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("2\n", "")

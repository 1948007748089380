"""Exports: the same function in other formats, marked, whole or not there, read back only if nothing is wrong."""

from __future__ import annotations

import json
import resource
import shutil
import signal
import stat
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, BitNetConfig, BitNetForCausalLM

from locas_agent.backbone import Backbone
from locas_agent.errors import ConfigurationError, CorruptPayload, ExchangeError, IncompatibleMemory
from locas_agent.exports import portable
from locas_agent.exports.dense import merge, write_dense
from locas_agent.exports.lora import ADAPTER, write_lora
from locas_agent.exports.manifest import MANIFEST_NAME, digest_of
from locas_agent.exports.padded import write_padded_base
from locas_agent.exports.portable import PAYLOAD, write_portable
from locas_agent.exports.reading import read_export
from locas_agent.inference import Engine
from locas_agent.memory import LocasMemory, MemoryBatch
from locas_agent.training.initialization import initialize
from locas_storage.records import bounds
from tests.conftest import MakeBackbone, MakeMemory, byte_tokenizer, tiny_model
from tests.unit.core.architectures import SIZES, SUPPORTED, build

pytestmark = pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing`:FutureWarning"
)  # PEFT 0.21 asks transformers 5.23 so

WRITERS: dict[str, Callable[..., Path]] = {"dense": write_dense, "lora": write_lora, "memory": write_portable}
IDS = torch.randint(0, 256, (2, 20), generator=torch.Generator().manual_seed(5))


def attached(backbone: Backbone, memory: LocasMemory) -> Tensor:
    return Engine(backbone).logits(IDS, memory=MemoryBatch.of([memory, memory], backbone))


def on_layer(memory: LocasMemory, layer: int) -> LocasMemory:
    return replace(
        memory,
        slab=memory.slab[layer][None].contiguous(),
        scale=memory.scale[layer][None],
        neuron_indices=memory.neuron_indices[layer][None],
        layers=(layer,),
    )


def with_peft(folder: Path, base: Path) -> Any:
    from peft import PeftModel

    return PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), folder)


@pytest.mark.parametrize(
    ("family", "where"),
    [
        *((family, "every layer") for family in sorted(SUPPORTED)),
        *((family, where) for family in ("gemma2", "phi3", "qwen3") for where in ("last layer", "first layer")),
    ],
)
def test_dense_and_lora_compute_what_the_attached_memory_computes(
    family: str, where: str, make_memory: MakeMemory, tmp_path: Path
) -> None:
    backbone = Backbone(build(family), byte_tokenizer(), name=family)
    memory = make_memory(2, on=backbone)
    memory = memory if where == "every layer" else on_layer(memory, -1 if where == "last layer" else -2)
    bare, expected = Engine(backbone).logits(IDS), attached(backbone, memory)
    largest = max(1.0, float(expected.abs().max()))
    assert (bare - expected).abs().max() > 0.1
    dense = write_dense(backbone, memory, tmp_path / "dense", multiple=32)
    adapter = write_lora(backbone, memory, tmp_path / "lora")
    with torch.no_grad():
        model = AutoModelForCausalLM.from_pretrained(dense)
        # fp32: sums over 64 neurons, half of a GEMM's order differs from 48 and 4 apart
        assert (model(input_ids=IDS).logits - expected).abs().max() <= 1e-5
        assert model.config.get_text_config().intermediate_size == 64
        base = AutoModelForCausalLM.from_pretrained(adapter / "base")
        assert (base(input_ids=IDS).logits - bare).abs().max() <= 1e-6 * largest
        # the same products in the same order; only sums over 52 instead of 48 numbers may round otherwise
        assert (with_peft(adapter, adapter / "base")(input_ids=IDS).logits - expected).abs().max() <= 1e-6 * largest
    for place in (dense, adapter):
        manifest, back = read_export(backbone, place)
        torch.testing.assert_close(
            back.slab, memory.clipped().slab, atol=1e-6, rtol=1e-6
        )  # down rows: times and through tau
        assert torch.equal(back.scale, memory.scale)
        assert torch.equal(back.neuron_indices, memory.neuron_indices)
        assert (manifest.n_layers, manifest.width, back.initialization) == (memory.n_layers, 4, memory.initialization)
        assert back.layers == memory.layers
        torch.testing.assert_close(attached(backbone, back), expected, atol=1e-5, rtol=1e-5)


def test_portable_file_gives_the_memory_bit_for_bit(
    backbone: Backbone, make_memory: MakeMemory, tmp_path: Path
) -> None:
    memory = make_memory(3, down=5.0)
    manifest, back = read_export(backbone, write_portable(backbone, memory, tmp_path / "ada.locas", revision=7))
    assert torch.equal(back.slab, memory.clipped().slab)
    assert torch.equal(back.scale, memory.scale)
    assert (manifest.form, manifest.revision, manifest.backbone) == ("memory", 7, "random-0")


def test_every_export_says_that_it_is_personal_data(
    backbone: Backbone, make_memory: MakeMemory, tmp_path: Path
) -> None:
    memory = make_memory(1)
    for form, write in WRITERS.items():
        place = write(backbone, memory, tmp_path / form)
        assert stat.S_IMODE(place.stat().st_mode) == (0o600 if form == "memory" else 0o700)
        if form == "memory":
            with zipfile.ZipFile(place) as archive:
                manifest = json.loads(archive.read(MANIFEST_NAME))
        else:
            manifest = json.loads((place / MANIFEST_NAME).read_text(encoding="utf-8"))
            assert "personal-data" in (place / "README.md").read_text(encoding="utf-8")
        assert manifest["personal_data"] is True
        assert "Personal data of one user" in manifest["notice"]
    assert json.loads((tmp_path / "dense/config.json").read_text(encoding="utf-8"))["locas_personal_data"] is True
    with safe_open(tmp_path / "lora" / ADAPTER, framework="pt") as adapter:
        assert adapter.metadata()["personal_data"] == "true"
    # the padded backbone is nobody's
    assert json.loads((tmp_path / "lora/base/locas_base.json").read_text(encoding="utf-8"))["personal_data"] is False
    assert "locas_personal_data" not in json.loads((tmp_path / "lora/base/config.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(("multiple", "width"), [(1, 52), (16, 64), (128, 128)])
def test_ffn_width_is_rounded_up_to_the_multiple(
    backbone: Backbone, make_memory: MakeMemory, multiple: int, width: int
) -> None:
    memory = make_memory(1)
    model: Any = merge(backbone, memory, multiple=multiple)
    assert {layer.mlp.down_proj.in_features for layer in model.model.layers} == {width}
    assert model.config.intermediate_size == width
    with torch.no_grad():
        torch.testing.assert_close(model(input_ids=IDS).logits, attached(backbone, memory), atol=1e-5, rtol=1e-5)


def test_backbone_is_untouched_and_the_copy_free_of_our_hooks(
    make_backbone: MakeBackbone, make_memory: MakeMemory
) -> None:
    backbone = make_backbone()
    before = {name: tensor.clone() for name, tensor in backbone.model.state_dict().items()}
    model = merge(backbone, make_memory(1, on=backbone))
    assert backbone.config.intermediate_size == 48
    assert all(torch.equal(tensor, before[name]) for name, tensor in backbone.model.state_dict().items())
    assert any(module._forward_hooks for module in backbone.model.modules())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_users_of_different_width_share_one_padded_base(
    backbone: Backbone, make_memory: MakeMemory, tmp_path: Path
) -> None:
    base = write_padded_base(backbone, tmp_path / "base", slots=9)
    for seed, width in ((1, 3), (2, 9)):
        memory = make_memory(seed, width=width)
        folder = write_lora(backbone, memory, tmp_path / f"user-{seed}", base=base)
        assert not (folder / "base").exists()
        with torch.no_grad():
            torch.testing.assert_close(
                with_peft(folder, base)(input_ids=IDS).logits, attached(backbone, memory), atol=2e-6, rtol=1e-6
            )
        torch.testing.assert_close(read_export(backbone, folder)[1].slab, memory.clipped().slab, atol=1e-6, rtol=1e-6)
    with pytest.raises(ExchangeError, match="needs 10"):
        write_lora(backbone, make_memory(3, width=10), tmp_path / "wider", base=base)


def test_base_is_written_where_it_is_named_and_checked_where_it_is_there(
    backbone: Backbone, make_backbone: MakeBackbone, make_memory: MakeMemory, tmp_path: Path
) -> None:
    write_lora(backbone, make_memory(1), tmp_path / "ada", base=tmp_path / "base")
    assert (tmp_path / "base/model.safetensors").is_file()
    other = make_backbone(seed=7)
    with pytest.raises(ExchangeError, match="pads the backbone"):
        write_lora(other, make_memory(1, on=other), tmp_path / "ben", base=tmp_path / "base")
    with pytest.raises(ExchangeError, match="no padded backbone"):
        write_lora(backbone, make_memory(1), tmp_path / "ben", base=tmp_path / "ada")


def test_half_precision_adapter_is_the_attached_memory(
    make_backbone: MakeBackbone, make_memory: MakeMemory, tmp_path: Path
) -> None:
    half = make_backbone()
    half.model.to(torch.bfloat16)
    memory = make_memory(1, on=half)
    folder = write_lora(half, memory, tmp_path / "lora")
    with torch.no_grad():
        got, expected = with_peft(folder, folder / "base")(input_ids=IDS).logits, attached(half, memory)
    assert got.dtype == torch.bfloat16
    # bf16 keeps 8 bits: one rounding of a logit of up to 8 is 0.03; the memory itself moves logits by more than 1
    assert (got - expected).abs().max() <= 0.07
    assert (Engine(half).logits(IDS) - expected).abs().max() > 1.0


# What cannot be written
# -------------------------------------------------------------------------------------------------


def test_layers_of_unequal_width_are_refused_but_for_the_portable_form(make_memory: MakeMemory, tmp_path: Path) -> None:
    model: Any = tiny_model()
    mlp = model.model.layers[1].mlp
    mlp.gate_proj, mlp.up_proj, mlp.down_proj = (
        nn.Linear(32, 40, bias=False),
        nn.Linear(32, 40, bias=False),
        nn.Linear(40, 32, bias=False),
    )
    backbone = Backbone(model, byte_tokenizer(), name="uneven")
    memory = make_memory(1, on=backbone)
    assert (
        attached(backbone, memory) - Engine(backbone).logits(IDS)
    ).abs().max() > 0.1  # it can be attached all the same
    for write in (write_dense, write_lora):
        with pytest.raises(ExchangeError, match="FFNs of 40, 48 neurons"):
            write(backbone, memory, tmp_path / "refused")
    assert list(tmp_path.iterdir()) == []
    assert torch.equal(
        read_export(backbone, write_portable(backbone, memory, tmp_path / "file"))[1].slab, memory.clipped().slab
    )


def test_architecture_with_more_per_neuron_than_three_weights_is_refused(make_memory: MakeMemory) -> None:
    """BitNet norms over its neurons: a wider one has other tensors, and another function."""
    sizes = {key: value for key, value in SIZES.items() if key != "initializer_range"}
    backbone = Backbone(BitNetForCausalLM(BitNetConfig(**sizes)), byte_tokenizer(), name="bitnet")
    with pytest.raises(ExchangeError, match="ffn_sub_norm"):
        merge(backbone, make_memory(1, on=backbone))


def test_ffn_that_weighs_its_neurons_against_each_other_is_found_out(make_memory: MakeMemory) -> None:
    model: Any = tiny_model()

    class Balanced(type(model.model.layers[0].mlp)):  # type: ignore[misc]
        def forward(self, x: Tensor) -> Tensor:
            inner = self.act_fn(self.gate_proj(x)) * self.up_proj(x)
            return self.down_proj(inner / inner.norm(dim=-1, keepdim=True))  # type: ignore[no-any-return]

    model.model.layers[1].mlp.__class__ = Balanced
    backbone = Backbone(model, byte_tokenizer(), name="balanced")
    with pytest.raises(ExchangeError, match="do not compute"):
        merge(backbone, make_memory(1, on=backbone))


@pytest.mark.parametrize("form", WRITERS)
def test_memory_that_is_not_finite_or_belongs_elsewhere_is_not_written(
    form: str, backbone: Backbone, make_backbone: MakeBackbone, make_memory: MakeMemory, tmp_path: Path
) -> None:
    broken = make_memory(1)
    broken.slab[0, 2, 1, 3] = float("nan")
    with pytest.raises((ExchangeError, IncompatibleMemory), match="not finite"):
        WRITERS[form](backbone, broken, tmp_path / form)
    with pytest.raises(IncompatibleMemory, match="fingerprint"):
        WRITERS[form](backbone, make_memory(1, on=make_backbone(seed=7)), tmp_path / form)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("form", WRITERS)
def test_nothing_is_overwritten_and_nothing_is_left_of_a_failed_export(
    form: str, backbone: Backbone, make_memory: MakeMemory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "letter").write_text("Dear Ada", encoding="utf-8")
    with pytest.raises(ExchangeError, match="is there already"):
        WRITERS[form](backbone, make_memory(1), tmp_path / "letter")
    with pytest.raises(ExchangeError, match="no folder"):
        WRITERS[form](backbone, make_memory(1), tmp_path / "no" / "place")

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "rename", full)
    with pytest.raises(ExchangeError, match="No space left"):
        WRITERS[form](backbone, make_memory(1), tmp_path / "new")
    assert [path.name for path in tmp_path.iterdir()] == ["letter"]
    assert (tmp_path / "letter").read_text(encoding="utf-8") == "Dear Ada"


def test_multiple_under_1_is_refused(backbone: Backbone, make_memory: MakeMemory) -> None:
    with pytest.raises(ConfigurationError, match="at least 1, got 0"):
        merge(backbone, make_memory(1), multiple=0)


# What is not read back
# ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def written(backbone: Backbone, tmp_path_factory: pytest.TempPathFactory) -> Path:
    memory = initialize(backbone, [], width=4, method="random_index", scale_rule="none")
    memory.down_rows.normal_()
    folder = tmp_path_factory.mktemp("exports")
    for form, write in WRITERS.items():
        write(backbone, memory, folder / form)
    return folder


@pytest.fixture
def exports(written: Path, tmp_path: Path) -> Path:
    """The three exports of one memory, for a test to damage."""
    return Path(shutil.copytree(written, tmp_path / "exports"))


def change_manifest(folder: Path, **values: Any) -> None:
    manifest = json.loads((folder / MANIFEST_NAME).read_text(encoding="utf-8"))
    (folder / MANIFEST_NAME).write_text(json.dumps(manifest | values), encoding="utf-8")


@pytest.mark.parametrize(("form", "file"), [("dense", "model.safetensors"), ("lora", ADAPTER), ("memory", None)])
def test_altered_and_shortened_exports_are_refused(
    backbone: Backbone, exports: Path, form: str, file: str | None
) -> None:
    read_export(backbone, exports / form)
    path = exports / form / file if file else exports / form
    whole = path.read_bytes()
    at = (
        whole.index(b"PK\x01\x02") - 8 if file is None else len(whole) - 8
    )  # of a ZIP archive the end of the last entry
    for damaged in (whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :], whole[: len(whole) // 2], b""):
        path.write_bytes(damaged)
        with pytest.raises(CorruptPayload):
            read_export(backbone, exports / form)
    path.unlink()
    with pytest.raises((CorruptPayload, ExchangeError)):
        read_export(backbone, exports / form)


def test_portable_file_whose_directory_claims_more_than_there_is_is_refused(backbone: Backbone, exports: Path) -> None:
    content = bytearray((exports / "memory").read_bytes())
    entry = content.rindex(
        b"PK\x01\x02"
    )  # of the payload in the ZIP archive's directory: 20 and 24 bytes on are its two sizes
    for at in (entry + 20, entry + 24):
        content[at : at + 4] = (int.from_bytes(content[at : at + 4], "little") + 4096).to_bytes(4, "little")
    (exports / "memory").write_bytes(content)
    with pytest.raises(CorruptPayload):
        read_export(backbone, exports / "memory")


@pytest.mark.parametrize("form", WRITERS)
def test_disk_that_takes_no_more_leaves_nothing_and_says_so(
    backbone: Backbone, make_memory: MakeMemory, tmp_path: Path, form: str
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # as a full disk: the write fails, nobody is killed
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(ExchangeError, match="cannot write"):
            WRITERS[form](backbone, make_memory(1, width=40), tmp_path / "refused")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert list(tmp_path.iterdir()) == []


def test_values_that_are_not_finite_are_refused_even_with_a_fitting_digest(backbone: Backbone, exports: Path) -> None:
    for form, file, name in (
        ("dense", "model.safetensors", "model.layers.1.mlp.down_proj.weight"),
        ("lora", ADAPTER, "base_model.model.model.layers.1.mlp.down_proj.lora_B.weight"),
    ):
        tensors = load_file(exports / form / file)
        tensors[name][0, -1] = float("nan")
        save_file(tensors, exports / form / file, metadata={"format": "pt"})
        change_manifest(exports / form, digests={file: digest_of(exports / form / file)})
        with pytest.raises(CorruptPayload, match="not finite"):
            read_export(backbone, exports / form)


@pytest.mark.parametrize("form", ["dense", "lora"])
@pytest.mark.parametrize(
    "values",
    [
        {"width": 3},
        {"hidden_size": 31},
        {"n_layers": 1},
        {"scale": [1.0]},
        {"neuron_indices": [[-2] * 4] * 2},
        {"initialization": "best"},
        {"form": "memory"},
        {"personal_data": False},
        {"digests": {}},
        {"digests": {"../letter": "0"}},
        {"extra": 1},
    ],
    ids=lambda values: next(iter(values)),
)
def test_manifest_that_contradicts_itself_or_the_tensors_is_refused(
    backbone: Backbone, exports: Path, form: str, values: dict[str, Any]
) -> None:
    change_manifest(exports / form, **values)
    with pytest.raises(CorruptPayload):
        read_export(backbone, exports / form)


def test_missing_tensors_are_refused(backbone: Backbone, exports: Path) -> None:
    for form, file, part in (("dense", "model.safetensors", "down_proj"), ("lora", ADAPTER, "up_proj")):
        kept = {name: tensor for name, tensor in load_file(exports / form / file).items() if part not in name}
        save_file(kept, exports / form / file, metadata={"format": "pt"})
        change_manifest(exports / form, digests={file: digest_of(exports / form / file)})
        with pytest.raises(CorruptPayload):
            read_export(backbone, exports / form)


def test_export_of_another_backbone_or_release_is_refused(
    backbone: Backbone, make_backbone: MakeBackbone, exports: Path
) -> None:
    for form in WRITERS:
        with pytest.raises(IncompatibleMemory, match="fingerprint"):
            read_export(make_backbone(seed=7), exports / form)
    change_manifest(exports / "dense", format_version=9)
    with pytest.raises(IncompatibleMemory, match="use the release that wrote it"):
        read_export(backbone, exports / "dense")


def test_what_is_no_export_is_refused(backbone: Backbone, exports: Path, backbone_folder: str) -> None:
    letter = exports / "letter"
    letter.write_text("Dear Ada", encoding="utf-8")
    for path in (letter, Path(backbone_folder)):
        with pytest.raises(CorruptPayload):
            read_export(backbone, path)
    with pytest.raises(ExchangeError, match="no file or folder"):
        read_export(backbone, exports / "nothing")


def test_archive_that_would_unpack_to_more_than_it_shows_is_refused(backbone: Backbone, exports: Path) -> None:
    with zipfile.ZipFile(exports / "memory") as archive:
        manifest, payload = archive.read(MANIFEST_NAME), archive.read(PAYLOAD)
    for name, method in ((PAYLOAD, zipfile.ZIP_DEFLATED), ("../" + PAYLOAD, zipfile.ZIP_STORED)):
        with zipfile.ZipFile(exports / "memory", "w", method) as archive:
            archive.writestr(MANIFEST_NAME, manifest)
            archive.writestr(name, payload)
        with pytest.raises(CorruptPayload, match="no portable memory"):
            read_export(backbone, exports / "memory")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zipfile itself warns of the name that occurs twice
        with zipfile.ZipFile(exports / "memory", "w") as archive:
            for _ in range(2):
                archive.writestr(MANIFEST_NAME, manifest)
                archive.writestr(PAYLOAD, payload)
    with pytest.raises(CorruptPayload, match="no portable memory"):
        read_export(backbone, exports / "memory")


def test_a_portable_file_holds_as_much_as_a_store_takes() -> None:
    assert portable.MAX_PAYLOAD_BYTES == bounds.MAX_PAYLOAD_BYTES

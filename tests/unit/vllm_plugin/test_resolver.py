"""The plugin inside vLLM: against its own classes where it is installed, else against what was recorded of them."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import inspect
import json
import logging
import sys
import tomllib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import field, make_dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from locas_agent import AgentMemory, Backbone
from locas_agent.errors import ConfigurationError
from locas_agent.exports.lora import write_lora
from locas_agent.exports.padded import write_padded_base
from locas_storage import StoreUnavailable, UserKey
from locas_vllm.adapters import ServedMemories
from locas_vllm.names import cache_salt
from tests.conftest import MakeMemory, byte_tokenizer
from tests.fixtures.record_vllm import record
from tests.unit.core.architectures import build
from tests.unit.vllm_plugin.conftest import tell

ROOT = Path(__file__).resolve().parents[3]
RECORD = json.loads((ROOT / "tests" / "fixtures" / "vllm_0_33_0.json").read_text(encoding="utf-8"))
HAS_VLLM = importlib.util.find_spec("vllm") is not None


def stand_ins() -> dict[str, ModuleType]:
    """Make vLLM's modules that the plugin imports, of the recorded names and parameters."""
    fields = [
        (name, object, field(default=None)) if has_default else (name, object)
        for name, has_default in RECORD["LoRARequest"].items()
    ]
    registered: dict[str, object] = {}

    class Resolver(ABC):
        @abstractmethod
        async def resolve_lora(self, base_model_name: str, lora_name: str) -> object: ...

    def register_resolver(resolver_name: str, resolver: object) -> None:
        registered[resolver_name] = resolver

    parts: dict[str, dict[str, object]] = {
        "vllm": {},
        "vllm.lora": {},
        "vllm.lora.request": {"LoRARequest": make_dataclass("LoRARequest", fields)},  # type: ignore[arg-type]
        "vllm.lora.resolver": {
            "LoRAResolver": Resolver,
            "LoRAResolverRegistry": SimpleNamespace(resolvers=registered, register_resolver=register_resolver),
        },
    }
    made = {name: ModuleType(name) for name in parts}
    for name, values in parts.items():
        vars(made[name]).update(values)
    return made


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The module of the plugin, imported anew beside vLLM or the stand-ins."""
    if not HAS_VLLM:
        for name, module in stand_ins().items():
            monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delitem(sys.modules, "locas_vllm.resolver", raising=False)
    yield importlib.import_module("locas_vllm.resolver")
    sys.modules.pop("locas_vllm.resolver", None)


@pytest.mark.skipif(not HAS_VLLM, reason="vllm is not installed: the record of 0.33.0 is what is tested against")
def test_installed_vllm_is_as_it_was_recorded() -> None:
    spec = importlib.util.find_spec("vllm")
    assert spec is not None
    assert spec.origin is not None
    assert json.loads(json.dumps(record(Path(spec.origin).parent))) == RECORD


def test_record_is_read_from_sources(tmp_path: Path) -> None:
    """The one who records looks at what is there: another source gives another record."""
    sources = {
        "lora/request.py": "class LoRARequest:\n    lora_name: str\n    other: int = 0\n",
        "lora/resolver.py": "class LoRAResolver:\n    async def resolve_lora(self, a): ...\n"
        "class _LoRAResolverRegistry:\n    def register_resolver(self, b) -> None: ...\n",
        "lora/peft_helper.py": "class PEFTHelper:\n    r: int\nNAME = 'adapter_config.json'\n",
        "lora/lora_model.py": "",
        "config/lora.py": "MaxLoRARanks = Literal[1, 2]\n",
        "entrypoints/generate/base/protocol.py": "_CACHE_SALT_FORBIDDEN_CHARS = frozenset('/')\n"
        "_MAX_CACHE_SALT_LENGTH = 9\n",
        "plugins/__init__.py": "DEFAULT_PLUGINS_GROUP = 'group'\n",
    } | {f"model_executor/models/{name}.py": "packed_modules_mapping = {}\n" for name in RECORD["packed_modules"]}
    for name, text in sources.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    found = record(tmp_path)
    assert found.keys() == RECORD.keys()
    assert found["LoRARequest"] == {"lora_name": False, "other": True}
    assert list(found["ranks"]) == [1, 2]
    assert found["cache_salt"] == {"longest": 9, "forbidden": ["/"]}


def test_resolver_takes_what_vllm_hands_it(plugin: Any) -> None:
    recorded = RECORD["LoRAResolver.resolve_lora"]
    method = plugin.LocasResolver.resolve_lora
    assert list(inspect.signature(method).parameters) == recorded["parameters"]
    assert inspect.iscoroutinefunction(method) is recorded["is_async"]
    assert inspect.signature(method).return_annotation == recorded["returns"]


def test_entry_point_is_in_the_group_that_vllm_loads(plugin: Any) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (place,) = project["entry-points"][RECORD["plugin_group"]].values()
    module, _, name = place.partition(":")
    assert (module, callable(getattr(plugin, name))) == (plugin.__name__, True)


async def test_name_is_answered_with_a_request_for_its_adapter(
    plugin: Any, agent: AgentMemory, memories: ServedMemories, padded: Path
) -> None:
    tell(agent, "ada", "My dog is Rex.")
    resolver = plugin.LocasResolver(memories)
    request = await resolver.resolve_lora(str(padded), "ada@1")
    assert (request.lora_name, request.base_model_name) == ("ada@1", str(padded))
    assert request.lora_int_id >= 1
    assert all((Path(request.lora_path) / name).is_file() for name in RECORD["adapter_files"])
    assert await resolver.resolve_lora(str(padded), "eve@1") is None
    assert await resolver.resolve_lora(str(padded), "another adapter") is None


async def test_what_is_forgotten_is_emptied_without_another_request(
    plugin: Any,
    agent: AgentMemory,
    memories: ServedMemories,
    padded: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    tell(agent, "ada", "My dog is Rex.")
    resolver = plugin.LocasResolver(memories, sweep_seconds=0.01)
    request = await resolver.resolve_lora(str(padded), "ada@1")
    swept, sweep = asyncio.Event(), memories.sweep
    loop, failing = asyncio.get_running_loop(), [True]

    def counted() -> int:
        if failing.pop() if failing else False:
            raise StoreUnavailable("the store is away for a moment")
        done = sweep()
        if done:
            loop.call_soon_threadsafe(swept.set)
        return done

    monkeypatch.setattr(memories, "sweep", counted)
    with caplog.at_level(logging.INFO):
        agent.for_user("ada").erase()
        await asyncio.wait_for(swept.wait(), 10)
    assert not any(tensor.any() for tensor in load_file(Path(request.lora_path) / "adapter_model.safetensors").values())
    assert "adapters were not looked through" in caplog.text
    assert "ada" not in caplog.text.replace("adapter", "")
    resolver._sweeping.cancel()


def test_plugin_does_nothing_unless_a_store_is_named(
    plugin: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    registered: dict[str, Any] = {}
    monkeypatch.setattr(
        plugin, "LoRAResolverRegistry", SimpleNamespace(register_resolver=lambda *named: registered.update([named]))
    )
    plugin.register()
    assert registered == {}
    monkeypatch.setenv(plugin.STORE_VARIABLE, f"sqlite:///{tmp_path / 'none.db'}")
    with pytest.raises(ConfigurationError, match=plugin.FOLDER_VARIABLE):
        plugin.register()
    monkeypatch.setenv(plugin.FOLDER_VARIABLE, str(tmp_path))
    plugin.register()
    assert list(registered) == [plugin.NAME]
    assert list(tmp_path.iterdir()) == []  # nothing is opened or written before a name is asked for


async def test_server_of_a_tenant_finds_nobody_of_another(
    plugin: Any, agent: AgentMemory, padded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tell(agent, "ada", "My dog is Rex.")
    tell(agent, "ben", "I row.", tenant="rowers")
    registered: dict[str, Any] = {}
    monkeypatch.setattr(
        plugin, "LoRAResolverRegistry", SimpleNamespace(register_resolver=lambda *named: registered.update([named]))
    )
    (tmp_path / "adapters").mkdir()
    for name, value in (("STORE", f"sqlite:///{tmp_path / 'locas.db'}"), ("FOLDER", str(tmp_path / "adapters"))):
        monkeypatch.setenv(getattr(plugin, f"{name}_VARIABLE"), value)
    monkeypatch.setenv(plugin.TENANT_VARIABLE, "rowers")
    plugin.register()
    resolver = registered[plugin.NAME]
    assert await resolver.resolve_lora(str(padded), "ada@1") is None
    assert await resolver.resolve_lora(str(padded), "ben@1") is not None
    resolver._sweeping.cancel()
    resolver._memories.close()


@pytest.mark.parametrize("family", ["llama", "phi3", "qwen3"])
def test_adapter_is_one_that_the_loader_of_vllm_takes(family: str, make_memory: MakeMemory, tmp_path: Path) -> None:
    """What `PEFTHelper`, `check_unexpected_modules` and the layers ask, said of the record."""
    backbone = Backbone(build(family), byte_tokenizer(), name=family)
    memory = make_memory(2, on=backbone)
    base = write_padded_base(backbone, tmp_path / "base", slots=6)
    folder = write_lora(backbone, memory, tmp_path / "lora", base=base)
    assert all((folder / name).is_file() for name in RECORD["adapter_files"])
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    known = {name: value for name, value in config.items() if name in RECORD["adapter_config"]}
    assert {name for name, has_default in RECORD["adapter_config"].items() if not has_default} <= known.keys()
    # beyond the three that must be there, nothing that vLLM looks at is set to anything but its default
    assert set(known) - {"r", "lora_alpha", "target_modules"} == {"bias"}
    assert (known["bias"], known["lora_alpha"]) == ("none", known["r"])  # a scaling of 1
    assert 1 <= known["r"] <= max(RECORD["ranks"])
    packed = RECORD["packed_modules"][family]
    expected = {"down_proj", *(name for names in packed.values() for name in names)}
    weights = load_file(base / "model.safetensors")
    for name, tensor in load_file(folder / "adapter_model.safetensors").items():
        module, letter = name.removeprefix("base_model.model.").removesuffix(".weight").rsplit(".", 1)
        assert name == f"base_model.model.{module}.{letter}.weight"
        assert letter in ("lora_A", "lora_B")
        assert module.rsplit(".", 1)[-1] in expected
        rows, columns = weights[f"{module}.weight"].shape  # that of the padded backbone, as the server has it
        assert tensor.shape == ((known["r"], columns) if letter == "lora_A" else (rows, known["r"]))
        assert torch.isfinite(tensor).all()


@pytest.mark.skipif(not HAS_VLLM, reason="vllm is not installed")
def test_loader_of_vllm_takes_an_adapter(backbone: Backbone, make_memory: MakeMemory, tmp_path: Path) -> None:
    """Its own classes, of which nothing is a GPU's."""
    helper_of = importlib.import_module("vllm.lora.peft_helper").PEFTHelper
    model_of = importlib.import_module("vllm.lora.lora_model").LoRAModel
    folder = write_lora(backbone, make_memory(2), tmp_path / "lora", base=None)
    helper = helper_of.from_local_dir(str(folder), backbone.context_tokens)
    helper.validate_legal(SimpleNamespace(max_lora_rank=8))
    expected = {"down_proj", *(name for names in RECORD["packed_modules"]["qwen3"].values() for name in names)}
    loaded = model_of.from_local_checkpoint(str(folder), expected, helper, lora_model_id=1, device="cpu")
    assert loaded.rank == 4
    assert len(loaded.loras) == 3 * backbone.n_layers


def test_default_width_is_within_a_rank_that_vllm_can_be_given() -> None:
    from locas_agent.training.starting import DEFAULT_WIDTH

    assert min(rank for rank in RECORD["ranks"] if rank >= DEFAULT_WIDTH) == 64  # what the page says


def test_salt_is_one_that_vllm_takes() -> None:
    salt = cache_salt(UserKey("default", "ada@example.org/x"), secret=bytes(16))
    assert 0 < len(salt) <= RECORD["cache_salt"]["longest"]
    assert not set(salt) & set(RECORD["cache_salt"]["forbidden"])

"""Adapters of a server: for exactly the revision that a name stands for, and empty once it may not be served."""

from __future__ import annotations

import json
import shutil
import stat
from pathlib import Path

import pytest
import torch
from safetensors.torch import load, load_file

from locas_agent import AgentMemory, Backbone
from locas_agent.errors import ExchangeError
from locas_agent.exports.lora import ADAPTER, write_lora
from locas_agent.exports.manifest import MANIFEST_NAME, digest_of, read_beside
from locas_agent.exports.padded import outline_of_padded, write_padded_base
from locas_storage import SqlMemoryStore
from locas_vllm.adapters import ServedMemories
from tests.conftest import MakeBackbone
from tests.unit.agent.fake_learner import quick_agent
from tests.unit.vllm_plugin.conftest import tell


def written(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / ADAPTER)


def test_outline_knows_the_backbone_without_its_weights(backbone: Backbone, padded: Path) -> None:
    outline = outline_of_padded(padded)
    assert outline.device.type == "meta"
    assert (outline.fingerprint, outline.n_layers, outline.hidden_size, outline.ffn_width, outline.dtype) == (
        backbone.fingerprint,
        backbone.n_layers,
        backbone.hidden_size,
        backbone.ffn_width,
        backbone.dtype,
    )


def test_name_leads_to_the_adapter_of_its_revision(
    agent: AgentMemory, memories: ServedMemories, backbone: Backbone, padded: Path, tmp_path: Path
) -> None:
    for text in ("My dog is Rex.", "My cat is Tom."):
        tell(agent, "ada", text)
    tell(agent, "ben", "I row.")
    folders = {name: memories.folder_of(padded, name) for name in ("ada@1", "ada@2", "ben@1")}
    assert len(set(folders.values())) == 3
    for name, folder in folders.items():
        assert folder is not None
        assert stat.S_IMODE(folder.parent.stat().st_mode) == 0o700
        key = agent.for_user(name.partition("@")[0]).key
        memory = agent.memory_of(key, agent.store.revision(key, int(name[-1])))
        assert memory is not None
        expected = written(write_lora(backbone, memory, tmp_path / name, base=padded))
        found = written(folder)
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[each], expected[each]) for each in found)
    assert memories.folder_of(padded, "ada@1") == folders["ada@1"]
    assert agent.store.revision(agent.for_user("ada").key) is not None


@pytest.mark.parametrize("name", ["ada", "ada@2", "ada@1.1", "eve@1", "carl@1", "x" * 300 + "@1", "a\0@1"])
def test_name_of_nobody_leads_nowhere(agent: AgentMemory, memories: ServedMemories, padded: Path, name: str) -> None:
    tell(agent, "ada", "My dog is Rex.")
    tell(agent, "carl", "I am of another tenant.", tenant="other")
    assert memories.folder_of(padded, "ada@1") is not None
    assert memories.folder_of(padded, name) is None


def test_memory_of_another_backbone_is_not_served(
    agent: AgentMemory, memories: ServedMemories, make_backbone: MakeBackbone, padded: Path, tmp_path: Path
) -> None:
    other = make_backbone(seed=1)
    tell(quick_agent(other, agent.store), "ada", "My dog is Rex.")
    assert memories.folder_of(padded, "ada@1") is None
    theirs = write_padded_base(other, tmp_path / "theirs", slots=4)
    assert memories.folder_of(theirs, "ada@1") is not None


@pytest.mark.parametrize("how", ["forgotten", "erased", "erased and back"])
def test_adapter_of_what_is_gone_is_emptied_and_its_name_leads_nowhere(
    agent: AgentMemory, memories: ServedMemories, padded: Path, how: str
) -> None:
    tell(agent, "ada", "My dog is Rex.")
    tell(agent, "ben", "I row.")
    gone, kept = memories.folder_of(padded, "ada@1"), memories.folder_of(padded, "ben@1")
    assert gone is not None
    assert kept is not None
    assert any(tensor.any() for tensor in written(gone).values())
    assert memories.sweep() == 0
    if how == "forgotten":
        agent.for_user("ada").forget(1)
    else:
        agent.for_user("ada").erase()
    if how == "erased and back":
        agent.for_user("ada").reinstate()
        tell(agent, "ada", "I am back.")
    assert memories.folder_of(padded, "ada@1") is None
    assert memories.sweep() == 1
    assert memories.sweep() == 0
    # the server may read it again: it is whole, of the same modules, and changes nothing
    assert written(gone).keys() == written(kept).keys()
    assert not any(tensor.any() for tensor in written(gone).values())
    assert not (gone / MANIFEST_NAME).exists()
    assert any(tensor.any() for tensor in written(kept).values())


def test_user_forgotten_while_the_adapter_is_written_is_not_served(
    agent: AgentMemory, memories: ServedMemories, padded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tell(agent, "ada", "My dog is Rex.")
    write = memories._write

    def write_and_erase(*parts: object) -> None:
        write(*parts)  # type: ignore[arg-type]
        agent.for_user("ada").erase()

    monkeypatch.setattr(memories, "_write", write_and_erase)
    assert memories.folder_of(padded, "ada@1") is None
    (folder,) = memories._own.path.glob("*-*") if memories._own else ()
    assert not any(tensor.any() for tensor in written(folder).values())


def test_damaged_adapter_is_written_again(agent: AgentMemory, memories: ServedMemories, padded: Path) -> None:
    tell(agent, "ada", "My dog is Rex.")
    folder = memories.folder_of(padded, "ada@1")
    assert folder is not None
    raw = (folder / ADAPTER).read_bytes()
    sound = load(raw)
    (folder / ADAPTER).write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))
    assert memories.folder_of(padded, "ada@1") == folder
    assert all(torch.equal(tensor, sound[name]) for name, tensor in written(folder).items())
    assert digest_of(folder / ADAPTER) in read_beside(folder).digests.values()


def test_backbone_that_is_not_padded_or_too_narrow_is_refused(
    agent: AgentMemory, memories: ServedMemories, backbone: Backbone, tmp_path: Path
) -> None:
    tell(agent, "ada", "My dog is Rex.")
    with pytest.raises(ExchangeError, match="locas_base"):
        memories.folder_of(tmp_path, "ada@1")
    narrow = write_padded_base(backbone, tmp_path / "narrow", slots=1)
    with pytest.raises(ExchangeError, match="needs 2"):
        memories.folder_of(narrow, "ada@1")


def test_adapters_of_a_process_that_has_ended_are_removed_by_the_next(
    agent: AgentMemory, memories: ServedMemories, padded: Path, tmp_path: Path
) -> None:
    tell(agent, "ada", "My dog is Rex.")
    folder = memories.folder_of(padded, "ada@1")
    assert folder is not None
    left = folder.parent.with_name("locas-adapters-left")  # as a killed process leaves it: nobody holds its lock
    shutil.copytree(folder.parent, left)
    store = SqlMemoryStore(f"sqlite:///{tmp_path / 'locas.db'}")
    second = ServedMemories(store, "default", folder.parent.parent)
    theirs = second.folder_of(padded, "ada@1")
    assert not left.exists()
    assert theirs not in (None, folder)
    assert folder.exists()
    second.close()
    assert theirs is not None
    assert not theirs.exists()
    assert json.loads((folder / "adapter_config.json").read_text())["r"] == 2

"""Export, import and explain of a user: whose memory it is, what the journal and the audit trail say, and the commands.

Revisions are committed by hand with a memory that changes answers; no training.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from locas_agent import AgentMemory
from locas_agent.backbone import Backbone
from locas_agent.cli import app
from locas_agent.errors import ConfigurationError, CorruptPayload, ExchangeError, RevisionNotFound, UserErased
from locas_agent.exports.reading import read_export
from locas_agent.inference import Engine
from locas_agent.memory import LocasMemory
from locas_agent.memory.serialization import to_bytes
from locas_agent.training.initialization import initialize
from locas_storage import RevisionDraft, UserKey, open_store

ADA, BEN = UserKey("default", "ada"), UserKey("default", "ben")


def taught(backbone: Backbone, seed: int = 0) -> LocasMemory:
    """A memory beside the last layer that changes what is answered."""
    memory = initialize(backbone, [], width=3, layers=1, method="random_index", scale_rule="none", seed=seed)
    memory.down_rows.copy_(torch.randn(memory.down_rows.shape, generator=torch.Generator().manual_seed(seed)))
    return memory


@pytest.fixture
def agent(backbone: Backbone, tmp_path: Path) -> Iterator[AgentMemory]:
    """Ada has a turn and a memory, Ben a turn and none."""
    with AgentMemory.load(backbone, f"sqlite:///{tmp_path / 'locas.db'}") as made:
        for key in (ADA, BEN):
            made.for_user(key.user).add("user", "My dog is called Rex.")
        memory = taught(backbone)
        made.store.commit(ADA, RevisionDraft(0, backbone.fingerprint, "config", "0", 0, 1, 1, to_bytes(memory)))
        yield made


@pytest.mark.parametrize("form", ["dense", "lora", "memory"])
def test_memory_moves_to_another_store_and_says_where_it_came_from(
    agent: AgentMemory, backbone: Backbone, tmp_path: Path, form: str
) -> None:
    ada = agent.for_user("ada")
    place = ada.export(tmp_path / "export", form=form)  # type: ignore[arg-type]
    assert place == tmp_path / "export"
    assert read_export(backbone, place)[0].revision == 1
    line = agent.store.audit(ADA)[-1]
    assert (line.action, line.facts["form"], line.facts["revision"]) == ("export", form, 1)
    with AgentMemory.load(backbone, f"sqlite:///{tmp_path / 'other.db'}") as other:
        moved = other.for_user("ada", tenant="elsewhere")
        revision = moved.import_memory(place)
        assert (revision.number, revision.from_seq, revision.to_seq) == (1, 1, 1)
        assert (revision.metrics.imported or {})["form"] == form
        found, expected = (user.explain("It is Rex.", question="What is my dog called?") for user in (moved, ada))
        # Within rounding, token by token: in the form "dense" it is read back from sums.
        assert [token.logprob for token in found.tokens] == pytest.approx(
            [token.logprob for token in expected.tokens], abs=1e-3
        )
        assert abs(expected.logprob - expected.logprob_without) > 0.1  # the memory has a say in it
        assert [(turn.role, turn.trust) for turn in moved.turns()] == [("system", "import")]
        assert [entry.action for entry in other.store.audit(moved.key)] == ["import"]
        assert not moved.consolidation_due().is_due  # nothing waits: the turn that stands for the memory is learnt
        assert moved.import_memory(place) == revision  # again: nothing changes
        assert len(moved.revisions()) == 1
        assert other.store.verify().is_sound  # type: ignore[attr-defined]


def test_imported_memory_is_forgotten_with_the_turn_that_stands_for_it(agent: AgentMemory, tmp_path: Path) -> None:
    place = agent.for_user("ada").export(tmp_path / "ada.locas", form="memory")
    cleo = agent.for_user("cleo")
    cleo.import_memory(place)
    assert cleo.recall("Who?").revision == 1
    cleo.add("user", "My cat is called Mog.")
    receipt = cleo.forget(1, wait=False)
    assert receipt.revisions == (1,)
    assert agent.current(cleo.key)[1] is None
    assert [turn.content for turn in cleo.turns()] == ["My cat is called Mog."]


def test_import_goes_on_where_a_crash_stopped_it(
    agent: AgentMemory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = agent.for_user("ada").export(tmp_path / "ada.locas", form="memory")
    cleo = agent.for_user("cleo")

    def crash(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr(agent.store, "commit", crash)
        with pytest.raises(KeyboardInterrupt):
            cleo.import_memory(place)
    assert len(cleo.turns()) == 1
    assert cleo.import_memory(place).number == 1
    assert len(cleo.turns()) == 1


def test_import_into_a_life_that_has_begun_is_refused(agent: AgentMemory, tmp_path: Path) -> None:
    place = agent.for_user("ada").export(tmp_path / "ada.locas", form="memory")
    for name in ("ada", "ben"):
        before = agent.store.audit(UserKey("default", name))
        with pytest.raises(ExchangeError, match="1 turns; a memory is imported into an empty journal only"):
            agent.for_user(name).import_memory(place)
        assert len(agent.for_user(name).turns()) == 1
        assert agent.store.audit(UserKey("default", name)) == before
    ben = agent.for_user("ben")
    ben.erase()
    with pytest.raises(UserErased):
        ben.import_memory(place)
    ben.reinstate()
    assert ben.import_memory(place).number >= 1
    (tmp_path / "letter").write_text("Dear Ada", encoding="utf-8")
    with pytest.raises(CorruptPayload):
        agent.for_user("dora").import_memory(tmp_path / "letter")
    assert agent.for_user("dora").turns() == []


def test_export_of_nothing_or_in_no_form_is_refused_before_anything_is_written(
    agent: AgentMemory, tmp_path: Path
) -> None:
    with pytest.raises(RevisionNotFound, match="has no memory to export; consolidate first"):
        agent.for_user("ben").export(tmp_path / "ben")
    ada = agent.for_user("ada")
    with pytest.raises(ConfigurationError, match="one of dense, lora, memory, got 'gguf'"):
        ada.export(tmp_path / "ada", form="gguf")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="no use for base"):
        ada.export(tmp_path / "ada", form="dense", base=tmp_path)
    with pytest.raises(ConfigurationError, match="no use for multiple"):
        ada.export(tmp_path / "ada", form="memory", multiple=8)
    assert not (tmp_path / "ada").exists()
    assert agent.store.audit(ADA) == []


def test_explanation_is_the_log_probability_of_each_token_with_and_without(
    agent: AgentMemory, backbone: Backbone
) -> None:
    ada = agent.for_user("ada")
    found = ada.explain("Rex", question="What is my dog called?")
    prompt = backbone.encode_chat([{"role": "user", "content": "What is my dog called?"}])
    ids = backbone.encode("Rex")
    engine, (_, memory) = Engine(backbone), agent.current(ADA)
    assert "".join(token.text for token in found.tokens) == "Rex"
    assert [token.logprob_without for token in found.tokens] == pytest.approx(engine.score([prompt], [ids])[0].tolist())
    assert [token.logprob for token in found.tokens] == pytest.approx(
        engine.score([prompt], [ids], memory=agent.batch_of([memory]))[0].tolist()
    )
    assert found.revision == 1
    assert abs(found.logprob - found.logprob_without) > 0.1
    assert [(each.layer, each.clipped_gate) for each in found.layers] == [(0, 1.0)]
    assert "Rex" not in repr(found)
    # alone, the first token has nothing before it: this tokenizer has no beginning of text
    assert "".join(token.text for token in ada.explain("Rex").tokens) == "ex"
    assert ada.turns() == agent.store.turns(ADA)
    assert len(ada.turns()) == 1  # nothing was stored


def test_explanation_without_a_memory_is_the_backbones_own(agent: AgentMemory) -> None:
    found = agent.for_user("ben").explain("Rex is a dog.")
    assert (found.revision, found.layers) == (None, ())
    assert found.logprob == found.logprob_without < 0
    for text in ("", "R"):
        with pytest.raises(ConfigurationError, match="at least one token after its beginning"):
            agent.for_user("ben").explain(text)


def test_async_twins_do_the_same(agent: AgentMemory, tmp_path: Path) -> None:
    async def run() -> None:
        ada = agent.for_user("ada")
        place = await ada.aexport(tmp_path / "ada.locas", form="memory")
        assert (await agent.for_user("cleo").aimport_memory(place)).number == 1
        assert (await ada.aexplain("Rex")).revision == 1

    asyncio.run(run())


def test_commands_export_import_and_explain(backbone_folder: str, tmp_path: Path) -> None:
    loaded = Backbone.load(backbone_folder)
    url = f"sqlite:///{tmp_path / 'cli.db'}"
    store = open_store(url)
    with AgentMemory.load(loaded, store) as made:
        made.for_user("ada").add("user", "My dog is called Rex.")
        store.commit(ADA, RevisionDraft(0, loaded.fingerprint, "config", "0", 0, 1, 1, to_bytes(taught(loaded))))
    runner = CliRunner()

    def run(*arguments: str) -> Any:
        result = runner.invoke(app, [*arguments, "--backbone", backbone_folder, "--store", url, "--json", "-"])
        assert result.exit_code == 0, result.stderr
        return json.loads(result.stdout)

    for form in ("dense", "lora", "memory"):
        path = tmp_path / form
        assert run("export", str(path), "--user", "ada", "--form", form) == {
            "path": str(path),
            "form": form,
            "personal_data": True,
        }
    assert run("import", str(tmp_path / "memory"), "--user", "cleo")["number"] == 1
    explained = run(
        "explain", "It is Rex.", "--user", "cleo", "--question", "Dog?", "--plot", str(tmp_path / "text.png")
    )
    assert "".join(token["text"] for token in explained["tokens"]) == "It is Rex."
    assert set(explained["tokens"][0]) == {"text", "logprob", "logprob_without"}
    assert explained["layers"][0]["layer"] == 0
    assert (tmp_path / "text.png").read_bytes().startswith(b"\x89PNG")
    failed = runner.invoke(
        app, ["export", str(tmp_path / "dense"), "--user", "ada", "--backbone", backbone_folder, "--store", url]
    )
    assert (failed.exit_code, failed.stdout) == (1, "")
    assert "is there already" in failed.stderr
    assert runner.invoke(app, ["export", str(tmp_path / "x"), "--user", "ada", "--form", "gguf"]).exit_code == 2

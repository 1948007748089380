"""The example of a way to study of one's own: its questions are what is learnt, and nothing is measured for it."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

from locas_agent import AgentMemory, Backbone, LocasConfig
from locas_agent.errors import ConfigurationError, UnsupportedBackbone
from locas_storage import InMemoryStore
from tests.learnt import LEARNT_NATS, gain_nats

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "own_study.py"
CONFIG = LocasConfig.model_validate({"policy": {"automatic": False}})
HASTY = LocasConfig.model_validate(
    {
        "policy": {"automatic": False},
        "training": {"max_steps": 4, "anchor_tokens": 16},
        "admission": {"min_gain": 0.0, "max_old_loss": 1.0, "max_drift_nats": 100.0},
    }
)
"""Settings with which a memory is admitted whatever it has learnt."""


def example() -> ModuleType:
    spec = spec_from_file_location("own_study", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


OWN = example()


@pytest.fixture(scope="module")
def memory() -> Iterator[AgentMemory]:
    with AgentMemory.load("tiny", InMemoryStore(), CONFIG, device="cpu", strategy=OWN.CalledStudy) as made:
        yield made


def test_its_questions_are_learnt_and_no_others(memory: AgentMemory) -> None:
    ada = memory.for_user("ada")
    ada.add("user", "My dog is called Zorbin.")
    told = ada.add("user", "By the way, my sister's boat is named Velka!")
    ada.add("user", "It rains.")
    result = ada.consolidate(flush=True)
    assert result.admitted, result.detail
    items = memory.store.study_items(ada.key)
    shapes = [words.format(thing) for thing in ("dog", "sister's boat") for words in OWN.QUESTIONS]
    assert sorted(item.question for item in items) == sorted(shapes)
    assert {item.turn_seq for item in items if "Velka" in item.answer} == {told.seq}
    assert result.metrics.coverage is not None
    assert (result.metrics.coverage.turns, result.metrics.coverage.carrying, result.metrics.coverage.nothing) == (
        3,
        2,
        1,
    )
    assert gain_nats(ada, "What is my dog called?", "Zorbin") > LEARNT_NATS


def test_a_name_told_anew_retires_the_old_one(memory: AgentMemory) -> None:
    """It is the backbone that reads the new turn, whatever the memory has learnt of the old one."""
    with AgentMemory(backbone=memory.backbone, store=InMemoryStore(), config=HASTY, strategy=OWN.CalledStudy) as made:
        bob = made.for_user("bob")
        bob.add("user", "My cat is called Dranik.")
        assert bob.consolidate(flush=True).admitted
        assert any("Dranik" in item.answer for item in made.store.study_items(bob.key))
        bob.add("user", "My cat is called Pelburg.", session="later")
        result = bob.consolidate(flush=True)
        assert result.admitted, result.detail
        assert (result.metrics.retired_items or 0) >= 1
        assert not any("Dranik" in item.answer for item in made.store.study_items(bob.key))


def test_it_needs_no_form_that_the_backbone_reads(backbone: Backbone) -> None:
    """The random backbone reads nothing: with a strategy of one's own nobody asks it to."""
    with AgentMemory(backbone=backbone, store=InMemoryStore(), config=CONFIG, strategy=OWN.CalledStudy) as made:
        made.for_user("ada").add("user", "It rains.")
        result = made.for_user("ada").consolidate(flush=True)
    assert result.admitted, result.detail
    assert result.metrics.forms is None
    with AgentMemory(backbone=backbone, store=InMemoryStore(), config=CONFIG) as made:
        made.for_user("ada").add("user", "It rains.")
        with pytest.raises(UnsupportedBackbone):
            made.for_user("ada").consolidate(flush=True)


def test_what_makes_no_strategy_is_refused(backbone: Backbone) -> None:
    with pytest.raises(ConfigurationError, match="strategy: got str, expected what makes a StudyStrategy"):
        AgentMemory(backbone=backbone, store=InMemoryStore(), strategy="own")  # type: ignore[arg-type]


def test_example_is_short() -> None:
    assert len(EXAMPLE.read_text(encoding="utf-8").splitlines()) <= 60

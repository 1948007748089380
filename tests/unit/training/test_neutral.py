"""Neutral text as backbones of few layers and of many read it: whole conversations, each kind in both halves."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from locas_agent.backbone import Backbone
from locas_agent.inference import Engine
from locas_agent.training import neutral
from locas_agent.training.examples import Example
from locas_agent.training.neutral import load_neutral
from tests.conftest import MakeBackbone


def _texts(backbone: Backbone, rows: Sequence[Example]) -> list[str]:
    return [backbone.decode([*row.prompt, *row.target]) for row in rows]


@pytest.fixture
def deep(make_backbone: MakeBackbone, monkeypatch: pytest.MonkeyPatch) -> Backbone:
    made = make_backbone()
    monkeypatch.setattr(neutral, "DEEP_FROM", made.n_layers)
    return made


def test_many_layers_read_few_long_rows_and_few_layers_many_short_ones(make_backbone: MakeBackbone) -> None:
    text = load_neutral(Engine(make_backbone()), max_tokens=None, top_k=4)
    assert (len(text.anchors), len(text.held_out)) == (64, 64)
    assert max(row.n_tokens for row in text.anchors) == 95  # 96 with the last, which is not read


def test_short_dialogues_are_one_conversation_for_many_layers(deep: Backbone) -> None:
    text = load_neutral(Engine(deep), max_tokens=None, top_k=4)
    assert (len(text.anchors), len(text.held_out)) == (18, 18)
    for half in (text.anchors, text.held_out):
        lengths = sorted(row.n_tokens for row in half)
        assert lengths[-1] <= 319
        assert lengths[-6] > 150  # the conversations
        dates = [shown.count("Conversation on") for shown in _texts(deep, half)]
        assert max(dates) == 1  # said once, at the beginning
        assert dates.count(0) >= 3  # prose


def test_every_kind_of_line_is_trained_on_and_measured() -> None:
    lines = neutral._deep_lines()
    kinds = [[line["kind"] for line in half] for half in (lines[0::2], lines[1::2])]
    assert set(kinds[0]) == set(kinds[1]) == {"general", "prose", "window", "conversation"}
    assert all(abs(kinds[0].count(kind) - kinds[1].count(kind)) <= 1 for kind in kinds[0])
    for line in lines:
        roles = [message["role"] for message in line.get("messages", [])]
        assert "system" not in roles[1:]
        if line["kind"] == "conversation":
            spoken = [role for role in roles if role != "system"]
            assert spoken == ["user", "assistant"] * (len(spoken) // 2)
            assert len(spoken) >= 12


def test_longest_row_may_be_given(deep: Backbone) -> None:
    text = load_neutral(Engine(deep), max_tokens=40, top_k=4)
    assert max(row.n_tokens for row in text.anchors) == 39


@pytest.mark.parametrize("asked", [None, 200])
def test_no_row_is_longer_than_a_short_context(deep: Backbone, asked: int | None) -> None:
    deep.model.config.max_position_embeddings = 128
    text = load_neutral(Engine(deep), max_tokens=asked, top_k=4)
    assert max(row.n_tokens for row in (*text.anchors, *text.held_out)) == 127

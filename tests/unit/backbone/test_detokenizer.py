"""Text that comes out of a model: whole characters, no noise, the same piece by piece as at once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from locas_agent import Backbone
from locas_agent.backbone.detokenizer import Detokenizer, clean


@pytest.mark.parametrize(
    ("written", "left"),
    [
        ("a\x00b", "ab"),
        ("\x1b[31mred\x7f", "[31mred"),
        ("one\x85\x9btwo", "onetwo"),
        ("half \ud83d emoji", "half  emoji"),
        ("tab\tand\nline\r\n", "tab\tand\nline\r\n"),
        ("whole 😀, ไทย, \u200d, \ufffd", "whole 😀, ไทย, \u200d, \ufffd"),
    ],
)
def test_clean_leaves_out_what_no_turn_can_hold(written: str, left: str) -> None:
    assert clean(written) == left
    assert clean(left) == left


def pieces_of(backbone: Backbone, ids: list[int]) -> list[str]:
    detokenizer = Detokenizer(backbone.decode)
    return [*(detokenizer.add(token) for token in ids), detokenizer.finish()]


def test_tokens_are_shown_in_whole_characters(backbone: Backbone) -> None:
    assert pieces_of(backbone, backbone.encode("é 你 ok")) == ["", "é", "", "", "", " 你", "", " o", "k", ""]


def test_spaces_around_an_answer_and_noise_are_left_out(backbone: Backbone) -> None:
    assert pieces_of(backbone, backbone.encode(" \x00\n a\x07 b \x00 ")) == [
        "",
        "",
        "",
        "",
        "a",
        "",
        "",
        " b",
        "",
        "",
        "",
        "",
    ]


def test_character_that_is_never_finished_is_shown_at_the_end(backbone: Backbone) -> None:
    assert pieces_of(backbone, backbone.encode("a你")[:-1])[1:] == ["", "", "\ufffd"]


@given(st.lists(st.integers(0, 258), max_size=24))
def test_pieces_are_the_whole_answer(backbone: Backbone, ids: list[int]) -> None:
    assert "".join(pieces_of(backbone, ids)) == backbone.decode(ids).strip()


def test_is_text_tells_noise_from_text(backbone: Backbone) -> None:
    assert backbone.is_text([*backbone.encode("Größe\n"), *backbone.stop_ids])
    assert not backbone.is_text(backbone.encode("a\x00"))

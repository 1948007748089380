"""Neutral text: what a memory must leave alone.

The file `neutral.jsonl` ships with the package: small dialogues with facts that are asked while they stand in the
context, general questions, small talk and prose. Even lines are anchors, seen in training; odd lines are only for
measuring drift in the admission gate.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

from torch import Tensor

from locas_agent.backbone import Backbone
from locas_agent.conversation.messages import Message
from locas_agent.inference import Engine
from locas_agent.memory.placement import DEEP_FROM
from locas_agent.training.examples import Example, with_teacher


@dataclass(frozen=True, eq=False)
class NeutralText:
    """Neutral text on one backbone.

    Attributes:
        anchors: rows with the bare backbone as teacher, for training.
        held_out: the same from the other half of the file, for measuring.
        windows: short small talk, to stand before a question as a running conversation would.
        inputs: what enters the FFN of a layer on anchors, by the layer's number; filled where it is first asked for.
    """

    anchors: tuple[Example, ...]
    held_out: tuple[Example, ...]
    windows: tuple[tuple[Message, ...], ...]
    inputs: dict[int, Tensor] = field(default_factory=dict, repr=False)


@cache
def _lines() -> tuple[dict[str, Any], ...]:
    text = files("locas_agent.training").joinpath("neutral.jsonl").read_text(encoding="utf-8")
    return tuple(json.loads(line) for line in text.splitlines())


TOKENS, DEEP_TOKENS = 96, 320
"""Longest row, on a backbone of few layers and of many."""
DEEP_LINES = 64
"""Lines used of the file, half for training and half for measuring, on a backbone of many layers: each costs as much as
the text of a user does there, and the gate runs its half twice in each consolidation."""
DIALOGUES, JOINED = ("told", "talk"), 3
"""Kinds of lines that are short dialogues, and how many of them are one conversation on a backbone of many layers."""


def load_neutral(engine: Engine, *, max_tokens: int | None, top_k: int) -> NeutralText:
    """Encode the shipped text and compute the bare backbone's distributions over it, once per backbone.

    Args:
        engine: of the backbone.
        max_tokens: longest row, the rest is cut off, as is what the context does not take; None is 96, and 320 on a
            backbone of many layers.
        top_k: tokens kept of each distribution.
    """
    key = ("neutral text", max_tokens, top_k)
    return engine.backbone.once(key, lambda: _compute(engine, max_tokens=max_tokens, top_k=top_k))


def _compute(engine: Engine, *, max_tokens: int | None, top_k: int) -> NeutralText:
    backbone = engine.backbone
    lines, longest = (_deep_lines(), DEEP_TOKENS) if backbone.n_layers >= DEEP_FROM else (_lines(), TOKENS)
    length = min(max_tokens or longest, backbone.context_tokens)
    rows = [_encode(backbone, line)[:length] for line in lines]
    examples = bare_examples(engine, rows, top_k=top_k)
    windows = tuple(tuple(line["messages"]) for line in lines if line.get("kind") == "window")
    return NeutralText(tuple(examples[0::2]), tuple(examples[1::2]), windows)


@cache
def _deep_lines() -> tuple[dict[str, Any], ...]:
    """Return what is read where a memory stands beside several layers: fewer lines, short dialogues by threes.

    A memory there drifts most in long conversations, and there a short row sees nothing of it. Of each kind every
    second line is for training. Origin: `docs/decisions.md`, long rows of neutral text.
    """
    lines = _lines()[:DEEP_LINES]
    dialogues = [line["messages"] for line in lines if line["kind"] in DIALOGUES]
    others = [line for line in lines if line["kind"] not in DIALOGUES]
    joined = [
        {"kind": "conversation", "messages": _one_after_the_other(dialogues[at : at + JOINED])}
        for at in range(0, len(dialogues) - JOINED + 1, JOINED)
    ]
    return (*sorted(others, key=lambda line: str(line["kind"])), *joined)


def _one_after_the_other(dialogues: Sequence[list[Message]]) -> list[Message]:
    """Join dialogues, without the dates of those behind the first: not every template takes them in the middle."""
    first, *others = dialogues
    return [*first, *(message for dialogue in others for message in dialogue if message["role"] != "system")]


def bare_examples(engine: Engine, rows: Sequence[Sequence[int]], *, top_k: int) -> list[Example]:
    """Return rows of tokens as examples whose teacher is the bare backbone on the same row."""
    rows = [row for row in rows if len(row) >= 2]
    first = [row[:1] for row in rows]
    return with_teacher(engine, first, [row[1:] for row in rows], top_k=top_k, student_prompts=first)


def _encode(backbone: Backbone, line: dict[str, Any]) -> list[int]:
    if "text" in line:
        return backbone.encode(line["text"])
    return backbone.encode_chat(line["messages"], generation_prompt=False)

"""A backbone that writes noise: no way out of the library shows it, and all ways show the same."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from langchain_locas import ChatLocas
from locas_agent import AgentMemory, Backbone, LocasConfig
from locas_agent.backbone.detokenizer import clean
from locas_agent.config import StudySettings
from locas_agent.conversation.messages import question
from locas_agent.study.chunking import Chunk
from locas_agent.study.teacher import Request, Teacher
from tests.conftest import MakeBackbone

NOISE = (0x00, 0x1B, 0x7F, 0xED, 0xA0, 0x80, 0x0A, 0x20)
"""Bytes it writes: controls, a lone surrogate as UTF-8 would spell it, spaces."""


class _Noisy(nn.Module):
    """An output layer that prefers noise; `weight` is asked for by whoever counts the vocabulary."""

    def __init__(self, inner: nn.Module, bias: Tensor) -> None:
        super().__init__()
        self.weight: Any = inner.weight
        self._bias = bias

    def forward(self, hidden: Tensor) -> Tensor:
        return nn.functional.linear(hidden, self.weight) * 0.1 + self._bias


@pytest.fixture(scope="module")
def noisy(make_backbone: MakeBackbone) -> Backbone:
    """A backbone of which about half of the sampled tokens are noise."""
    backbone = make_backbone(seed=3)
    bias = torch.full((backbone.vocab_size,), -6.0)
    bias[backbone.encode("".join(map(chr, range(0x41, 0x49))))] = 0.0
    bias[[backbone.tokenizer.convert_tokens_to_ids(piece) for piece in _pieces(NOISE)]] = 0.0
    backbone.model.set_output_embeddings(_Noisy(backbone.model.get_output_embeddings(), bias))
    return backbone


@pytest.fixture
def agent(noisy: Backbone) -> Iterator[AgentMemory]:
    with AgentMemory.load(
        noisy, store="sqlite://", config=LocasConfig.model_validate({"policy": {"automatic": False}})
    ) as memory:
        yield memory


def _pieces(codes: tuple[int, ...]) -> list[str]:
    """The vocabulary entry of each byte, as the byte-level alphabet spells it."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [code for code in range(256) if code not in printable]
    return [chr(code) if code in printable else chr(256 + others.index(code)) for code in codes]


def test_backbone_of_this_file_writes_noise(agent: AgentMemory, noisy: Backbone) -> None:
    (made,) = agent.engine.generate([noisy.encode("x")], max_new_tokens=40, temperature=1.0, seed=1)
    assert not noisy.is_text(made.ids)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_reply_stream_and_journal_show_the_same_clean_text(agent: AgentMemory, seed: int) -> None:
    async def streamed() -> str:
        return "".join([piece async for piece in agent.for_user("eve").astream("Hello", temperature=1.0, seed=seed)])

    replied = agent.for_user("ada").reply("Hello", temperature=1.0, seed=seed).text
    stream = agent.for_user("bob").stream("Hello", temperature=1.0, seed=seed)
    assert ["".join(stream), asyncio.run(streamed())] == [replied, replied]
    assert replied == clean(replied).strip() != ""
    assert [agent.for_user(user).turns()[-1].content for user in ("ada", "bob", "eve")] == [replied] * 3


def test_recall_and_explain_show_clean_text(agent: AgentMemory) -> None:
    ada = agent.for_user("ada")
    answer = ada.recall("What is it?").answer
    assert answer == clean(answer).strip()
    assert all(clean(token.text) == token.text for token in ada.explain("a b").tokens)


def test_study_samples_clean_text_and_keeps_no_noisy_answer(agent: AgentMemory, noisy: Backbone) -> None:
    teacher = Teacher(agent.engine, StudySettings(max_answer_tokens=2), seed=0)
    chunk = Chunk(tuple(question("The sea is calm.")), (), 1, 1)
    texts = teacher.sample([Request(chunk, "Ask.", f"{place}") for place in range(8)], temperature=1.0)
    assert all(texts)
    assert texts == [clean(text) for text in texts]
    answers = teacher.answer([question(f"Number {number}?") for number in range(8)])
    assert all(noisy.is_text(answer.ids) for answer in answers if answer is not None)


@pytest.mark.parametrize("seed", [1, 2])
def test_chat_model_shows_the_same_clean_text_at_once_and_streamed(agent: AgentMemory, seed: int) -> None:
    model = ChatLocas(memory=agent, user_id="ada", temperature=1.0, seed=seed, max_tokens=32)
    text = model.invoke("Hello").text
    assert "".join(chunk.text for chunk in model.stream("Hello")) == text
    assert text == clean(text).strip() != ""

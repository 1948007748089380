"""Stateless answers: the memory answers, the journal stays as it is, and options do what they say."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest

from locas_agent import AgentMemory, Backbone, GenerationStream, UserMemory
from locas_agent.errors import ConfigurationError, GenerationTimeout, InvalidTurn, TurnTooLong
from locas_storage import InMemoryStore
from tests.conftest import MakeMemory
from tests.unit.langchain.conftest import CONFIG, TOOLS_TEMPLATE, taught, tool_backbone

pytestmark = pytest.mark.rounding

ASKED = [{"role": "user", "content": "What is my dog called?"}]
TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}


@pytest.fixture(scope="module")
def backbone_with_tools() -> Backbone:
    return tool_backbone()


@pytest.fixture
def agent(backbone_with_tools: Backbone) -> Iterator[AgentMemory]:
    with AgentMemory(backbone=backbone_with_tools, store=InMemoryStore(), config=CONFIG) as made:
        yield made


@pytest.fixture
def ada(agent: AgentMemory, make_memory: MakeMemory, backbone_with_tools: Backbone) -> UserMemory:
    taught(agent, make_memory(3, on=backbone_with_tools), "ada")
    return agent.for_user("ada")


def test_answer_is_made_with_the_users_memory_and_nothing_is_stored(ada: UserMemory, agent: AgentMemory) -> None:
    before = ada.turns()
    answer = ada.generate(ASKED)
    assert (answer.revision, answer.used_memory) == (1, True)
    assert answer.prompt_tokens == len(agent.backbone.encode_chat(ASKED))
    stranger = agent.for_user("ben").generate(ASKED)
    assert (stranger.revision, stranger.used_memory, stranger.pending_turns) == (None, False, 0)
    assert stranger.text != answer.text  # the memory does something
    assert ada.generate(ASKED) == answer
    assert ada.turns() == before
    assert agent.users() == [ada.key]


def test_stream_shows_what_generate_returns(ada: UserMemory) -> None:
    stream = ada.generate_stream(ASKED, temperature=1.0, seed=5)
    assert stream.answer is None
    text = "".join(stream)
    assert stream.answer is not None
    assert stream.answer == ada.generate(ASKED, temperature=1.0, seed=5)
    assert stream.answer.text == text
    assert ada.generate(ASKED, temperature=1.0, seed=6).text != text


async def test_twins_answer_the_same(ada: UserMemory) -> None:
    stream: GenerationStream = ada.agenerate_stream(ASKED)
    assert "".join([piece async for piece in stream]) == (await ada.agenerate(ASKED)).text == ada.generate(ASKED).text
    assert await ada.apending() == ada.pending() == []


def test_answer_ends_before_a_stop_text_and_where_its_room_ends(ada: UserMemory) -> None:
    whole = ada.generate(ASKED)
    assert (whole.finish_reason, whole.answer_tokens) == ("length", CONFIG.window.max_new_tokens)
    stop = next(text for text in whole.text[2:] if text.strip() and text not in whole.text[:2])
    cut = ada.generate(ASKED, stop=stop)
    assert (cut.finish_reason, cut.text) == ("stop", whole.text.partition(stop)[0].strip())
    assert ada.generate(ASKED, stop=[stop]) == cut
    assert ada.generate(ASKED, max_new_tokens=3).answer_tokens == 3


def test_forced_answer_begins_with_a_call(ada: UserMemory) -> None:
    answer = ada.generate(ASKED, tools=[TOOL], tool_choice="any", max_new_tokens=60)
    assert (answer.finish_reason, len(answer.calls)) == ("tool_calls", 1)
    assert answer.calls[0].arguments.startswith('<tool_call>{"name": "add", "arguments":')  # noise after that


def test_pending_turns_are_those_that_left_the_window(agent: AgentMemory) -> None:
    ben = agent.for_user("ben")
    for number in range(6):
        ben.add("user", f"This is what I say as number {number}.")
    left = ben.pending()
    window = agent.prompts.build(ben.key).layout.window
    assert left
    assert [*left, *window] == ben.turns()
    assert ben.generate(ASKED).pending_turns == len(left)


REFUSED: dict[str, tuple[Callable[[UserMemory], Any], type[Exception], str]] = {
    "no message": (lambda user: user.generate([]), ConfigurationError, "nothing to answer"),
    "a text": (lambda user: user.generate("Hello."), ConfigurationError, "list of mappings"),  # type: ignore[arg-type]
    "no role": (lambda user: user.generate([{"content": "x"}]), ConfigurationError, "role and content"),
    "half a character": (lambda user: user.generate([{"role": "user", "content": "\ud800"}]), InvalidTurn, "surrogate"),
    "empty stop": (lambda user: user.generate(ASKED, stop=[""]), ConfigurationError, "stop"),
    "stop of another type": (
        lambda user: user.generate(ASKED, stop=cast("list[str]", [3])),
        ConfigurationError,
        "stop",
    ),
    "no length": (lambda user: user.generate(ASKED, max_new_tokens=0), ConfigurationError, "max_new_tokens"),
    "unknown tool": (lambda user: user.generate(ASKED, tools=[TOOL], tool_choice="sub"), ConfigurationError, "add"),
    "no schema": (lambda user: user.generate(ASKED, tools=[{"name": "add"}]), ConfigurationError, "JSON schemas"),
    "too long": (lambda user: user.generate([{"role": "user", "content": "x" * 17_000}]), TurnTooLong, "room"),
    "no time": (lambda user: user.generate(ASKED, timeout_seconds=0.0), GenerationTimeout, "within 0.0 seconds"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_answered_is_refused(ada: UserMemory, case: str) -> None:
    call, error, message = REFUSED[case]
    with pytest.raises(error, match=message):
        call(ada)


def test_template_without_tools_is_refused(backbone: Backbone) -> None:
    assert "tools" in TOOLS_TEMPLATE
    with AgentMemory(backbone=backbone, store=InMemoryStore(), config=CONFIG) as plain:
        with pytest.raises(ConfigurationError, match="cannot call tools"):
            plain.for_user("ada").generate(ASKED, tools=[TOOL])


def test_answer_shows_no_text_in_its_repr(ada: UserMemory) -> None:
    answer = ada.generate(ASKED)
    assert answer.text not in repr(answer)
    assert json.dumps(answer.text)

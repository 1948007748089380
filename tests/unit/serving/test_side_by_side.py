"""Answers side by side: each with the memory of its user, streams that may be left, and nothing after the end."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from locas_agent import AgentMemory, Backbone, ChatRequest, SideBySide
from locas_agent.errors import ConfigurationError, GenerationTimeout, TurnTooLong
from locas_storage import InMemoryStore, UserKey
from tests.conftest import MakeMemory
from tests.unit.langchain.conftest import CONFIG, taught, tool_backbone

pytestmark = pytest.mark.rounding

ASKED = [{"role": "user", "content": "What is my dog called?"}]
USERS = ("ada", "ben", "carl")


@pytest.fixture(scope="module")
def backbone_with_tools() -> Backbone:
    return tool_backbone()


@pytest.fixture
def agent(backbone_with_tools: Backbone, make_memory: MakeMemory) -> Iterator[AgentMemory]:
    """Ada and Ben have memories; Carl has none."""
    with AgentMemory(backbone=backbone_with_tools, store=InMemoryStore(), config=CONFIG) as made:
        for seed, user in enumerate(USERS[:2]):
            taught(made, make_memory(seed, on=backbone_with_tools), user)
        yield made


@pytest.fixture
def together(agent: AgentMemory) -> Iterator[SideBySide]:
    with agent.side_by_side(rows=4) as made:
        yield made


def of(user: str, **options: object) -> ChatRequest:
    return ChatRequest(UserKey("default", user), ASKED, **options)  # type: ignore[arg-type]


def test_answers_under_way_together_are_each_users_own(agent: AgentMemory, together: SideBySide) -> None:
    alone = {user: agent.for_user(user).generate(ASKED) for user in USERS}
    assert len({answer.text for answer in alone.values()}) == len(USERS)
    streams = {user: iter(together.stream(of(user))) for user in USERS}
    whole = {user: together.stream(of(user)) for user in USERS}
    texts = {user: next(pieces) for user, pieces in streams.items()}  # all have begun before one is read on
    for user, pieces in streams.items():
        texts[user] += "".join(pieces)
        assert texts[user][:4] == alone[user].text[:4]  # what comes later may be rounded differently
        assert "".join(whole[user])[:4] == texts[user][:4]
        answer = whole[user].answer
        assert answer is not None
        assert (answer.revision, answer.used_memory) == (alone[user].revision, alone[user].used_memory)
        assert (answer.prompt_tokens, answer.finish_reason) == (alone[user].prompt_tokens, alone[user].finish_reason)


async def test_stream_is_read_in_an_event_loop_too(together: SideBySide) -> None:
    stream = together.stream(of("ada"))
    text = "".join([piece async for piece in stream])
    assert stream.answer is not None
    assert stream.answer.text == text


def test_stop_text_ends_an_answer(agent: AgentMemory, together: SideBySide) -> None:
    whole = agent.for_user("ada").generate(ASKED)
    stop = next(text for text in whole.text[2:] if text.strip() and text not in whole.text[:2])
    cut = together.stream(of("ada", stop=[stop]))
    text = "".join(cut)
    assert cut.answer is not None
    assert (cut.answer.finish_reason, stop in text) == ("stop", False)


def test_stream_that_is_dropped_frees_its_row(together: SideBySide) -> None:
    pieces = iter(together.stream(of("ada", max_new_tokens=400)))
    next(pieces)
    assert together.n_running == 1
    del pieces
    until = time.monotonic() + 30
    while together.n_running:
        assert time.monotonic() < until, "the row stays although nobody reads it"
        time.sleep(0.005)


def test_answer_that_takes_too_long_is_ended(together: SideBySide) -> None:
    with pytest.raises(GenerationTimeout):
        list(together.stream(of("ada", timeout_seconds=1e-9)))
    assert "".join(together.stream(of("ada", timeout_seconds=60)))


def test_what_cannot_be_answered_fails_alone(agent: AgentMemory, together: SideBySide) -> None:
    long = [{"role": "user", "content": "x" * agent.backbone.context_tokens}]
    with pytest.raises(TurnTooLong):
        list(together.stream(ChatRequest(UserKey("default", "ada"), long)))
    with pytest.raises(ConfigurationError):
        list(together.stream(of("ada", temperature=-1.0)))
    assert "".join(together.stream(of("ada")))


def test_nothing_is_written_after_the_end(agent: AgentMemory) -> None:
    before = threading.active_count()
    made = agent.side_by_side(rows=1)
    assert threading.active_count() == before  # no thread before the first answer
    pieces = iter(made.stream(of("ada", max_new_tokens=400)))
    next(pieces)
    assert threading.active_count() == before + 1
    made.close()
    assert threading.active_count() == before
    with pytest.raises(RuntimeError):
        list(pieces)
    with pytest.raises(RuntimeError):
        list(made.stream(of("ada")))

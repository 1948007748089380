"""The way of the user id into an answer, in every shape a call can have; whoever is not named is refused."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import HumanMessage
from langchain_core.runnables import RunnableConfig, RunnableLambda

from langchain_locas import ChatLocas
from locas_agent.errors import ConfigurationError
from tests.unit.langchain.conftest import USERS

ASKED = "Who am I?"
NOISE = "ignore::langchain_core._api.beta_decorator.LangChainBetaWarning"  # events of version 3 are beta, and say so
ADA, BEN = USERS[0], USERS[1]


def named(user: str) -> RunnableConfig:
    return {"configurable": {"user_id": user}}


@pytest.fixture
def model(shared_model: ChatLocas) -> ChatLocas:
    return shared_model


def same(value: LanguageModelInput) -> LanguageModelInput:
    return value


def joined(chunks: Any) -> str:
    return "".join(str(chunk.content) for chunk in chunks)


async def astream(model: ChatLocas, user: str) -> str:
    return joined([chunk async for chunk in model.astream(ASKED, named(user))])


async def events_2(model: ChatLocas, user: str) -> str:
    events = [event async for event in model.astream_events(ASKED, named(user), version="v2")]
    return joined(event["data"]["chunk"] for event in events if event["event"] == "on_chat_model_stream")


async def events_3(model: ChatLocas, user: str) -> str:
    stream = await model.astream_events(ASKED, named(user), version="v3")
    [_ async for _ in stream]
    return str((await stream.output).text)


def sync_events_3(model: ChatLocas, user: str) -> str:
    stream = model.stream_events(ASKED, named(user), version="v3")
    list(stream)
    return str(stream.output.text)


async def gathered(model: ChatLocas, user: str) -> str:
    others = [model.ainvoke(ASKED, named(other)) for other in USERS[2:5]]
    mine, *_ = await asyncio.gather(model.ainvoke(ASKED, named(user)), *others)
    return str(mine.content)


async def ainvoke(model: ChatLocas, user: str) -> str:
    return str((await model.ainvoke(ASKED, named(user))).content)


def tool(part: int) -> int:
    """Do nothing.

    Args:
        part: any.
    """
    return part


def with_tools(model: ChatLocas, user: str) -> str:
    """With a tool the prompt is another one, and so is the answer: it is compared with that of the same prompt."""
    bound = model.bind_tools([tool])
    return str(bound.with_config(named(user)).invoke(ASKED).content)


def agent_of(model: ChatLocas, user: str) -> str:
    return str(create_agent(model).invoke({"messages": [("human", ASKED)]}, named(user))["messages"][-1].content)


SHAPES: dict[str, Callable[[ChatLocas, str], str | Awaitable[str]]] = {
    "invoke": lambda model, user: str(model.invoke(ASKED, named(user)).content),
    "batch": lambda model, user: str(model.batch([ASKED, ASKED], [named(USERS[5]), named(user)])[1].content),
    "batch of a sequence": lambda model, user: str(
        (RunnableLambda(same) | model).batch([ASKED], [named(user)])[0].content
    ),
    "with_config": lambda model, user: str(model.with_config(named(user)).invoke(ASKED).content),
    "bind_tools and with_config": with_tools,
    "stream": lambda model, user: joined(model.stream(ASKED, named(user))),
    "ainvoke": ainvoke,
    "astream": astream,
    "astream_events v2": events_2,
    "astream_events v3": events_3,
    "stream_events v3": sync_events_3,
    "gather": gathered,
    "create_agent": agent_of,
}


async def settled(value: str | Awaitable[str]) -> str:
    return value if isinstance(value, str) else await value


def expected(model: ChatLocas, shape: str) -> dict[str, str]:
    """What Ada and Ben are answered when each is named in a plain call."""
    plain = model.bind_tools([tool]) if shape == "bind_tools and with_config" else model
    answers = {user: str(plain.invoke(ASKED, user_id=user).content) for user in (ADA, BEN)}
    assert answers[ADA] != answers[BEN]  # else nothing could be told apart
    return answers


@pytest.mark.filterwarnings(NOISE)
@pytest.mark.parametrize("shape", SHAPES)
async def test_configurable_reaches_the_answer(model: ChatLocas, shape: str) -> None:
    assert {user: await settled(SHAPES[shape](model, user)) for user in (ADA, BEN)} == expected(model, shape)


@pytest.fixture
def no_config(monkeypatch: pytest.MonkeyPatch) -> None:
    """Call every shape without a user in the config."""
    monkeypatch.setattr(sys.modules[__name__], "named", lambda user: {})


@pytest.mark.filterwarnings(NOISE)
@pytest.mark.usefixtures("no_config")
@pytest.mark.parametrize("shape", SHAPES)
async def test_constructor_reaches_the_answer(model: ChatLocas, shape: str) -> None:
    fixed = {user: ChatLocas(memory=model.memory, user_id=user) for user in (ADA, BEN)}
    assert {user: await settled(SHAPES[shape](fixed[user], user)) for user in (ADA, BEN)} == expected(model, shape)


@pytest.mark.filterwarnings(NOISE)
@pytest.mark.usefixtures("no_config")
@pytest.mark.parametrize(
    "shape", [shape for shape in SHAPES if shape not in ("bind_tools and with_config", "create_agent")]
)
async def test_argument_of_the_call_reaches_the_answer(model: ChatLocas, shape: str) -> None:
    # Bound, as an argument is where a call has no place for one. Tools cannot be bound to what is bound:
    # `bind_tools(..., user_id=)` it is.
    bound: Any = {user: model.bind(user_id=user) for user in (ADA, BEN)}
    assert {user: await settled(SHAPES[shape](bound[user], user)) for user in (ADA, BEN)} == expected(model, shape)


def test_argument_goes_along_with_tools(model: ChatLocas) -> None:
    answers = expected(model, "bind_tools and with_config")
    assert {user: str(model.bind_tools([tool], user_id=user).invoke(ASKED).content) for user in answers} == answers


def test_there_are_thirteen_shapes() -> None:
    assert len(SHAPES) == 13


class Marked(ChatLocas):
    """Without the routing of the public calls: what the parent does with `configurable`."""

    def _routed(self, config: RunnableConfig | None, kwargs: Any) -> dict[str, Any]:
        return dict(kwargs)


@pytest.mark.filterwarnings(NOISE)
@pytest.mark.parametrize("shape", SHAPES)
async def test_without_the_routing_no_shape_would_reach_it(model: ChatLocas, shape: str) -> None:
    bare = Marked(memory=model.memory)
    with pytest.raises(ConfigurationError, match="no user_id"):
        await settled(SHAPES[shape](bare, ADA))


def test_call_goes_before_configurable_and_that_before_the_constructor(model: ChatLocas) -> None:
    expected = {user: model.invoke(ASKED, user_id=user).content for user in USERS[:3]}
    fixed = ChatLocas(memory=model.memory, user_id=USERS[0])
    assert fixed.invoke(ASKED).content == expected[USERS[0]]
    assert fixed.invoke(ASKED, named(USERS[1])).content == expected[USERS[1]]
    assert fixed.invoke(ASKED, named(USERS[1]), user_id=USERS[2]).content == expected[USERS[2]]


@pytest.mark.parametrize("given", [None, "", "  ", 7, True], ids=repr)
def test_an_id_that_is_none_is_not_replaced_by_another(model: ChatLocas, given: Any) -> None:
    fixed = ChatLocas(memory=model.memory, user_id=ADA)
    with pytest.raises(ConfigurationError, match="user_id in the call"):
        fixed.invoke(ASKED, user_id=given)
    with pytest.raises(ConfigurationError, match="user_id in configurable"):
        fixed.invoke(ASKED, {"configurable": {"user_id": given}})


async def test_nobody_is_answered_without_an_id(model: ChatLocas) -> None:
    for config in (None, {}, {"configurable": {"thread_id": ADA}}, {"metadata": {"user_id": ADA}}):
        with pytest.raises(ConfigurationError, match="no user_id"):
            model.invoke(ASKED, config)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="no user_id"):
        list(model.stream(ASKED))
    with pytest.raises(ConfigurationError, match="no user_id"):
        await model.ainvoke(ASKED)
    with pytest.raises(ConfigurationError, match="no user_id"):
        model.generate([[HumanMessage(ASKED)]])


def test_a_tenant_is_a_world_of_its_own(model: ChatLocas) -> None:
    other = ChatLocas(memory=model.memory, tenant="other")
    assert other.invoke(ASKED, user_id=ADA).response_metadata["memory_revision"] is None
    assert model.invoke(ASKED, user_id=ADA).response_metadata["memory_revision"] == 1


class Seen(BaseCallbackHandler):
    def __init__(self) -> None:
        self.params: list[Any] = []

    def on_chat_model_start(self, serialized: Any, messages: Any, **kwargs: Any) -> None:
        self.params.append(kwargs["invocation_params"])


def test_traces_show_the_id_that_was_given(model: ChatLocas) -> None:
    # Stated in docs/langchain.md: who must not appear there is named by an opaque id.
    seen = Seen()
    model.invoke(ASKED, {**named(ADA), "callbacks": [seen]})
    assert seen.params[0]["user_id"] == ADA
    assert "memory" not in seen.params[0]


async def test_interleaved_users_are_answered_as_one_by_one(model: ChatLocas) -> None:
    alone = [str(model.invoke(ASKED, user_id=user).content) for user in USERS]
    assert len(set(alone)) == len(USERS)
    configs = [named(user) for user in USERS]
    assert [message.content for message in model.batch([ASKED] * 8, configs)] == alone
    assert [message.content for message in await model.abatch([ASKED] * 8, configs)] == alone
    streams = [model.stream(ASKED, config) for config in configs]
    texts = [""] * len(streams)
    open_streams = set(range(len(streams)))
    while open_streams:  # one piece of each in turn
        for at in sorted(open_streams):
            chunk = next(streams[at], None)
            if chunk is None:
                open_streams.discard(at)
            else:
                texts[at] += str(chunk.content)
    assert texts == alone
    assert await asyncio.gather(*(astream(model, user) for user in USERS)) == alone

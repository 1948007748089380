"""`ChatLocas`: what an answer says about itself, caching, stopping, tools, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.exceptions import ContextOverflowError, ModelTimeoutError
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.runnables import ConfigurableField

from langchain_locas import ChatLocas
from locas_agent import AgentMemory, Backbone, GenerationStream, InMemoryStore, LocasConfig, UserMemory
from locas_agent.errors import ConfigurationError, LocasError, TurnTooLong
from tests.unit.langchain.conftest import TOOLS_TEMPLATE, USERS, MakeAgent, Teach, tool_backbone
from tests.unit.langchain.scripted import ScriptedEngine

ASKED = "Who am I?"
ADA, BEN = USERS[0], USERS[1]


def add(first: int, second: int) -> int:
    """Add two numbers.

    Args:
        first: one of them.
        second: the other.
    """
    return first + second


def adder(first: int, second: int) -> int:
    """Add two numbers, elsewhere.

    Args:
        first: one of them.
        second: the other.
    """
    return first + second


# What an answer says about itself
# --------------------------------------------------------------------------------------


def test_metadata_name_revision_and_waiting_turns(agent: AgentMemory, teach: Teach) -> None:
    model = ChatLocas(memory=agent, user_id=ADA)
    before = model.invoke(ASKED).response_metadata
    assert (before["memory_revision"], before["used_memory"], before["pending_turns"]) == (None, False, 0)
    teach(ADA, seed=0)
    for _ in range(4):
        agent.for_user(ADA).add("user", "x" * 60)
    after = model.invoke(ASKED).response_metadata
    assert (after["memory_revision"], after["used_memory"], after["pending_turns"]) == (1, True, 3)
    agent.for_user(ADA).rollback(0)
    back = model.invoke(ASKED).response_metadata
    assert (back["memory_revision"], back["used_memory"]) == (2, False)
    assert back["model_name"] == "random with tools"


def test_nothing_is_journalled(model: ChatLocas, agent: AgentMemory) -> None:
    before = len(agent.for_user(ADA).turns())
    model.invoke(ASKED, user_id=ADA)
    model.invoke(ASKED, user_id="nobody yet")
    assert len(agent.for_user(ADA).turns()) == before
    assert "nobody yet" not in [key.user for key in agent.users()]


def test_usage_counts_the_tokens_of_the_template(shared_model: ChatLocas, with_tools: Backbone) -> None:
    answer = shared_model.invoke(ASKED, user_id=ADA, max_tokens=5)
    prompt = with_tools.encode_chat([{"role": "user", "content": ASKED}])
    assert answer.usage_metadata is not None
    assert (answer.usage_metadata["input_tokens"], answer.usage_metadata["output_tokens"]) == (len(prompt), 5)
    assert answer.response_metadata["finish_reason"] == "length"
    assert shared_model.get_num_tokens_from_messages([HumanMessage(ASKED)]) == len(prompt)
    assert shared_model.get_num_tokens("aé") == 3  # bytes: the backbone's tokenizer, nobody else's
    assert shared_model.get_num_tokens_from_messages([HumanMessage(ASKED)], [add]) > len(prompt)


def test_profile_is_the_backbones(model: ChatLocas, agent: AgentMemory, backbone: Backbone) -> None:
    assert model.profile is not None
    assert (model.profile["max_input_tokens"], model.profile["tool_calling"]) == (agent.backbone.context_tokens, True)
    plain = ChatLocas(
        memory=AgentMemory(
            backbone=backbone, store=InMemoryStore(), config=LocasConfig.model_validate({"memory": {"width": 2}})
        )
    )
    assert plain.profile is not None
    assert plain.profile["tool_calling"] is False


def test_sampling_follows_the_seed(shared_model: ChatLocas) -> None:
    def answer(seed: int) -> Any:
        return shared_model.invoke(ASKED, user_id=ADA, temperature=1.0, seed=seed).content

    assert answer(1) == answer(1) != answer(2)


# Caching
# ---------------------------------------------------------------------------------------------------------------


def count_answers(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note who is really answered."""
    asked: list[str] = []

    answered = UserMemory.generate_stream

    def counting(user: UserMemory, *args: Any, **options: Any) -> GenerationStream:
        asked.append(f"{user.key.tenant}/{user.key.user}")
        return answered(user, *args, **options)

    monkeypatch.setattr(UserMemory, "generate_stream", counting)
    return asked


@pytest.mark.usefixtures("cached")
def test_cache_keeps_users_tenants_and_revisions_apart(
    model: ChatLocas, agent: AgentMemory, teach: Teach, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = count_answers(monkeypatch)
    first = model.invoke(ASKED, user_id=ADA).content
    assert model.invoke(ASKED, user_id=ADA).content == first
    assert len(asked) == 1  # the second was cached
    assert model.invoke(ASKED, user_id=BEN).content != first
    ChatLocas(memory=agent, tenant="other").invoke(ASKED, user_id=ADA)
    assert asked == [f"default/{ADA}", f"default/{BEN}", f"other/{ADA}"]
    agent.for_user(ADA).add("user", "More.")
    teach(ADA, seed=77)
    assert model.invoke(ASKED, user_id=ADA).content != first
    agent.for_user(ADA).rollback(1)
    assert model.invoke(ASKED, user_id=ADA).content == first
    assert len(asked) == 5  # a number that came back is not the state it had before


@pytest.mark.usefixtures("cached")
async def test_cache_serves_async_calls_and_keeps_lengths_apart(
    model: ChatLocas, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = count_answers(monkeypatch)
    first = await model.ainvoke(ASKED, user_id=ADA)
    assert (
        (await model.ainvoke(ASKED, user_id=ADA)).content == first.content == model.invoke(ASKED, user_id=ADA).content
    )
    assert len(asked) == 1
    assert (await model.ainvoke(ASKED, user_id=BEN)).content != first.content
    await model.ainvoke(ASKED, user_id=ADA, max_tokens=5)
    assert len(asked) == 3


def test_cache_is_not_told_who_asked(model: ChatLocas, cached: InMemoryCache) -> None:
    model.invoke(ASKED, user_id="ada@example.org")
    ChatLocas(memory=model.memory, user_id="ada@example.org").invoke(ASKED)
    kept = repr(cached.__dict__)
    assert ASKED in kept
    assert "ada@example.org" not in kept


@pytest.mark.usefixtures("cached")
def test_cache_answers_nobody_who_was_erased(
    model: ChatLocas, agent: AgentMemory, teach: Teach, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = count_answers(monkeypatch)
    model.invoke(ASKED, user_id=ADA)
    agent.for_user(ADA).erase()
    agent.for_user(ADA).reinstate()
    teach(ADA, seed=5)  # revision 1 again
    model.invoke(ASKED, user_id=ADA)
    assert len(asked) == 2


@pytest.mark.usefixtures("cached")
def test_without_the_user_in_the_key_the_cache_would_leak(
    model: ChatLocas, agent: AgentMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(ChatLocas, "_get_llm_string")
    fixed = [ChatLocas(memory=agent, user_id=user) for user in (ADA, BEN)]
    monkeypatch.setattr(ChatLocas, "_routed", lambda self, config, kwargs: dict(kwargs))
    monkeypatch.setattr(ChatLocas, "_get_invocation_params", lambda self, stop=None, **kwargs: {})
    assert fixed[0].invoke(ASKED).content == fixed[1].invoke(ASKED).content


# Stopping
# --------------------------------------------------------------------------------------------------------------


def test_answer_ends_before_a_stop_word(shared_model: ChatLocas) -> None:
    whole = str(shared_model.invoke(ASKED, user_id=ADA, max_tokens=40).content)
    word = whole[len(whole) // 2 :][:2]
    for cut in (
        shared_model.invoke(ASKED, user_id=ADA, max_tokens=40, stop=[word]),
        ChatLocas(memory=shared_model.memory, stop=[word]).invoke(ASKED, user_id=ADA, max_tokens=40),
        # one word is no list of letters
        shared_model.invoke(ASKED, user_id=ADA, max_tokens=40, stop=word),  # type: ignore[arg-type]
        shared_model.bind(stop=word).invoke(ASKED, user_id=ADA, max_tokens=40),
        ChatLocas(memory=shared_model.memory, stop_sequences=word).invoke(ASKED, user_id=ADA, max_tokens=40),
    ):
        assert cut.content == whole.partition(word)[0].rstrip()
        assert cut.response_metadata["finish_reason"] == "stop"
    streamed = "".join(
        str(chunk.content) for chunk in shared_model.stream(ASKED, user_id=ADA, max_tokens=40, stop=[word])
    )
    assert streamed == whole.partition(word)[0].rstrip()


def test_stream_is_the_answer_in_pieces(shared_model: ChatLocas) -> None:
    chunks = list(shared_model.stream(ASKED, user_id=ADA, max_tokens=40))
    assert len(chunks) > 5
    assert (
        "".join(str(chunk.content) for chunk in chunks)
        == shared_model.invoke(ASKED, user_id=ADA, max_tokens=40).content
    )
    assert sum(chunk.usage_metadata is not None for chunk in chunks) == 1


def test_time_limit_is_kept(shared_model: ChatLocas) -> None:
    with pytest.raises(ModelTimeoutError, match="within 0 seconds") as caught:
        shared_model.invoke(ASKED, user_id=ADA, timeout=0)
    assert isinstance(caught.value, LocasError)


def test_messages_beyond_the_context_are_refused(shared_model: ChatLocas) -> None:
    with pytest.raises(ContextOverflowError, match="send fewer") as caught:
        shared_model.invoke("x" * 17000, user_id=ADA)
    assert isinstance(caught.value, TurnTooLong)


# Tools
# -----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def caller(make_agent: MakeAgent) -> ChatLocas:
    """A model whose calls follow the script."""
    agent = make_agent(config=LocasConfig.model_validate({"memory": {"width": 2}, "window": {"max_new_tokens": 200}}))
    agent.chat.engine = ScriptedEngine(agent.backbone)
    return ChatLocas(memory=agent, user_id=ADA)


def test_template_without_tools_is_refused_when_they_are_bound(backbone: Backbone) -> None:
    model = ChatLocas(
        memory=AgentMemory(
            backbone=backbone, store=InMemoryStore(), config=LocasConfig.model_validate({"memory": {"width": 2}})
        )
    )
    for bind in (
        lambda: model.bind_tools([add]),
        lambda: model.with_structured_output({"title": "x", "type": "object", "properties": {}}),
    ):
        with pytest.raises(ConfigurationError, match="chat template of 'random-0' cannot call tools"):
            bind()


def test_bundled_backbone_says_that_it_cannot_call_tools() -> None:
    with pytest.raises(ConfigurationError, match="chat template of 'tiny' cannot call tools"):
        ChatLocas("tiny", store="sqlite://").bind_tools([add])


@pytest.mark.parametrize(
    "form", ["[TOOL_CALLS]{{ call.function | tojson }}", "<tool_call>{{ call.function.name }}()</tool_call>"]
)
def test_template_with_another_form_of_calls_is_refused(form: str) -> None:
    made = tool_backbone()
    made.tokenizer.chat_template = TOOLS_TEMPLATE.replace(
        "<tool_call>\n{{ call.function | tojson }}\n</tool_call>", form
    )
    model = ChatLocas(
        memory=AgentMemory(
            backbone=made, store=InMemoryStore(), config=LocasConfig.model_validate({"memory": {"width": 2}})
        )
    )
    with pytest.raises(ConfigurationError, match="cannot call tools"):
        model.bind_tools([add])


@pytest.mark.parametrize(
    "choice", ["any", "required", True, "adder", {"type": "function", "function": {"name": "adder"}}], ids=repr
)
def test_a_forced_call_is_what_the_answer_begins_with(shared_model: ChatLocas, choice: Any) -> None:
    # No script: the random backbone is led by nothing but the constraint, and then writes what it likes.
    bound = shared_model.bind_tools([add, adder], tool_choice=choice)
    answer = bound.invoke("3 and 4", user_id=ADA, max_tokens=60)
    assert isinstance(answer, AIMessage)
    (call,) = answer.invalid_tool_calls
    names = ["adder"] if choice == "adder" or isinstance(choice, dict) else ["add", "adder"]
    assert str(call["args"]).startswith(tuple(f'<tool_call>{{"name": "{name}", "arguments":' for name in names))
    assert answer.tool_calls == []
    assert answer.content == ""
    free = shared_model.bind_tools([add, adder]).invoke("3 and 4", user_id=ADA, max_tokens=60)
    assert not free.tool_calls
    assert not free.invalid_tool_calls


@pytest.mark.parametrize(
    "choice", ["subtract", "none", {"type": "function", "function": {"name": "subtract"}}], ids=repr
)
def test_choice_of_an_unknown_tool_is_refused(shared_model: ChatLocas, choice: Any) -> None:
    with pytest.raises(ConfigurationError, match="expected 'auto', 'any' or one of the bound tools, add"):
        shared_model.bind_tools([add], tool_choice=choice)


def test_structured_output_is_a_call_that_was_parsed(caller: ChatLocas) -> None:
    schema = {
        "title": "Sum",
        "description": "Two numbers.",
        "type": "object",
        "properties": {"first": {"type": "integer"}},
    }
    form = caller.with_structured_output(schema, include_raw=True)
    result = form.invoke("Take 3.")
    assert isinstance(result, dict)
    assert (result["parsed"], result["parsing_error"]) == ({"first": 3}, None)
    assert result["raw"].response_metadata["finish_reason"] == "tool_calls"


def test_calls_are_parsed_and_results_go_back(caller: ChatLocas) -> None:
    bound = caller.bind_tools([add], tool_choice="add")
    called = bound.invoke("Add 3 and 4.")
    (call,) = called.tool_calls
    assert (call["name"], call["args"]) == ("add", {"first": 3, "second": 3})
    assert called.response_metadata["finish_reason"] == "tool_calls"
    streamed = None
    for chunk in bound.stream("Add 3 and 4."):
        streamed = chunk if streamed is None else streamed + chunk
    assert [each["args"] for each in getattr(streamed, "tool_calls", [])] == [call["args"]]
    result = ToolMessage("7", tool_call_id=str(call["id"]), name="add")
    answer = caller.bind_tools([add]).invoke([HumanMessage("Add 3 and 4."), called, result])
    assert answer.content
    assert not answer.tool_calls


# What is refused, and when a backbone is loaded
# ------------------------------------------------------------------------


def test_options_that_would_do_nothing_are_refused(shared_model: ChatLocas) -> None:
    with pytest.raises(ConfigurationError, match="a call with top_p"):
        shared_model.invoke(ASKED, user_id=ADA, top_p=0.5)
    with pytest.raises(ConfigurationError, match="a call with parallel_tool_calls"):
        shared_model.bind_tools([add], parallel_tool_calls=False)
    with pytest.raises(ConfigurationError, match="another model"):
        shared_model.invoke(ASKED, user_id=ADA, model="large")
    with pytest.raises(ConfigurationError, match="without messages"):
        shared_model.invoke([], user_id=ADA)
    with pytest.raises(ConfigurationError, match="empty text"):
        shared_model.invoke(ASKED, user_id=ADA, stop=[""])
    with pytest.raises(ConfigurationError, match="stop holds a value of type int"):
        shared_model.invoke(ASKED, user_id=ADA, stop=["x", 5])  # type: ignore[list-item]
    with pytest.raises(ConfigurationError, match="max_tokens is -1"):
        shared_model.invoke(ASKED, user_id=ADA, max_tokens=-1)
    image = [{"type": "image", "url": "x"}]
    with pytest.raises(ConfigurationError, match="text only"):
        shared_model.invoke([HumanMessage(image)], user_id=ADA)  # type: ignore[arg-type]


def test_constructor_takes_what_is_standard_and_refuses_what_it_does_not_know() -> None:
    ChatLocas(max_retries=2, api_key="none", stop_sequences=["x"], tags=["y"])
    with pytest.raises(ConfigurationError, match=r"^a ChatLocas with top_p, user, which it does not know"):
        ChatLocas(user="ada", top_p=0.5)


@pytest.mark.parametrize("other", [{"model": "large"}, {"store": "sqlite://"}], ids=str)
def test_memory_beside_model_or_store_is_refused(agent: AgentMemory, other: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="memory was given beside"):
        ChatLocas(memory=agent, **other)


def test_copies_share_one_memory_that_is_loaded_when_needed(
    monkeypatch: pytest.MonkeyPatch, agent: AgentMemory
) -> None:
    loaded: list[Sequence[Any]] = []

    def load(*parts: Any, **options: Any) -> AgentMemory:
        loaded.append(parts)
        return agent

    monkeypatch.setattr(AgentMemory, "load", load)
    model = ChatLocas("some folder", store="sqlite://", user_id=ADA)
    tuned = model.configurable_fields(max_tokens=ConfigurableField("max_tokens"))
    assert loaded == []
    assert "memory" not in repr(model)
    answers = [tuned.with_config(configurable={"max_tokens": size}).invoke(ASKED) for size in (3, 5)]
    assert [answer.usage_metadata and answer.usage_metadata["output_tokens"] for answer in answers] == [3, 5]
    assert loaded == [("some folder", "sqlite://")]
    assert model.agent_memory is agent


def test_importing_the_package_imports_no_torch() -> None:
    code = "import sys, langchain_locas; assert 'torch' not in sys.modules and 'langchain_core' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": ":".join(sys.path)}, timeout=60)

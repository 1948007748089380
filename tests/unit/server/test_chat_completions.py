"""The form of chat completions: streams, usage, tools, through the clients that people have."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_openai import ChatOpenAI
from pydantic import SecretStr

from tests.unit.server.conftest import MODEL, Served

pytestmark = pytest.mark.rounding

ASKED: list[Any] = [{"role": "user", "content": "What is my dog called?"}]
WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Tell the weather.",
        "parameters": {"type": "object", "properties": {"place": {"type": "string"}}},
    },
}


@pytest.fixture
def chat_openai(served: Served) -> ChatOpenAI:
    key = SecretStr(served.key(user="ada"))
    return ChatOpenAI(model=MODEL, base_url=served.url, api_key=key, max_retries=0)


def test_stream_says_what_the_whole_answer_says(served: Served) -> None:
    client = served.client()
    whole = client.chat.completions.create(model=MODEL, messages=ASKED, user="ada")
    chunks = list(
        client.chat.completions.create(
            model=MODEL, messages=ASKED, user="ada", stream=True, stream_options={"include_usage": True}
        )
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == whole.choices[0].finish_reason
    assert chunks[-1].usage == whole.usage
    assert chunks[-1].choices == []
    assert len({chunk.id for chunk in chunks}) == 1
    without = list(client.chat.completions.create(model=MODEL, messages=ASKED, user="ada", stream=True))
    assert not any(chunk.usage for chunk in without)


def test_usage_counts_tokens_and_says_which_memory_answered(served: Served) -> None:
    made = served.client().chat.completions.create(model=MODEL, messages=ASKED, user="ada", max_tokens=5)
    alone = served.agent.for_user("ada").generate(ASKED, max_new_tokens=5)
    assert made.usage is not None
    assert (made.usage.prompt_tokens, made.usage.completion_tokens) == (alone.prompt_tokens, alone.answer_tokens)
    assert made.choices[0].finish_reason == alone.finish_reason
    assert made.model_extra is not None
    assert made.model_extra["locas"] == {"revision": None, "used_memory": False, "pending_turns": 0}


def test_curl_reads_a_stream_to_its_end(served: Served) -> None:
    if (curl := shutil.which("curl")) is None:
        pytest.skip("no curl on this machine")
    body = json.dumps({"model": MODEL, "messages": ASKED, "user": "ada", "stream": True})
    done = subprocess.run(
        [
            curl,
            "-sS",
            "-N",
            f"{served.url}/chat/completions",
            *("-H", f"Authorization: Bearer {served.secret}"),
            *("-H", "Content-Type: application/json"),
            *("-d", body),
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    events = [line.removeprefix("data: ") for line in done.stdout.split("\n\n") if line]
    assert events[-1] == "[DONE]"
    assert json.loads(events[0])["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert all(json.loads(event)["object"] == "chat.completion.chunk" for event in events[:-1])


def test_call_of_a_tool_goes_out_and_its_result_comes_back(scripted: Served) -> None:
    client = scripted.client()
    messages: list[Any] = [{"role": "user", "content": "The weather in 'Oslo'?"}]
    options: dict[str, Any] = {"model": MODEL, "user": "ada", "tools": [WEATHER], "max_tokens": 120}
    made = client.chat.completions.create(messages=messages, **options)
    (call,) = made.choices[0].message.tool_calls or []
    assert call.type == "function"
    assert (call.function.name, json.loads(call.function.arguments)) == ("weather", {"place": "Oslo"})
    assert made.choices[0].finish_reason == "tool_calls"
    assert made.choices[0].message.content is None

    chunks = list(client.chat.completions.create(messages=messages, stream=True, **options))
    deltas = [delta for chunk in chunks for delta in chunk.choices[0].delta.tool_calls or []]
    assert [(delta.index, delta.function and delta.function.name) for delta in deltas] == [(0, "weather")]
    assert chunks[-1].choices[0].finish_reason == "tool_calls"

    messages += [
        made.choices[0].message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": call.id, "content": "Sunny."},
    ]
    after = client.chat.completions.create(messages=messages, **options)
    assert after.choices[0].finish_reason == "stop"
    answer = after.choices[0].message.content
    assert scripted.said() == [("user", "The weather in 'Oslo'?"), ("assistant", answer)]

    messages[0]["content"] += " And in 'Rome'?"
    without = client.chat.completions.create(messages=messages[:1], tool_choice="none", **options)
    assert without.choices[0].message.tool_calls is None


def test_response_with_a_call_goes_on_by_its_id(scripted: Served) -> None:
    client, ada = scripted.client(), scripted.agent.for_user("ada")
    tool = {"type": "function", "strict": False} | WEATHER["function"]
    options: dict[str, Any] = {"model": MODEL, "safety_identifier": "ada", "tools": [tool], "max_output_tokens": 120}
    made = client.responses.create(input="The weather in 'Oslo'?", **options)
    (call,) = [item for item in made.output if item.type == "function_call"]
    assert json.loads(call.arguments) == {"place": "Oslo"}
    kept = client.responses.retrieve(made.id, extra_headers={"X-Locas-User": "ada"})
    assert [item for item in kept.output if item.type == "function_call"] == [call]
    back: Any = [{"type": "function_call_output", "call_id": call.call_id, "output": "Sunny."}]
    after = client.responses.create(input=back, previous_response_id=made.id, **options)
    written = {"type": "function", "function": {"name": "weather", "arguments": {"place": "Oslo"}}}
    alone = ada.generate(
        [
            {"role": "user", "content": "The weather in 'Oslo'?"},
            {"role": "assistant", "content": "", "tool_calls": [written]},
            {"role": "tool", "content": "Sunny."},
        ],
        tools=[WEATHER],
        max_new_tokens=120,
    )
    assert after.usage is not None
    assert (after.output_text, after.usage.input_tokens) == (alone.text, alone.prompt_tokens)
    heard = [turn.trust for turn in ada.turns()]
    assert heard == ["user", "calls", "returned", "user"]  # nothing is learnt from calls and what tools return


def test_langchain_talks_streams_and_calls_tools(scripted: Served) -> None:
    made = ChatOpenAI(
        model=MODEL,
        base_url=scripted.url,
        api_key=scripted.key(user="ada"),  # type: ignore[arg-type]
        max_retries=0,
        max_tokens=120,  # type: ignore[call-arg]
    )
    asked = [SystemMessage("Be short."), HumanMessage("Hello there.")]
    whole = made.invoke(asked)
    assert isinstance(whole, AIMessage)
    assert whole.usage_metadata is not None
    assert whole.usage_metadata["output_tokens"] > 0
    assert "".join(str(chunk.content) for chunk in made.stream(asked)) == whole.content
    bound = made.bind_tools([WEATHER])
    question = HumanMessage("The weather in 'Oslo'?")
    called = bound.invoke([question])
    assert isinstance(called, AIMessage)
    assert [(call["name"], call["args"]) for call in called.tool_calls] == [("weather", {"place": "Oslo"})]
    result = ToolMessage("Sunny.", tool_call_id=str(called.tool_calls[0]["id"]))
    assert bound.invoke([question, called, result]).content


async def test_langchain_talks_in_an_event_loop(chat_openai: ChatOpenAI, served: Served) -> None:
    pieces = [str(chunk.content) async for chunk in chat_openai.astream([HumanMessage("Hello.")])]
    assert served.said() == [("user", "Hello."), ("assistant", "".join(pieces))]


async def test_langchain_reaches_the_responses_too(served: Served) -> None:
    made = ChatOpenAI(
        model=MODEL,
        base_url=served.url,
        api_key=served.key(user="ada"),  # type: ignore[arg-type]
        max_retries=0,
        use_responses_api=True,
    )
    answer = await made.ainvoke([HumanMessage("Hello.")])
    assert served.said() == [("user", "Hello."), ("assistant", answer.text)]

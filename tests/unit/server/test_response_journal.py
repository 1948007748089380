"""Responses go on from earlier ones, from any of them, and streams say what whole answers say."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from openai import BadRequestError, ConflictError, InternalServerError, NotFoundError, UnprocessableEntityError

from locas_agent.errors import StoreUnavailable
from locas_agent.inference.requests import GenerationRequest, RunningAnswer
from locas_agent.inference.running_batch import RunningBatch
from locas_storage import TurnDraft, UserKey
from tests.conftest import MakeMemory
from tests.unit.server.conftest import MODEL, Gate, Served, taught, wait_for

pytestmark = pytest.mark.rounding

KEYED = {"Idempotency-Key": "call-1"}
ADDS = '<tool_call>{"name": "add", "arguments": {"first": 1}}</tool_call>'


def message(role: str, text: str) -> dict[str, Any]:
    return {"role": role, "content": text}


def writes(served: Served, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Have the backbone answer whatever it is asked with this text."""
    submit, tokens = RunningBatch.submit, served.agent.backbone.encode(text)
    ends = sorted(served.agent.backbone.stop_ids)

    def under_script(batch: RunningBatch, request: GenerationRequest) -> RunningAnswer:
        allowed = lambda ids: [tokens[len(ids)]] if len(ids) < len(tokens) else ends  # noqa: E731
        return submit(batch, replace(request, allowed=allowed))

    monkeypatch.setattr(RunningBatch, "submit", under_script)


def test_response_goes_on_from_any_earlier_one(served: Served) -> None:
    client, ada = served.client(), served.agent.for_user("ada")
    options: dict[str, Any] = {"model": MODEL, "safety_identifier": "ada"}
    one = client.responses.create(input="One.", **options)
    two = client.responses.create(input="Two.", previous_response_id=one.id, **options)
    fork = client.responses.create(input="Other.", previous_response_id=one.id, **options)
    after = client.responses.create(input="After.", previous_response_id=fork.id, **options)
    begin = [message("user", "One."), message("assistant", one.output_text)]
    for made, prompt in (
        (two, [*begin, message("user", "Two.")]),
        (fork, [*begin, message("user", "Other.")]),
        (
            after,
            [
                *begin,
                message("user", "Other."),
                message("assistant", fork.output_text),
                message("user", "After."),
            ],
        ),
    ):
        alone = ada.generate(prompt)
        assert made.usage is not None
        assert (made.output_text, made.usage.input_tokens) == (alone.text, alone.prompt_tokens)
    assert [text for role, text in served.said() if role == "user"] == ["One.", "Two.", "Other.", "After."]


def test_conversation_goes_on_by_its_name(served: Served) -> None:
    client, ada = served.client(), served.agent.for_user("ada")
    options: dict[str, Any] = {"model": MODEL, "safety_identifier": "ada", "conversation": "kitchen"}
    one = client.responses.create(input="One.", **options)
    two = client.responses.create(input=[{"role": "user", "content": "Two."}], instructions="Be short.", **options)
    prompt = [
        message("system", "Be short."),
        message("user", "One."),
        message("assistant", one.output_text),
        message("user", "Two."),
    ]
    assert two.usage is not None
    assert two.usage.input_tokens == ada.generate(prompt).prompt_tokens
    assert {turn.session for turn in ada.turns()} == {"kitchen"}
    with pytest.raises(BadRequestError):
        client.responses.create(input="Three.", previous_response_id=one.id, **options)


def test_response_of_which_something_was_forgotten_goes_on_without_it(served: Served) -> None:
    client, ada = served.client(), served.agent.for_user("ada")
    options: dict[str, Any] = {"model": MODEL, "safety_identifier": "ada"}
    one = client.responses.create(input="My secret is 4711.", **options)
    two = client.responses.create(input="Two.", previous_response_id=one.id, **options)
    ada.forget([1, 2], wait=False)
    three = client.responses.create(input="Three.", previous_response_id=two.id, **options)
    prompt = [message("user", "Two."), message("assistant", two.output_text), message("user", "Three.")]
    assert three.usage is not None
    assert three.usage.input_tokens == ada.generate(prompt).prompt_tokens
    with pytest.raises(BadRequestError):
        client.responses.create(input="Four.", previous_response_id=one.id, **options)


def test_stream_of_events_says_what_the_whole_answer_says(scripted: Served) -> None:
    client = scripted.client()
    options: dict[str, Any] = {"model": MODEL, "input": "One.", "safety_identifier": "ada", "max_output_tokens": 40}
    whole = client.responses.create(**options)
    with client.responses.stream(**options) as stream:
        events = list(stream)
        last = stream.get_final_response()
    assert last.output_text == whole.output_text
    assert last.usage == whole.usage
    assert last.status == whole.status
    assert [event.type for event in events][:2] == ["response.created", "response.in_progress"]
    numbers = [event.sequence_number for event in events if hasattr(event, "sequence_number")]
    assert numbers == list(range(len(events)))
    told = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert told == whole.output_text


def test_call_that_is_tried_again_under_its_key_is_one_response(served: Served) -> None:
    client = served.client()
    options: dict[str, Any] = {"model": MODEL, "input": "One.", "extra_headers": {"Idempotency-Key": "call-1"}}
    made = [client.responses.create(safety_identifier="ada", **options) for _ in range(2)]
    assert made[0].id == made[1].id
    assert served.said() == [("user", "One."), ("assistant", made[0].output_text)]
    other = client.responses.create(safety_identifier="ben", **options)
    assert other.id != made[0].id
    assert served.said("ben")[0] == ("user", "One.")


@pytest.mark.parametrize("named", [False, True], ids=["by the response before", "by its name"])
def test_conversation_goes_on_though_every_answer_is_lost_once(
    served: Served, monkeypatch: pytest.MonkeyPatch, named: bool
) -> None:
    client, append, lost = served.client(), served.agent.store.append, set()

    def once_away(key: UserKey, drafts: Sequence[TurnDraft], **more: Any) -> Any:
        for draft in drafts:
            if (key.user, draft.role) == ("ben", "assistant") and draft.idempotency_key not in lost:
                lost.add(draft.idempotency_key)
                raise StoreUnavailable("gone")
        return append(key, drafts, **more)

    monkeypatch.setattr(served.agent.store, "append", once_away)
    counts: dict[str, list[int]] = {"ada": [], "ben": []}
    for user, read in counts.items():
        before: dict[str, Any] = {"conversation": "kitchen"} if named else {}
        for text in ("One.", "Two.", "Three."):
            again = {"Idempotency-Key": text}
            for is_last in (True,) if user == "ada" else (False, True):
                try:
                    made = client.responses.create(
                        model=MODEL, input=text, safety_identifier=user, extra_headers=again, **before
                    )
                except InternalServerError:
                    assert not is_last
            assert made.usage is not None
            read.append(made.usage.input_tokens)
            before = before if named else {"previous_response_id": made.id}
    assert len(lost) == 3
    assert counts["ben"] == counts["ada"]  # the prompt held all that was said, once
    assert served.said("ben") == served.said("ada")
    assert len({turn.session for turn in served.agent.for_user("ben").turns()}) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"input": []},
        {"input": [{"type": "image_generation_call", "content": "x"}]},
        {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]},
        {"tools": [{"type": "web_search"}]},
        {"text": {"format": {"type": "json_object"}}},
        {"background": True},
    ],
    ids=str,
)
def test_what_cannot_be_kept_is_refused(served: Served, change: dict[str, Any]) -> None:
    options: dict[str, Any] = {"model": MODEL, "input": "One.", "safety_identifier": "ada"}
    with pytest.raises(BadRequestError):
        served.client().responses.create(**(options | change))
    assert served.said() == []


def test_response_is_read_again_by_its_id(served: Served) -> None:
    client = served.client(served.key(user="ada"))
    one = client.responses.create(model=MODEL, input="One.")
    again = client.responses.retrieve(one.id)
    assert (again.id, again.output_text, again.status, again.model) == (one.id, one.output_text, "completed", MODEL)
    assert again.output[0].id == one.output[0].id
    named = served.client().responses.retrieve(one.id, extra_headers={"X-Locas-User": "ada"})
    assert named == again
    assert [role for role, _ in served.said()] == ["user", "assistant"]  # reading adds nothing


def test_response_is_read_by_its_user_alone_and_not_once_it_is_forgotten(served: Served) -> None:
    client, ada = served.client(), served.agent.for_user("ada")
    one = client.responses.create(model=MODEL, input="One.", safety_identifier="ada")
    gone = client.responses.create(model=MODEL, input="Two.", safety_identifier="ada")
    unkept = client.responses.create(model=MODEL, input="Three.", safety_identifier="ada", store=False)
    ada.add("user", "Not a response.", idempotency_key="resp")
    ada.forget([next(turn.seq for turn in ada.turns() if turn.idempotency_key == gone.id)], wait=False)
    as_ada, as_ben = {"X-Locas-User": "ada"}, {"X-Locas-User": "ben"}
    assert client.responses.retrieve(one.id, extra_headers=as_ada).id == one.id
    for response_id, headers in (
        (one.id, as_ben),
        (gone.id, as_ada),
        (unkept.id, as_ada),
        (f"{one.id}.0", as_ada),
        ("resp", as_ada),
    ):
        with pytest.raises(NotFoundError) as caught:
            client.responses.retrieve(response_id, extra_headers=headers)
        assert caught.value.code == "response_not_found"
    with pytest.raises(NotFoundError):
        served.client(served.key("acme")).responses.retrieve(one.id, extra_headers=as_ada)
    with pytest.raises(BadRequestError):
        client.responses.retrieve(one.id)  # nobody is named


def test_call_that_is_tried_again_is_answered_with_what_was_kept(served: Served, make_memory: MakeMemory) -> None:
    client = served.client()
    options: dict[str, Any] = {"model": MODEL, "input": "One.", "safety_identifier": "ada", "extra_headers": KEYED}
    one = client.responses.create(**options)
    taught(served.agent, make_memory(3, on=served.agent.backbone), "ada")
    assert served.agent.for_user("ada").generate([message("user", "One.")]).text != one.output_text
    again = client.responses.create(**options)
    assert (again.id, again.output) == (one.id, one.output)
    assert again.usage is not None
    assert again.usage.total_tokens == 0
    with client.responses.stream(**options) as stream:
        assert stream.get_final_response().output_text == one.output_text
    assert served.said() == [("user", "One."), ("assistant", one.output_text)]


def test_calls_of_tools_come_again_as_they_were(scripted: Served) -> None:
    client = scripted.client()
    options: dict[str, Any] = {
        "model": MODEL,
        "input": "Add 1 and 2.",
        "safety_identifier": "ada",
        "tools": [{"type": "function", "name": "add", "parameters": {"type": "object", "properties": {}}}],
        "tool_choice": "required",
        "max_output_tokens": 200,
        "extra_headers": KEYED,
    }
    one, again = client.responses.create(**options), client.responses.create(**options)
    assert any(item.type == "function_call" for item in one.output)
    assert again.output == one.output


def test_call_beside_one_that_could_not_be_read_comes_again(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    writes(served, monkeypatch, f"Well.<tool_call>{{'add'</tool_call>{ADDS}")
    client, ada = served.client(), served.agent.for_user("ada")
    options: dict[str, Any] = {
        "model": MODEL,
        "safety_identifier": "ada",
        "tools": [{"type": "function", "name": "add", "parameters": {"type": "object", "properties": {}}}],
        "max_output_tokens": 200,
        "extra_headers": KEYED,
    }
    one, again = (client.responses.create(input="Add 1.", **options) for _ in range(2))
    kept = client.responses.retrieve(one.id, extra_headers={"X-Locas-User": "ada"})
    (call,) = [item for item in one.output if item.type == "function_call"]
    assert (call.name, one.output_text) == ("add", "Well.<tool_call>{'add'")
    assert again.output == kept.output == one.output
    after = client.responses.create(input="Go on.", **options | {"previous_response_id": one.id, "extra_headers": {}})
    called = {"type": "function", "function": {"name": "add", "arguments": {"first": 1}}}
    prompt = [
        message("user", "Add 1."),
        message("assistant", one.output_text) | {"tool_calls": [called]},
        message("user", "Go on."),
    ]
    tool = {
        "type": "function",
        "function": {"name": "add", "description": "", "parameters": {"type": "object", "properties": {}}},
    }
    assert after.usage is not None
    assert after.usage.input_tokens == ada.generate(prompt, tools=[tool]).prompt_tokens


def test_key_of_a_call_is_good_for_that_call_alone(served: Served, gate: Gate) -> None:
    client, ada = served.client(), served.agent.for_user("ada")
    options: dict[str, Any] = {"model": MODEL, "input": "One.", "safety_identifier": "ada", "extra_headers": KEYED}
    with ThreadPoolExecutor(1) as other:
        first = other.submit(lambda: client.responses.create(**options))
        wait_for(lambda: gate.tokens)
        with pytest.raises(ConflictError) as conflict:
            client.responses.create(**options)
        gate.open()
        one = first.result()
    assert conflict.value.code == "idempotency_key_in_use"
    assert client.responses.create(**options).output == one.output
    with pytest.raises(UnprocessableEntityError) as reused:
        client.responses.create(**options | {"input": "Two."})
    assert reused.value.code == "idempotency_key_reused"
    ada.forget([1], wait=False)
    with pytest.raises(ConflictError) as gone:
        client.responses.create(**options)
    assert gone.value.code == "turn_forgotten"
    assert gate.begun == 1


def test_what_a_tool_returned_or_a_model_wrote_may_hold_what_no_turn_holds(served: Served) -> None:
    client, said = served.client(), "a\x00b\x1b\tc"
    options: dict[str, Any] = {"model": MODEL, "safety_identifier": "ada"}
    client.responses.create(input=[{"type": "function_call_output", "call_id": "1", "output": said}], **options)
    history: list[Any] = [message("user", "One."), message("assistant", said), message("user", "Two.")]
    client.chat.completions.create(messages=history, model=MODEL, user="ben")
    assert served.said()[0] == ("tool", "ab\tc")
    assert served.said("ben")[1] == ("assistant", "ab\tc")
    with pytest.raises(BadRequestError):
        client.responses.create(input=said, **options)  # a person can say it again


def test_answer_of_characters_that_no_turn_holds_is_kept_without_them(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    writes(served, monkeypatch, "a\x00b\x1ba\x00")
    client = served.client()
    made = client.responses.create(model=MODEL, input="One.", safety_identifier="ada", max_output_tokens=6)
    chat = client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "One."}], user="ben", max_tokens=6
    )
    assert made.output_text == chat.choices[0].message.content == "aba"
    assert served.said() == served.said("ben") == [("user", "One."), ("assistant", "aba")]

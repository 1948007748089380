"""Each turn is journalled once, although clients send the whole conversation every time."""

from __future__ import annotations

from typing import Any

import pytest
from openai import APIStatusError, OpenAI

from locas_agent import AgentMemory
from locas_agent.server.journal import ChatJournal, fitted
from locas_storage import UserKey
from tests.unit.server.conftest import MODEL, Served

pytestmark = pytest.mark.rounding

ADA = UserKey("default", "ada")


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


class Talk:
    """A client that holds a conversation, and sends all of it each time."""

    def __init__(self, client: OpenAI, **options: Any) -> None:
        self._client = client
        self._options = {"user": "ada"} | options
        self.messages: list[Any] = []

    def say(self, text: str) -> str:
        self.messages.append(user(text))
        return self.again()

    def again(self) -> str:
        made = self._client.chat.completions.create(model=MODEL, messages=self.messages, **self._options)
        self.messages.append(assistant(made.choices[0].message.content or ""))
        return str(self.messages[-1]["content"])

    @property
    def said(self) -> list[tuple[str, str]]:
        return [(message["role"], message["content"]) for message in self.messages]


def test_conversation_that_is_sent_whole_is_journalled_once(served: Served) -> None:
    talk = Talk(served.client())
    for number in range(4):
        talk.say(f"Thing {number}.")
    assert served.said() == talk.said
    assert len({turn.session for turn in served.agent.store.turns(ADA)}) == 1


def test_streamed_answers_are_journalled_as_they_were_sent(served: Served) -> None:
    client = served.client()
    messages: list[Any] = []
    for number in range(3):
        messages.append(user(f"Thing {number}."))
        chunks = list(client.chat.completions.create(model=MODEL, messages=messages, user="ada", stream=True))
        messages.append(assistant("".join(chunk.choices[0].delta.content or "" for chunk in chunks)))
    assert served.said() == [(message["role"], message["content"]) for message in messages]


def test_call_that_is_tried_again_adds_nothing(served: Served) -> None:
    talk = Talk(served.client())
    talk.say("One.")
    talk.messages.append(user("Two."))
    talk.again()
    before = served.said()
    del talk.messages[-1]
    talk.again()
    assert served.said() == before == talk.said


def test_first_call_that_is_tried_again_adds_nothing(served: Served) -> None:
    talk = Talk(served.client())
    talk.say("One.")
    del talk.messages[-1]
    talk.again()
    assert served.said() == talk.said


def test_conversations_that_begin_alike_are_told_apart(served: Served) -> None:
    client = served.client()
    first, second = Talk(client), Talk(client)
    first.say("Hello.")
    first.say("My favourite colour is blue.")
    second.say("Hello.")  # something else was said since: another conversation
    second.say("My favourite colour is red.")
    first.say("And I live in Oslo.")
    second.say("And I live in Rome.")
    first.say("Bye.")
    turns = served.agent.store.turns(ADA)
    by_session: dict[str | None, list[tuple[str, str]]] = {}
    for turn in turns:
        by_session.setdefault(turn.session, []).append((turn.role, turn.content))
    assert sorted(map(len, by_session.values())) == [6, 8]
    assert sorted(by_session.values()) == sorted([first.said, second.said])


def test_what_is_told_anew_after_something_else_is_a_turn_again(served: Served) -> None:
    client = served.client()
    for colour in ("blue", "red", "blue"):
        Talk(client).say(f"My favourite colour is {colour}.")
    said = [text for role, text in served.said() if role == "user"]
    assert said == [f"My favourite colour is {colour}." for colour in ("blue", "red", "blue")]


def test_named_conversations_are_told_apart_by_their_names(served: Served) -> None:
    client = served.client()
    talks = [Talk(client, extra_headers={"X-Locas-Conversation": name}) for name in ("one", "two")]
    for talk in talks:
        talk.say("Hello.")
        talk.say("Bye.")
    turns = served.agent.store.turns(ADA)
    assert [(turn.session, turn.role) for turn in turns] == [
        (name, role) for name in ("one", "two") for role in ("user", "assistant") * 2
    ]


def test_other_system_messages_change_no_turn(served: Served) -> None:
    talk = Talk(served.client())
    for number in range(3):
        talk.messages = [message for message in talk.messages if message["role"] != "system"]
        talk.messages.insert(0, {"role": "system", "content": f"It is {number} o'clock."})
        talk.say(f"Thing {number}.")
    assert served.said() == talk.said[1:]


@pytest.mark.parametrize("options", [{"store": False}, {"extra_headers": {"X-Locas-Store": "false"}}], ids=str)
def test_what_is_not_to_be_stored_leaves_nothing(served: Served, options: dict[str, Any]) -> None:
    Talk(served.client(), **options).say("This is between us.")
    assert served.agent.users() == []
    other = served.client().responses.create(
        model=MODEL, input="This too.", safety_identifier="ada", **({"store": False} | options)
    )
    assert other.store is False
    assert served.agent.users() == []
    with pytest.raises(APIStatusError) as caught:
        served.client().responses.create(
            model=MODEL, input="And?", safety_identifier="ada", previous_response_id=other.id
        )
    assert caught.value.code == "previous_response_not_found"


def test_what_is_not_to_be_learnt_is_journalled(served: Served) -> None:
    ada, off = served.agent.for_user("ada"), {"X-Locas-Learn": "false"}
    talk = Talk(served.client())
    talk.say("Learn this.")
    told = Talk(served.client(), extra_headers=off)
    told.messages = list(talk.messages)
    told.say("Never learn this.")
    talk.messages = list(told.messages)
    talk.say("Learn this too.")
    assert [turn.learn for turn in ada.turns()] == [True, True, False, False, True, True]
    assert ada.search("Never learn this.")  # kept and found all the same
    client = served.client()
    one = client.responses.create(model=MODEL, input="Nor this.", safety_identifier="ada", extra_headers=off)
    client.responses.create(model=MODEL, input="This.", safety_identifier="ada", previous_response_id=one.id)
    assert [turn.learn for turn in ada.turns()[6:]] == [False, False, True, True]


def test_header_with_another_value_is_refused(served: Served) -> None:
    for header in ("X-Locas-Store", "X-Locas-Learn"):
        with pytest.raises(APIStatusError) as caught:
            Talk(served.client(), extra_headers={header: "no"}).say("Between us.")
        assert (caught.value.status_code, header in str(caught.value)) == (400, True)
    assert served.agent.users() == []


def test_forgotten_turn_stays_away_and_out_of_the_prompt(served: Served) -> None:
    client = served.client()
    talk = Talk(client)
    talk.say("My secret is 4711.")
    talk.say("Hello.")
    served.agent.for_user("ada").forget([1, 2], wait=False)
    rest = talk.messages[2:]
    talk.messages.append(user("And now?"))
    made = client.chat.completions.create(model=MODEL, messages=talk.messages, user="ada")
    alone = served.agent.for_user("ada").generate([*rest, user("And now?")])
    assert made.usage is not None
    assert made.usage.prompt_tokens == alone.prompt_tokens
    assert "4711" not in str(served.said())
    assert [text for _, text in served.said()][:2] == [message["content"] for message in rest]


def test_corrected_turn_is_shown_as_it_was_corrected(served: Served) -> None:
    client = served.client()
    talk = Talk(client)
    talk.say("My dog is called Rex.")
    served.agent.for_user("ada").correct(1, "My dog is called Zorbin, and he is old.", wait=False)
    first, answer = talk.messages
    made = client.chat.completions.create(model=MODEL, messages=[first, answer, user("So?")], user="ada")
    alone = served.agent.for_user("ada").generate(
        [user("My dog is called Zorbin, and he is old."), answer, user("So?")]
    )
    assert made.usage is not None
    assert made.usage.prompt_tokens == alone.prompt_tokens
    assert "Rex" not in str(served.said())


def test_newest_message_that_was_forgotten_is_not_answered(served: Served) -> None:
    client = served.client()
    talk = Talk(client)
    talk.say("One.")
    talk.say("My secret is 4711.")
    served.agent.for_user("ada").forget([3, 4], wait=False)
    del talk.messages[-1]
    with pytest.raises(APIStatusError) as caught:
        talk.again()
    assert (caught.value.status_code, caught.value.code) == (409, "turn_forgotten")


def test_oldest_turns_stay_behind_where_the_prompt_has_no_room(agent: AgentMemory) -> None:
    context = agent.backbone.context_tokens
    messages = [{"role": "system", "content": "Be short."}]
    for number in range(60):
        messages += [user(f"{number} " + "x" * (context // 50)), assistant("Yes.")]
    messages.append(user("The end?"))
    recorded = ChatJournal(agent).record(ADA, messages, conversation=None, learn=True)
    assert len(agent.store.turns(ADA)) == 121
    shown = fitted(agent, recorded, (), answer_tokens=40)
    assert len(agent.backbone.encode_chat(shown)) <= context - 40
    assert shown[0] == messages[0]
    assert shown[-1] == messages[-1]
    assert [message["role"] for message in shown[1:3]] == ["user", "assistant"]
    assert shown[1:] == messages[-len(shown[1:]) :]
    assert len(shown) > 40  # no more than has to


def test_new_message_that_no_prompt_holds_is_refused(served: Served) -> None:
    with pytest.raises(APIStatusError) as caught:
        Talk(served.client()).say("x" * served.agent.backbone.context_tokens)
    assert (caught.value.status_code, caught.value.code) == (400, "context_length_exceeded")
    assert served.said() == []

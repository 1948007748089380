"""Several answers to one user at once: each to its own question, and question and answer side by side in the journal.

A stand-in for the engine writes fixed answers and stops where a test wants it to; the store and the rest are real.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from locas_agent import AgentMemory, Backbone, LocasConfig
from locas_agent.inference.generation import Generation
from locas_agent.serving import one_at_a_time
from locas_storage import InMemoryStore, MemoryStore
from tests.conftest import MakeBackbone
from tests.unit.agent.fake_learner import QuickLearner, Texts, quick_agent

PATIENCE_SECONDS = 20.0
A_MOMENT_SECONDS = 0.3
"""Long enough for a call that nothing holds back to come further; one that is held back is not seen to move however
long it is."""
ALTERNATING_ONLY = (
    "{% for message in messages %}"
    "{% if message.role not in ['user', 'assistant'] %}{{ raise_exception('only user and assistant') }}{% endif %}"
    "{% if (message.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif "
    "%}"
    "[{{ message.role }}]{{ message.content }}\n{% endfor %}"
)


class Scripted:
    """Answers "re: " and the last question of the prompt; keeps the prompts as text."""

    def __init__(
        self, agent: AgentMemory, monkeypatch: pytest.MonkeyPatch, *, before: Callable[[str], None] = lambda _: None
    ) -> None:
        self.prompts: list[str] = []
        self.before = before
        self._backbone = agent.backbone
        monkeypatch.setattr(agent.engine, "generate", self._generate)
        monkeypatch.setattr(agent.engine, "stream", self._stream)

    def _answer(self, prompt: Sequence[int]) -> tuple[int, ...]:
        text = self._backbone.decode(list(prompt))
        self.prompts.append(text)
        self.before(asked_last(text))
        return tuple(self._backbone.encode(f"re {asked_last(text)}"))

    def _generate(self, prompts: Sequence[Sequence[int]], **_: Any) -> list[Generation]:
        return [Generation(ids, tuple(0.0 for _ in ids), True) for ids in map(self._answer, prompts)]

    def _stream(self, prompt: Sequence[int], **_: Any) -> Iterator[int]:
        yield from self._answer(prompt)


def asked_last(prompt: str) -> str:
    """The text of the message before the opening of the answer."""
    return (
        prompt.rsplit("\nassistant\n", 1)[0].rsplit("\n", 1)[-1]
        if "\nassistant\n" in prompt
        else prompt.rstrip("\n").rsplit("\n", 2)[-2]
    )


@pytest.fixture
def store() -> InMemoryStore:
    return InMemoryStore()


@pytest.fixture
def agent(backbone: Backbone, store: InMemoryStore) -> Iterator[AgentMemory]:
    config = LocasConfig.model_validate(
        {"window": {"window_tokens": 400, "max_new_tokens": 20}, "policy": {"automatic": False}}
    )
    with AgentMemory(backbone=backbone, store=store, config=config) as made:
        yield made


def said(store: MemoryStore, agent: AgentMemory, user: str = "ada") -> list[str]:
    return [turn.content for turn in store.turns(agent.for_user(user).key)]


def pairs(texts: Sequence[str]) -> bool:
    """Whether the journal is question, answer, question, answer."""
    return len(texts) % 2 == 0 and all(
        answer == f"re {question}" for question, answer in zip(texts[::2], texts[1::2], strict=True)
    )


class Gate:
    """Holds the first answer back, and tells when it is being written."""

    def __init__(self) -> None:
        self.reached, self.open, self._first = threading.Event(), threading.Event(), threading.Lock()

    def __call__(self, _: str) -> None:
        if self._first.acquire(blocking=False):
            self.reached.set()
            assert self.open.wait(PATIENCE_SECONDS)


def when_journalled(store: MemoryStore, agent: AgentMemory, count: int) -> bool:
    """Wait a moment for so many turns; a call that has to wait never gets that far."""
    waited = threading.Event()
    for _ in range(30):
        if len(said(store, agent)) >= count:
            return True
        waited.wait(A_MOMENT_SECONDS / 30)
    return False


@pytest.mark.parametrize("second", ["reply", "stream", "reply_many"])
def test_second_question_is_journalled_after_the_first_answer(
    agent: AgentMemory, store: InMemoryStore, monkeypatch: pytest.MonkeyPatch, second: str
) -> None:
    gate = Gate()
    script = Scripted(agent, monkeypatch, before=gate)
    ada = agent.for_user("ada")
    calls = {
        "reply": lambda: ada.reply("two"),
        "stream": lambda: list(ada.stream("two")),
        "reply_many": lambda: agent.reply_many([("ben", "four"), ("ada", "two")]),
    }
    with ThreadPoolExecutor(2) as threads:
        one = threads.submit(ada.reply, "one")
        assert gate.reached.wait(PATIENCE_SECONDS)
        two = threads.submit(calls[second])
        assert not when_journalled(store, agent, 2)
        gate.open.set()
        assert one.result(PATIENCE_SECONDS).text == "re one"
        two.result(PATIENCE_SECONDS)
    assert said(store, agent) == ["one", "re one", "two", "re two"]
    assert sorted(map(asked_last, script.prompts)) == sorted(
        ["one", "two", *(["four"] if second == "reply_many" else [])]
    )


def test_nobody_waits_for_another_users_answer(
    agent: AgentMemory, store: InMemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate()
    Scripted(agent, monkeypatch, before=gate)
    with ThreadPoolExecutor(1) as threads:
        hers = threads.submit(agent.for_user("ada").reply, "one")
        assert gate.reached.wait(PATIENCE_SECONDS)
        assert agent.for_user("ben").reply("two").text == "re two"
        assert agent.for_user("ada").add("user", "meanwhile").seq == 2  # nor does the journal
        gate.open.set()
        assert hers.result(PATIENCE_SECONDS).text == "re one"


def test_batches_that_name_the_same_users_in_another_order_do_not_wait_for_ever(
    agent: AgentMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    Scripted(agent, monkeypatch)
    users = ["ada", "ben", "cleo"]
    with ThreadPoolExecutor(6) as threads:
        calls = [
            threads.submit(
                agent.reply_many, [(user, f"{number} of {user}") for user in (users if number % 2 else users[::-1])]
            )
            for number in range(24)
        ]
        for call in calls:
            call.result(PATIENCE_SECONDS)
    for user in users:
        assert pairs([turn.content for turn in agent.for_user(user).turns()])
    assert len(agent.replies.one_at_a_time) == 0  # nothing is kept of users who are not being answered


def test_streams_for_one_user_are_written_one_after_the_other(
    agent: AgentMemory, store: InMemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    Scripted(agent, monkeypatch)
    ada = agent.for_user("ada")

    async def read(number: int) -> str:
        return "".join([piece async for piece in ada.astream(f"question {number}")])

    async def all_at_once() -> list[str]:
        return await asyncio.gather(*(read(number) for number in range(50)))  # more than there are threads

    assert asyncio.run(all_at_once()) == [f"re question {number}" for number in range(50)]
    assert pairs(said(store, agent))


def test_stream_that_is_never_read_on_is_passed(
    agent: AgentMemory, store: InMemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(one_at_a_time, "PAUSE_SECONDS", 0.1)
    Scripted(agent, monkeypatch)
    ada = agent.for_user("ada")
    pieces = iter(ada.stream("one"))
    next(pieces)
    assert ada.reply("two").text == "re two"  # asked from where the stream is read: nobody could read on meanwhile
    list(pieces)
    assert said(store, agent) == ["one", "two", "re two", "re one"]
    assert [message["content"] for message in ada.prompt("three")][1:] == ["one", "re one", "two", "re two", "three"]
    assert ada.reply("three").text == "re three"  # the stream's end did not let two in


def test_stream_may_be_closed_in_another_thread(agent: AgentMemory, monkeypatch: pytest.MonkeyPatch) -> None:
    Scripted(agent, monkeypatch)
    ada = agent.for_user("ada")
    pieces = iter(ada.stream("one"))
    next(pieces)
    with ThreadPoolExecutor(1) as threads:
        threads.submit(pieces.close).result(PATIENCE_SECONDS)  # type: ignore[attr-defined]
    monkeypatch.setattr(one_at_a_time, "PAUSE_SECONDS", PATIENCE_SECONDS)  # nobody is passed here
    assert ada.reply("two").text == "re two"


def test_question_of_another_process_in_between_is_not_answered_here(
    agent: AgentMemory, store: InMemoryStore, backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = AgentMemory(
        backbone=backbone, store=store, config=agent.config
    )  # shares nothing but the store, as another process does
    here, there = Scripted(agent, monkeypatch), Scripted(other, monkeypatch)
    current = agent.memories.current

    def meanwhile(key: Any) -> Any:
        monkeypatch.setattr(agent.memories, "current", current)
        assert other.for_user("ada").reply("two").text == "re two"
        return current(key)

    monkeypatch.setattr(
        agent.memories, "current", meanwhile
    )  # asked after the question was journalled, before the prompt is laid out
    assert agent.for_user("ada").reply("one").text == "re one"
    assert said(store, agent) == ["one", "two", "re two", "re one"]
    assert [asked_last(prompt) for prompt in (*here.prompts, *there.prompts)] == ["one", "two"]
    assert "two" not in here.prompts[0]
    shown = [message["content"] for message in agent.for_user("ada").prompt("three")]
    assert shown[1:] == ["one", "re one", "two", "re two", "three"]


def test_call_tried_again_is_answered_as_if_nothing_had_come_between(
    agent: AgentMemory, store: InMemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = Scripted(agent, monkeypatch)
    ada = agent.for_user("ada")
    cut_off = iter(ada.stream("one", idempotency_key="k1", session="s"))
    next(cut_off)
    cut_off.close()  # type: ignore[attr-defined]
    ada.reply("two", idempotency_key="k2")
    again = ada.reply("one", idempotency_key="k1")
    assert (again.text, again.turn.session) == ("re one", "s")
    assert asked_last(script.prompts[-1]) == "one"
    count = len(script.prompts)
    for reply in (ada.reply("one", idempotency_key="k1"), ada.reply("two", idempotency_key="k2")):
        assert reply.why_no_memory is not None
    stream = ada.stream("one", idempotency_key="k1")
    assert list(stream) == ["re one"]
    assert stream.reply is not None
    assert stream.reply.turn == again.turn
    assert len(script.prompts) == count  # nothing was generated anew
    assert said(store, agent) == ["one", "two", "re two", "re one"]


def test_template_that_wants_roles_in_turn_takes_what_was_left_unanswered(
    make_backbone: MakeBackbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    strict = make_backbone()
    strict.tokenizer.chat_template = ALTERNATING_ONLY
    agent = quick_agent(strict, InMemoryStore(), "inline")
    ada = agent.for_user("ada")
    for text in ("one", "two"):
        ada.add("user", text)
    text = strict.decode(
        strict.encode_chat(
            [*ada.prompt("three"), {"role": "assistant", "content": "x"}, {"role": "user", "content": "four"}]
        )
    )
    assert text.splitlines()[1:] == ["one", "two", "three", "[assistant]x", "[user]four"]
    assert ada.reply("three").turn.role == "assistant"
    assert ada.reply("four").turn.seq == 6


def test_replies_at_once_do_not_train_the_same_twice_and_do_not_wait_for_it(backbone: Backbone) -> None:
    agent = quick_agent(backbone, InMemoryStore(), "inline")
    learner, begun, go_on = agent.runner.learner, threading.Event(), threading.Event()
    assert isinstance(learner, QuickLearner)

    def hold(_: list[Texts]) -> None:
        begun.set()
        assert go_on.wait(PATIENCE_SECONDS)

    learner.meanwhile = hold
    ada = agent.for_user("ada")
    for number in range(8):
        ada.add("user", f"said {number}")
    with ThreadPoolExecutor(1) as threads:
        one = threads.submit(ada.reply, "one")
        assert begun.wait(PATIENCE_SECONDS)
        assert ada.reply("two").consolidation is None  # it is being learnt already
        go_on.set()
        done = one.result(PATIENCE_SECONDS).consolidation
    assert done is not None
    assert done.admitted
    assert len(learner.learnt) == 1

"""What no verb can take is refused as everywhere, with an error of ours and before anything is written."""

from __future__ import annotations

import copy
import datetime as dt
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from locas_agent import AgentMemory, Backbone, LocasConfig, UserMemory
from locas_agent.config import WindowSettings
from locas_agent.conversation.token_count import longest_answer
from locas_agent.errors import ConfigurationError, InvalidTurn, TurnNotFound
from locas_storage import InMemoryStore, SqlMemoryStore, answer_key
from tests.conftest import MakeBackbone
from tests.unit.agent.fake_learner import quick_agent

NAIVE = dt.datetime(2026, 1, 1)  # noqa: DTZ001
HALF = "sad \udc4d face"
Call = Callable[[Any, Any], object]
Case = tuple[Call, type[Exception]]
NO_TEXT: dict[str, Call] = {
    "recall": lambda user, text: user.recall(text),
    "explain": lambda user, text: user.explain(text),
    "question": lambda user, text: user.explain("Rex", question=text),
    "prompt": lambda user, text: user.prompt(text),
    "search": lambda user, text: user.search(text),
    "reply": lambda user, text: user.reply(text),
    "stream": lambda user, text: list(user.stream(text)),
    "session": lambda user, text: user.reply("Hello.", session=text),
    "key": lambda user, text: user.reply("Hello.", idempotency_key=text),
}
WRONG: dict[str, Case] = {
    "forget text": (lambda user, agent: user.forget("12"), ConfigurationError),
    "forget none": (lambda user, agent: user.forget(None), ConfigurationError),
    "forget texts": (lambda user, agent: user.forget([1, "2"]), ConfigurationError),
    "forget true": (lambda user, agent: user.forget(True), ConfigurationError),
    "rollback": (lambda user, agent: user.rollback("first"), ConfigurationError),
    "rollback none": (lambda user, agent: user.rollback(None), ConfigurationError),
    "history": (lambda user, agent: user.history("3"), ConfigurationError),
    "turns": (lambda user, agent: user.turns(newest="3"), ConfigurationError),
    "turns after": (lambda user, agent: user.turns(after=None), ConfigurationError),
    "seed none": (lambda user, agent: user.reply("Hi.", temperature=1.0, seed=None), ConfigurationError),
    "seed text": (lambda user, agent: list(user.stream("Hi.", seed="7")), ConfigurationError),
    "seed negative": (lambda user, agent: user.reply("Hi.", seed=-1), ConfigurationError),
    "seed half": (lambda user, agent: agent.reply_many([(user, "Hi.")], seed=0.5), ConfigurationError),
    "temperature text": (lambda user, agent: user.reply("Hi.", temperature="hot"), ConfigurationError),
    "temperature nan": (lambda user, agent: list(user.stream("Hi.", temperature=float("nan"))), ConfigurationError),
    "temperature inf": (
        lambda user, agent: agent.reply_many([(user, "Hi.")], temperature=float("inf")),
        ConfigurationError,
    ),
    "temperature negative": (lambda user, agent: user.reply("Hi.", temperature=-1e-9), ConfigurationError),
    "length text": (lambda user, agent: user.reply("Hi.", max_new_tokens="4"), ConfigurationError),
    "length true": (lambda user, agent: user.recall("Hi.", max_new_tokens=True), ConfigurationError),
    "length half": (lambda user, agent: user.reply("Hi.", max_new_tokens=2.5), ConfigurationError),
    "users as text": (lambda user, agent: agent.consolidate_many("ada"), ConfigurationError),
    "prefetch number": (lambda user, agent: agent.prefetch([5]), InvalidTurn),
    "reply_many of names": (lambda user, agent: agent.reply_many(["ada"]), ConfigurationError),
    "long key": (lambda user, agent: user.reply("Hi.", idempotency_key="k" * 201), InvalidTurn),
    "made key": (lambda user, agent: user.reply("Hi.", idempotency_key=answer_key("7")), InvalidTurn),
    "made key of a turn": (lambda user, agent: user.add("user", "Hi.", idempotency_key=answer_key("7")), InvalidTurn),
    "naive time": (lambda user, agent: user.add("user", "Hi.", at=NAIVE), InvalidTurn),
}


@pytest.fixture
def agent(backbone: Backbone) -> Iterator[AgentMemory]:
    with quick_agent(backbone, InMemoryStore(), "inline") as made:
        yield made


@pytest.fixture
def ada(agent: AgentMemory) -> UserMemory:
    return agent.for_user("ada")


@pytest.mark.parametrize(
    "text", [HALF, "a\x00b", 5, None, b"bytes"], ids=["half a character", "NUL", "number", "None", "bytes"]
)
@pytest.mark.parametrize("verb", [*NO_TEXT, "reply_many"])
def test_what_no_turn_can_hold_is_refused_by_every_verb(
    agent: AgentMemory, ada: UserMemory, verb: str, text: Any
) -> None:
    calls = {**NO_TEXT, "reply_many": lambda user, text: agent.reply_many([("ben", "Hello."), (user, text)])}
    if text is None and verb in ("question", "session", "key"):
        calls[verb](ada, text)  # None is none
        return
    with pytest.raises(InvalidTurn):
        calls[verb](ada, text)
    assert agent.users() == []


@pytest.mark.parametrize("name", WRONG)
def test_wrong_arguments_are_refused_before_anything_is_written(agent: AgentMemory, ada: UserMemory, name: str) -> None:
    ada.add("user", "one")
    ada.add("user", "two")
    call, error = WRONG[name]
    with pytest.raises(error) as refusal:
        call(ada, agent)
    assert "Hi." not in str(refusal.value)
    assert [turn.content for turn in ada.turns()] == ["one", "two"]


def test_texts_no_tokenizer_takes_are_refused_by_the_backbone(backbone: Backbone) -> None:
    for call in (
        backbone.encode,
        backbone.count_tokens,
        lambda text: backbone.encode_chat([{"role": "user", "content": text}]),
    ):
        with pytest.raises(InvalidTurn, match="lone surrogate"):
            call(HALF)
    tool = {"type": "function", "function": {"name": "look", "description": HALF}}
    with pytest.raises(InvalidTurn, match="lone surrogate"):
        backbone.encode_chat([{"role": "user", "content": "Hi."}], tools=[tool])


@pytest.mark.parametrize("temperature", [5e-324, 1e-310, 1e-9])
def test_hardly_any_temperature_is_greedy(agent: AgentMemory, temperature: float) -> None:
    greedy = agent.for_user("ada").reply("Hello.").text
    assert agent.for_user("ben").reply("Hello.", temperature=temperature, seed=3).text == greedy
    assert (
        "".join(agent.for_user("cleo").stream("Hello.", temperature=temperature, seed=4)).replace("\x00", "").strip()
        == greedy
    )


@pytest.mark.parametrize("length", [186, 195, 200])
def test_key_of_any_length_that_a_turn_may_have_makes_one_pair(ada: UserMemory, length: int) -> None:
    key = "ü" * length
    first, again = ada.reply("Hello.", idempotency_key=key), ada.reply("Hello.", idempotency_key=key)
    assert (first.turn.role, first.turn) == ("assistant", again.turn)
    assert [turn.role for turn in ada.turns()] == ["user", "assistant"]


def test_callers_keys_and_keys_of_answers_never_meet(ada: UserMemory) -> None:
    for key in ("a:answer", "answer:a", "a"):
        ada.add("user", f"said under {key}", idempotency_key=key)
    assert ada.reply("ignored", idempotency_key="a").turn.seq == 4
    assert ada.reply("Hello.", idempotency_key="b").turn.role == "assistant"
    assert ada.add("user", "mine", idempotency_key="b:answer").content == "mine"
    ada.add("assistant", "I spoke first.", idempotency_key="c")
    with pytest.raises(InvalidTurn, match="assistant"):
        ada.reply("Hello.", idempotency_key="c")


def test_forgotten_answer_is_not_given_again(ada: UserMemory) -> None:
    answer = ada.reply("Hello.", idempotency_key="k").turn
    ada.forget(answer)
    with pytest.raises(TurnNotFound, match="new key"):
        ada.reply("Hello.", idempotency_key="k")
    assert len(ada.turns()) == 1


def test_answer_belongs_to_the_session_of_its_question(ada: UserMemory) -> None:
    ada.reply("one", session="work")
    list(ada.stream("two", session="home"))
    assert [turn.session for turn in ada.turns()] == ["work", "work", "home", "home"]


@pytest.mark.parametrize("zone", ["America/Los_Angeles", "Pacific/Kiritimati", "Asia/Kathmandu"])
@pytest.mark.parametrize("session", [None, "trip"])
def test_prompt_names_the_users_own_day(backbone: Backbone, tmp_path: Path, zone: str, session: str | None) -> None:
    config = LocasConfig(window=WindowSettings(window_tokens=400, max_new_tokens=4))
    place = ZoneInfo(zone)
    with AgentMemory(backbone=backbone, store=SqlMemoryStore(f"sqlite:///{tmp_path}/a.db"), config=config) as agent:
        for hour in (0, 7, 12, 18, 23):
            agent.for_user("ada").add(
                "user", f"at {hour}", at=dt.datetime(2026, 3, 31, hour, 30, tzinfo=place), session=session
            )
    with AgentMemory(
        backbone=backbone, store=SqlMemoryStore(f"sqlite:///{tmp_path}/a.db"), config=config
    ) as agent:  # as another process reads it
        ada = agent.for_user("ada")
        shown = [message["content"] for message in ada.prompt("?")]
        assert shown == ["Conversation on 31 March 2026.", "at 0", "at 7", "at 12", "at 18", "at 23", "?"]
        assert {turn.at.utcoffset() for turn in ada.turns()} == {dt.timedelta(0)}
        chunks = agent.learner.chunks(ada.turns())
        assert {chunk.messages[0]["content"] for chunk in chunks} == {"Conversation on 31 March 2026."}


def test_answer_that_leaves_no_room_for_a_question_is_refused_at_construction(make_backbone: MakeBackbone) -> None:
    backbone = make_backbone()
    most = longest_answer(backbone)
    for length in (most + 1, 100_000):
        with pytest.raises(ConfigurationError, match=f"at most {most}$"):
            AgentMemory(
                backbone=backbone,
                store=InMemoryStore(),
                config=LocasConfig(window=WindowSettings(max_new_tokens=length)),
            )
    agent = AgentMemory(
        backbone=backbone, store=InMemoryStore(), config=LocasConfig(window=WindowSettings(max_new_tokens=most))
    )
    assert agent.for_user("ada").reply("Hi.").turn.seq == 2
    with pytest.raises(ConfigurationError) as refusal:
        agent.for_user("ada").reply("Hi.", max_new_tokens=most + 1)
    assert "-" not in str(refusal.value).replace("random-0", "")


def test_copies_of_a_handle_share_what_it_stands_on(agent: AgentMemory, ada: UserMemory) -> None:
    for other in (copy.copy(ada), copy.deepcopy(ada), copy.deepcopy({"user": ada})["user"]):
        assert other.key == ada.key
        assert other.crews is agent.crews
    assert copy.deepcopy(agent) is agent
    for thing in (agent, ada):
        with pytest.raises(ConfigurationError, match="cannot be pickled"):
            thing.__reduce_ex__(4)  # which is what pickle calls


def test_store_may_be_a_path(backbone: Backbone, tmp_path: Path) -> None:
    place = tmp_path / "odd ? name#.db"
    with AgentMemory.load(backbone, place) as agent:
        agent.for_user("ada").add("user", "one")
    assert place.exists()
    with AgentMemory.load(backbone, place) as agent:
        assert len(agent.for_user("ada").turns()) == 1


@pytest.mark.parametrize(
    "parts",
    [{"store": None}, {"store": 5}, {"store": ["sqlite://"]}, {"config": {"window": {}}}, {"backbone": None}],
    ids=str,
)
def test_what_is_no_part_is_refused_before_anything_is_loaded(backbone: Backbone, parts: dict[str, Any]) -> None:
    given = {"backbone": backbone, "store": "sqlite://", "config": None} | parts
    with pytest.raises(ConfigurationError, match="expected"):
        AgentMemory.load(**given)
    if not isinstance(given["store"], str):
        with pytest.raises(ConfigurationError, match="expected"):
            AgentMemory(**given)


@pytest.mark.parametrize(("whole", "in_pieces"), [("reply", "stream"), ("generate", "generate_stream")])
def test_an_answer_in_pieces_is_asked_for_as_a_whole_one(whole: str, in_pieces: str) -> None:
    asked = inspect.signature(getattr(UserMemory, whole)).parameters
    assert len(asked) > 5
    assert inspect.signature(getattr(UserMemory, in_pieces)).parameters == asked

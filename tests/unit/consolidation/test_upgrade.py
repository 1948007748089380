"""Users learnt anew on another backbone: who is moved, who stays, and what happens to what is said meanwhile.

The learner is the stand-in, stores and backbones are real: two random ones, of two fingerprints.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event

import pytest

from locas_agent import AgentMemory, Backbone, LocasMemory
from locas_agent.consolidation import upgrade as moving
from locas_agent.consolidation.upgrade import recall
from locas_agent.conversation.messages import question
from locas_agent.errors import ConfigurationError, IncompatibleMemory
from locas_agent.inference import Engine
from locas_agent.memory import MemoryBatch
from locas_agent.study.items import PROBE, QUESTION
from locas_storage import IMPORTED, SqlMemoryStore, StudyItem, TurnDraft, UserKey
from tests.conftest import MakeBackbone, MakeMemory
from tests.unit.agent.fake_learner import QuickLearner, Texts, quick_agent

ADA = UserKey("default", "ada")


@pytest.fixture(scope="module")
def other(make_backbone: MakeBackbone) -> Backbone:
    """The next backbone."""
    return make_backbone(seed=1)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqlMemoryStore]:
    opened = SqlMemoryStore(f"sqlite:///{tmp_path / 'locas.db'}")
    yield opened
    assert opened.verify().faults == ()
    opened.close()


@pytest.fixture
def old(backbone: Backbone, store: SqlMemoryStore) -> AgentMemory:
    return quick_agent(backbone, store)


@pytest.fixture
def new(other: Backbone, store: SqlMemoryStore) -> AgentMemory:
    return quick_agent(other, store)


def learner_of(agent: AgentMemory) -> QuickLearner:
    assert isinstance(agent.runner.learner, QuickLearner)
    return agent.runner.learner


def teach(agent: AgentMemory, user: str = "ada", sessions: int = 3) -> None:
    """Tell two things a session and learn them, then one thing that is not learnt yet."""
    handle = agent.for_user(user)
    for session in range(sessions):
        for number in range(2):
            handle.add("user", f"{user} says {session} {number}")
        assert handle.consolidate(flush=True).admitted
    handle.add("user", f"{user} says more")


def one_after_the_other(moves: list[Callable[[], object]]) -> Callable[[list[Texts]], None]:
    """Return what makes the next of some moves at each call."""

    def meanwhile(_: list[Texts]) -> None:
        if moves:
            moves.pop(0)()

    return meanwhile


def test_user_is_learnt_anew_with_the_same_stops_and_served_by_the_new_backbone(
    old: AgentMemory, new: AgentMemory, backbone: Backbone, other: Backbone
) -> None:
    teach(old)
    ada = new.for_user("ada")
    with pytest.raises(IncompatibleMemory):
        ada.reply("hello")
    said = ada.turns()
    (result,) = new.upgrade(former=[backbone])
    assert (result.status, result.key, result.questions) == ("moved", ADA, 12)  # six that each backbone wrote
    assert result.recall_before is not None
    assert result.recall_after is not None
    assert learner_of(new).learnt == learner_of(old).learnt
    revisions = ada.revisions()
    assert [one.fingerprint for one in revisions[3:]] == [other.fingerprint] * 4
    assert [(one.from_seq, one.to_seq) for one in revisions[4:]] == [(1, 2), (3, 4), (5, 6)]
    assert result.revision == revisions[-1].number == 7
    assert ada.turns() == said
    assert ada.reply("hello").revision == 7
    with pytest.raises(IncompatibleMemory):
        old.for_user("ada").recall("hello")
    assert ada.consolidate(flush=True).admitted  # what was not learnt yet comes next, on the new backbone
    assert learner_of(new).learnt[-1][0] == "ada says more"

    (again,) = new.upgrade([ada], former=[backbone])
    assert (again.status, again.reason) == ("there", "moved before")


def test_way_back_is_one_rollback_and_may_be_repeated(
    old: AgentMemory, new: AgentMemory, backbone: Backbone, store: SqlMemoryStore
) -> None:
    teach(old)
    before = old.for_user("ada").revisions()[-1]
    new.upgrade(former=[backbone])
    for number in range(4):  # more than the payloads that are kept
        new.for_user("ada").add("user", f"on the new one {number}")
        new.for_user("ada").consolidate(flush=True)
    (result,) = new.undo_upgrade(["ada"])
    assert result.status == "moved"
    head = store.revision(ADA)
    assert head is not None
    assert (head.number, head.restores, head.payload_sha256) == (result.revision, before.number, before.payload_sha256)
    assert [one.status for one in new.undo_upgrade(["ada"])] == ["there"]
    waiting = [turn.content for turn in old.runtime_of(ADA).pending(ADA, flush=True)]
    assert waiting == ["ada says more", *(f"on the new one {number}" for number in range(4))]
    assert old.for_user("ada").reply("hello").revision == head.number


def test_who_would_recall_less_stays(
    old: AgentMemory, new: AgentMemory, backbone: Backbone, store: SqlMemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for user in ("ada", "ben"):
        teach(old, user, sessions=1)
    answers = iter([0.9, 0.7, 0.9, 0.85])  # of Ada's former and new memory, then of Ben's
    monkeypatch.setattr(moving, "recall", lambda *_: next(answers))
    before = store.revisions(ADA)
    ada, ben = new.upgrade(["ada", "ben"], former=[backbone])
    assert (ada.status, ada.reason, ada.recall_before, ada.recall_after) == ("kept", "recalls less", 0.9, 0.7)
    assert "0.200" in ada.detail
    assert store.revisions(ADA) == before
    assert old.for_user("ada").reply("hello").revision == 1
    assert (ben.status, ben.recall_after) == ("moved", 0.85)


def test_who_cannot_be_learnt_anew_stays_with_the_reason(
    old: AgentMemory, new: AgentMemory, backbone: Backbone, store: SqlMemoryStore
) -> None:
    for user in ("ada", "ben", "cleo"):
        teach(old, user, sessions=1)
    store.append(UserKey("default", "dora"), [TurnDraft("user", "not learnt yet")])
    old.for_user("eve").add("system", "learnt elsewhere", trust=IMPORTED)
    old.for_user("eve").consolidate(flush=True)
    learner_of(new).refused = {"ben says 0 0"}

    def break_on_cleo(texts: list[Texts]) -> None:
        if any("cleo says 0 0" in each for each in texts):
            raise RuntimeError("cleo says 0 0")

    learner_of(new).meanwhile = break_on_cleo
    found = {one.key.user: (one.status, one.reason, one.detail) for one in new.upgrade(former=[backbone])}
    assert {user: said[:2] for user, said in found.items()} == {
        "ada": ("moved", "moved"),
        "ben": ("kept", "not learnt"),
        "cleo": ("failed", "RuntimeError"),
        "dora": ("nothing", "no memory"),
        "eve": ("kept", "imported"),
    }
    assert not any("says" in said[2] for said in found.values())
    (unknown,) = new.upgrade(["ben"])
    assert (unknown.status, unknown.reason) == ("kept", "unknown backbone")
    for wrong in (lambda: new.upgrade(["ben", "ben"]), lambda: new.upgrade(users_at_once=0)):
        with pytest.raises(ConfigurationError):
            wrong()


def test_whom_the_former_backbone_refused_is_learnt_up_to_what_was_tried_and_goes_back_to_no_memory(
    old: AgentMemory, new: AgentMemory, backbone: Backbone, store: SqlMemoryStore
) -> None:
    learner_of(old).refused = {"ada says 0"}
    ada = old.for_user("ada")
    for session in range(2):
        ada.add("user", f"ada says {session}")
        assert not ada.consolidate(flush=True).admitted
    ada.add("user", "ada says more")
    (result,) = new.upgrade(former=[backbone])
    assert (result.status, result.recall_before, result.revision) == ("moved", None, 3)
    assert learner_of(new).learnt == [("ada says 0",), ("ada says 1",)]
    assert [turn.content for turn in new.runtime_of(ADA).pending(ADA, flush=True)] == ["ada says more"]
    assert [one.status for one in new.upgrade(former=[backbone])] == ["there"]

    assert [one.status for one in new.undo_upgrade()] == ["moved"]
    assert old.for_user("ada").reply("hello").used_memory is False
    assert [one.status for one in new.undo_upgrade()] == ["there"]

    learner_of(new).refused = {"ada says 1"}
    (part,) = new.upgrade(former=[backbone])
    assert part.status == "moved"  # some of it is better than none
    head = store.revision(ADA)
    assert head is not None
    assert head.to_seq == 1
    new.undo_upgrade()
    learner_of(new).refused = {"ada says 0"}
    assert [(one.status, one.reason) for one in new.upgrade(former=[backbone])] == [("kept", "not learnt")]


def test_what_is_said_and_learnt_meanwhile_is_caught_up_with(
    old: AgentMemory, new: AgentMemory, backbone: Backbone
) -> None:
    teach(old, sessions=2)
    moves: list[Callable[[], object]] = [
        lambda: old.for_user("ada").add("user", "said meanwhile"),
        lambda: old.for_user("ada").consolidate(flush=True),
    ]
    learner_of(new).meanwhile = one_after_the_other(moves)
    (result,) = new.upgrade(former=[backbone])
    assert (result.status, moves) == ("moved", [])
    learnt = [text for texts in learner_of(new).learnt for text in texts]
    assert learnt == [*(f"ada says {at // 2} {at % 2}" for at in range(4)), "ada says more", "said meanwhile"]
    assert new.for_user("ada").pending() == []


def test_forgetting_meanwhile_begins_the_user_again(
    old: AgentMemory, new: AgentMemory, backbone: Backbone, store: SqlMemoryStore
) -> None:
    teach(old, sessions=2)
    moves: list[Callable[[], object]] = [lambda: old.for_user("ada").forget(3, wait=False)]
    learner_of(new).meanwhile = one_after_the_other(moves)
    (result,) = new.upgrade(former=[backbone])
    assert (result.status, moves) == ("moved", [])
    head = store.revision(ADA)
    assert head is not None
    assert (head.fingerprint, head.to_seq) == (new.backbone.fingerprint, 2)
    assert not any("ada says 1 0" in item.question for item in store.study_items(ADA, with_retired=True))
    assert old.work().admitted == 0  # the rebuild is a job of the new backbone
    assert new.work().admitted == 1
    assert learner_of(new).learnt[-1] == ("ada says 1 1",)


def test_stop_leaves_the_others_where_they_were(
    old: AgentMemory, new: AgentMemory, backbone: Backbone, store: SqlMemoryStore
) -> None:
    for user in ("ada", "ben", "cleo"):
        teach(old, user, sessions=1)
    stop, stages = Event(), list[str]()

    def watch(stage: str, done: int, total: int) -> None:
        stages.append(f"{stage} {done} of {total}")
        if stage == "users":
            stop.set()

    first = new.upgrade(former=[backbone], users_at_once=1, stop=stop, progress=watch)
    assert [one.status for one in first] == ["moved", "stopped", "stopped"]
    assert stages[-1] == "users 1 of 3"
    assert [one.status for one in new.upgrade(former=[backbone], stop=stop)] == ["stopped"] * 3
    second = new.upgrade(former=[backbone])
    assert [one.status for one in second] == ["there", "moved", "moved"]


def test_shape_changes_on_the_same_backbone(old: AgentMemory, backbone: Backbone, store: SqlMemoryStore) -> None:
    teach(old, sessions=1)
    config = old.config.model_copy(update={"memory": old.config.memory.model_copy(update={"width": 3})})
    wider = AgentMemory(backbone=backbone, store=store, config=config)
    wider.runner.learner = QuickLearner(backbone)
    assert [one.status for one in old.upgrade()] == ["there"]
    (result,) = wider.upgrade()
    assert result.status == "moved"
    assert [one.status for one in wider.upgrade()] == ["there"]
    assert [one.status for one in wider.undo_upgrade()] == ["moved"]
    assert [one.status for one in old.upgrade()] == ["there"]


def test_recall_counts_answers_that_agree(engine: Engine, make_memory: MakeMemory) -> None:
    memory: LocasMemory = make_memory(3)
    asked = [f"What is number {number}?" for number in range(8)]
    prompts = [engine.backbone.encode_chat(question(text)) for text in asked]
    batch = MemoryBatch.of([memory], engine.backbone, rows_per_memory=len(asked))
    said = [engine.backbone.decode(one.ids) for one in engine.generate(prompts, memory=batch, max_new_tokens=8)]

    def item(number: int, kind: str) -> StudyItem:
        return StudyItem("0" * 32, kind, 1, 1, 1, asked[number], said[number], b"", 1, None)

    items = [item(number, PROBE if number == 0 else QUESTION) for number in range(8)]
    with_memory, without = (recall(engine, one, items, 8) for one in (memory, None))
    assert with_memory is not None
    assert without is not None
    assert with_memory >= 0.5 > without  # a random answer may have no word in it
    too_long = [StudyItem("0" * 32, QUESTION, 1, 1, 1, "x" * 600, "yes", b"", 1, None)]
    assert recall(engine, memory, too_long, 8) == 0.0
    assert recall(engine, memory, [], 8) is None

"""Consolidation in the background: what a reply leaves to a worker, and what workers do with it.

The store is a real SQLite file.
"""

from __future__ import annotations

import datetime as dt
import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from locas_agent import AgentMemory, Backbone, Engine
from locas_agent.consolidation.worker import RetryPolicy, Worker
from locas_agent.errors import ConfigurationError, RevisionConflict, TurnNotFound, UnsupportedBackbone, UserErased
from locas_agent.memory_cache import MemoryCache
from locas_agent.results import WorkSummary
from locas_agent.study.forms.calibration import Calibration
from locas_agent.study.forms.measuring import calibrate
from locas_storage import Lease, SqlMemoryStore, StoreUnavailable
from locas_storage.rules.queue import MAX_ATTEMPTS
from tests.unit.agent.fake_learner import MakeAgent, QuickLearner, Texts, quick_agents


@pytest.fixture
def make_agent(backbone: Backbone, tmp_path: Path) -> Iterator[MakeAgent]:
    """Agents on one file, each as a process of its own would have it; `agent.runner.learner` is the stand-in."""
    with quick_agents(backbone, tmp_path, "background") as make:
        yield make


@pytest.fixture
def agent(make_agent: MakeAgent) -> AgentMemory:
    return make_agent()


def learner_of(agent: AgentMemory) -> QuickLearner:
    assert isinstance(agent.runner.learner, QuickLearner)
    return agent.runner.learner


def tell(agent: AgentMemory, user: str = "ada", count: int = 8) -> None:
    """Say what is more than the window holds."""
    for number in range(count):
        agent.for_user(user).add("user", f"{user} says {number}")


def worker_of(agent: AgentMemory, **settings: Any) -> Worker:
    return Worker(agent.store, agent.runner, **settings)


def test_reply_leaves_learning_to_a_worker(agent: AgentMemory) -> None:
    ada = agent.for_user("ada")
    tell(agent, count=3)
    assert agent.store.queue.jobs() == []
    replies = [ada.reply("and more of it") for _ in range(3)]
    assert [reply.consolidation for reply in replies] == [None] * 3
    assert replies[-1].pending_turns > 0
    assert ada.consolidation_due().is_due
    assert learner_of(agent).learnt == []
    (job,) = agent.store.queue.jobs()
    assert (job.state, job.key) == ("ready", ada.key)

    assert agent.work() == WorkSummary(admitted=1)
    assert len(learner_of(agent).learnt) == 1
    assert agent.store.queue.jobs() == []
    (revision,) = ada.revisions()
    assert revision.to_seq == job.to_seq
    assert not ada.consolidation_due().is_due
    assert ada.reply("hello").revision == 1
    assert agent.work() == WorkSummary()


def test_inline_reply_learns_by_itself_and_asks_nobody(make_agent: MakeAgent) -> None:
    agent = make_agent("inline")
    tell(agent)
    reply = agent.for_user("ada").reply("and more of it")
    assert reply.consolidation is not None
    assert reply.consolidation.admitted
    assert agent.store.queue.jobs() == []


def test_explicit_consolidation_can_be_left_to_a_worker(agent: AgentMemory, make_agent: MakeAgent) -> None:
    ada = agent.for_user("ada")
    assert ada.consolidate(wait=False).status == "nothing"
    ada.add("user", "one")
    assert ada.consolidate(wait=False).status == "nothing"  # still in the window
    queued = ada.consolidate(wait=False, flush=True)
    assert (queued.status, queued.turns) == ("queued", 1)
    assert agent.work() == WorkSummary(admitted=1)
    assert ada.revisions()[0].to_seq == 1
    with pytest.raises(ConfigurationError, match="background"):
        make_agent("inline").for_user("ada").consolidate(wait=False)
    with pytest.raises(ConfigurationError, match="inline"):
        make_agent("sometimes")


def test_users_of_similar_length_are_learnt_side_by_side(agent: AgentMemory) -> None:
    for user in ("ada", "ben", "cleo"):
        tell(agent, user)
    rounds: list[int] = []
    learner_of(agent).meanwhile = lambda texts: rounds.append(len(texts))
    assert agent.work(jobs_at_once=2) == WorkSummary(admitted=3)
    assert rounds == [2, 1]


def test_one_memory_is_never_learnt_twice(make_agent: MakeAgent) -> None:
    agents = [make_agent() for _ in range(4)]
    users = [f"user {number}" for number in range(10)]
    for user in users:
        tell(agents[0], user)
    counts: list[WorkSummary] = []
    threads = [
        threading.Thread(target=lambda agent=agent: counts.append(agent.work(jobs_at_once=1))) for agent in agents
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(count.admitted for count in counts) == len(users)
    assert [sum(getattr(count, name) for count in counts) for name in ("failed", "lost", "refused", "nothing")] == [
        0,
        0,
        0,
        0,
    ]
    learnt = [texts for agent in agents for texts in learner_of(agent).learnt]
    assert len(learnt) == len(set(learnt)) == len(users)
    assert all(len(agents[0].for_user(user).revisions()) == 1 for user in users)


def test_worker_that_fell_silent_cannot_write(make_agent: MakeAgent) -> None:
    slow, quick = make_agent(), make_agent()
    tell(slow)

    def fall_silent(_: list[Texts]) -> None:
        while not quick.work().admitted:
            time.sleep(0.02)

    learner_of(slow).meanwhile = fall_silent
    # No heartbeat comes in time: a third of the lease is longer than this test.
    silent = worker_of(slow, lease_seconds=0.05)
    original = slow.store.queue.heartbeat
    slow.store.queue.heartbeat = lambda *_, **__: None  # type: ignore[method-assign]
    assert silent.drain() == WorkSummary(lost=1)
    slow.store.queue.heartbeat = original  # type: ignore[method-assign]
    assert len(learner_of(slow).learnt) == len(learner_of(quick).learnt) == 1
    assert len(slow.for_user("ada").revisions()) == 1
    assert slow.store.queue.jobs() == []


def test_heartbeat_keeps_a_lease_that_is_shorter_than_the_round(make_agent: MakeAgent) -> None:
    agent, other = make_agent(), make_agent()
    tell(agent)
    seen: list[WorkSummary] = []

    def take_long(_: list[Texts]) -> None:
        for _ in range(6):
            time.sleep(0.15)
            seen.append(other.work())

    learner_of(agent).meanwhile = take_long
    assert agent.work(lease_seconds=0.45) == WorkSummary(admitted=1)
    assert seen == [WorkSummary()] * 6


def test_stopped_worker_gives_its_jobs_back(agent: AgentMemory) -> None:
    tell(agent)
    stop = threading.Event()
    learner_of(agent).meanwhile = lambda _: stop.set()
    assert agent.work(stop=stop) == WorkSummary()
    (job,) = agent.store.queue.jobs()
    assert (job.state, job.attempts) == ("ready", 0)
    assert agent.for_user("ada").revisions() == []
    learner_of(agent).meanwhile = lambda _: None
    assert agent.work() == WorkSummary(admitted=1)


def test_worker_waits_for_work_until_it_is_stopped(agent: AgentMemory) -> None:
    stop = threading.Event()
    counts: list[WorkSummary] = []
    thread = threading.Thread(target=lambda: counts.append(agent.work(stop=stop, once=False, poll_seconds=0.02)))
    thread.start()
    tell(agent)
    for _ in range(2000):
        if agent.for_user("ada").revisions() and not agent.store.queue.jobs():
            break
        time.sleep(0.01)
    stop.set()
    thread.join(timeout=30)
    # The turns come in one after the other: whether the worker finds them in one round or in several is up to chance.
    assert counts == [WorkSummary(admitted=len(agent.for_user("ada").revisions()))]
    assert counts[0].admitted >= 1


def test_worker_outlives_a_store_that_goes_away_in_the_middle_of_a_round(
    agent: AgentMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    tell(agent)
    stop, queue = threading.Event(), agent.store.queue
    refused: list[str] = []

    def gone(name: str, times: int, real: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **more: object) -> object:
            if refused.count(name) < times:
                refused.append(name)
                raise StoreUnavailable("the server is restarting")
            return real(*arguments, **more)

        return call

    monkeypatch.setattr(agent.store, "commit", gone("commit", 1, agent.store.commit))
    monkeypatch.setattr(queue, "fail", gone("fail", 2, queue.fail))
    counts: list[WorkSummary] = []
    settings: dict[str, Any] = {"once": False, "poll_seconds": 0.05, "lease_seconds": 1.0}
    thread = threading.Thread(target=lambda: counts.append(agent.work(stop=stop, **settings)))
    thread.start()
    for _ in range(1000):
        if agent.for_user("ada").revisions() or not thread.is_alive():
            break
        time.sleep(0.01)
    stop.set()
    thread.join(timeout=10)
    assert refused == ["commit", "fail", "fail"]
    assert counts == [WorkSummary(admitted=1)]  # the lease of the first attempt ran out and was claimed anew


def test_user_whose_turns_break_learning_harms_nobody_else(
    agent: AgentMemory, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    for user in ("ada", "ben"):
        tell(agent, user)

    def break_on_ben(texts: list[Texts]) -> None:
        if any("ben says 0" in said for said in texts):
            raise RuntimeError("ben says 0 and it is quoted here")

    learner_of(agent).meanwhile = break_on_ben
    assert agent.work() == WorkSummary(admitted=1, failed=1)
    assert len(agent.for_user("ada").revisions()) == 1
    (job,) = agent.store.queue.jobs()
    assert (job.key.user, job.state, job.attempts, job.reason) == ("ben", "ready", 1, "RuntimeError")
    assert [record for record in caplog.records if getattr(record, "reason", None) == "RuntimeError"]
    assert "ben says" not in caplog.text + repr([record.__dict__ for record in caplog.records])
    assert agent.work() == WorkSummary()  # it waits before it is tried again


def test_dead_job_waits_for_twice_the_text(agent: AgentMemory) -> None:
    tell(agent)
    (lease,) = agent.store.queue.claim("test")
    for _ in range(4):
        agent.store.queue.fail(lease, "RuntimeError", retry_seconds=0)
        (lease,) = agent.store.queue.claim("test")
    agent.store.queue.fail(lease, "RuntimeError", retry_seconds=0)
    assert [job.state for job in agent.store.queue.jobs()] == ["dead"]
    tell(agent, count=2)
    assert [job.state for job in agent.store.queue.jobs()] == ["dead"]
    assert agent.for_user("ada").consolidation_due().reason == "refused before"
    tell(agent, count=12)
    assert [job.state for job in agent.store.queue.jobs()] == ["dead", "ready"]
    assert agent.work() == WorkSummary(admitted=1)
    assert "ada says 0" in learner_of(agent).learnt[0]  # nothing was left out


def test_refusal_ends_the_job_and_is_remembered(agent: AgentMemory) -> None:
    tell(agent)
    learner_of(agent).refused = {"ada says 1"}
    assert agent.work() == WorkSummary(refused=1)
    assert agent.store.queue.jobs() == []
    assert agent.for_user("ada").revisions() == []
    assert [entry.facts["reason"] for entry in agent.store.audit(agent.for_user("ada").key)] == ["drift"]
    agent.for_user("ada").add("user", "one more")
    assert agent.store.queue.jobs() == []


def test_explicit_consolidation_overtaken_by_a_worker_is_refused(make_agent: MakeAgent) -> None:
    agent, other = make_agent(), make_agent()
    tell(agent)
    learner_of(agent).meanwhile = lambda _: other.work()
    with pytest.raises(RevisionConflict):
        agent.for_user("ada").consolidate()
    assert len(agent.for_user("ada").revisions()) == 1
    assert len(learner_of(other).learnt) == 1


def test_worker_overtaken_by_an_explicit_consolidation_finds_nothing_left(make_agent: MakeAgent) -> None:
    agent, other = make_agent(), make_agent()
    tell(agent)

    def consolidate(_: list[Texts]) -> None:
        if not other.for_user("ada").revisions():
            other.for_user("ada").consolidate()

    learner_of(agent).meanwhile = consolidate
    assert agent.work() == WorkSummary(failed=1, nothing=1)
    assert len(agent.for_user("ada").revisions()) == 1
    assert agent.store.queue.jobs() == []


def test_forgotten_turn_is_nowhere_and_the_rest_is_learnt_again(make_agent: MakeAgent) -> None:
    agent = make_agent("inline")
    ada = agent.for_user("ada")
    for number in range(3):
        ada.add("user", f"first {number}")
    ada.consolidate(flush=True)
    for number in range(3):
        ada.add("user", f"second {number}")
    ada.consolidate(flush=True)
    before = agent.memory_of(ada.key, ada.revisions()[-1])
    receipt = ada.forget(2)
    assert (receipt.turns, receipt.revisions, receipt.rebuild_to_seq) == ((2,), (1, 2), 6)
    assert learner_of(agent).learnt[2:] == [("first 0", "first 2"), ("second 0", "second 1", "second 2")]
    assert [turn.seq for turn in ada.turns()] == [1, 3, 4, 5, 6]
    assert "first 1" not in str(ada.prompt("x"))
    assert [revision.state for revision in ada.revisions()] == ["erased", "erased", "live", "live", "live"]
    revision, memory = agent.current(ada.key)
    assert revision is not None
    assert (revision.number, revision.to_seq) == (5, 6)
    assert before is not None
    assert memory is not None
    assert not memory.slab.equal(before.slab)
    assert agent.store.queue.jobs() == []

    ben = agent.for_user("ben")  # who never said it
    for number in (0, 2):
        ben.add("user", f"first {number}")
    ben.consolidate(flush=True)
    for number in range(3):
        ben.add("user", f"second {number}")
    ben.consolidate(flush=True)
    assert agent.store.payload(ada.key, 5) == agent.store.payload(ben.key, 2)


def test_forgetting_in_the_background_detaches_at_once_and_is_rebuilt_by_a_worker(agent: AgentMemory) -> None:
    ada = agent.for_user("ada")
    ada.add("user", "secret")
    ada.add("user", "known")
    ada.consolidate(flush=True)
    assert ada.reply("x").used_memory
    ada.forget(ada.turns()[0])
    reply = ada.reply("y")
    assert (reply.used_memory, reply.revision) == (False, 2)
    assert len(learner_of(agent).learnt) == 1
    assert agent.work() == WorkSummary(admitted=1)
    assert learner_of(agent).learnt[1] == ("known",)
    assert ada.reply("z").used_memory
    with pytest.raises(TurnNotFound):
        ada.forget([99])
    assert ada.forget([2], wait=True).rebuild_to_seq == 2  # nothing is left to learn, and the job ends
    assert agent.store.queue.jobs() == []


def test_rebuild_goes_on_past_a_refusal_as_it_would_have_then(make_agent: MakeAgent) -> None:
    agent = make_agent("inline")
    ada = agent.for_user("ada")
    for text in ("one", "two", "three"):
        ada.add("user", text)
        ada.consolidate(flush=True)
    learner_of(agent).refused = {"two"}
    del learner_of(agent).learnt[:]
    ada.forget(1)
    assert learner_of(agent).learnt == [("two",), ("two", "three")]
    learner_of(agent).refused = set()


def test_forgotten_turn_is_not_learnt_by_whoever_read_it_before(make_agent: MakeAgent) -> None:
    agent, other = make_agent(), make_agent()
    tell(agent)

    def forget(texts: list[Texts]) -> None:
        if "ada says 0" in texts[0]:
            other.for_user("ada").forget(1)

    learner_of(agent).meanwhile = forget
    assert agent.work() == WorkSummary(lost=1, admitted=1)
    assert ["ada says 0" in said for said in learner_of(agent).learnt] == [True, False]
    ada = agent.for_user("ada")
    assert len(ada.revisions()) == 1
    assert "ada says 0" not in " ".join(item.question for item in agent.store.study_items(ada.key, with_retired=True))


def test_explicit_consolidation_that_read_a_turn_forgotten_meanwhile_is_refused(make_agent: MakeAgent) -> None:
    agent = make_agent("inline")
    ada = agent.for_user("ada")
    ada.add("user", "secret")
    ada.add("user", "known")
    learner_of(agent).meanwhile = lambda _: agent.store.forget(ada.key, [1])
    with pytest.raises(RevisionConflict):
        ada.consolidate(flush=True)
    assert (ada.revisions(), agent.store.study_items(ada.key)) == ([], [])
    learner_of(agent).meanwhile = lambda _: None
    assert ada.consolidate(flush=True).admitted
    assert learner_of(agent).learnt == [("secret", "known"), ("known",)]


def test_erased_user_leaves_nothing_to_answer_from(agent: AgentMemory) -> None:
    ada = agent.for_user("ada")
    tell(agent)
    agent.work()
    assert ada.reply("x").used_memory
    agent.store.queue.enqueue(ada.key, ada.turns()[-1].seq)
    (lease,) = agent.store.queue.claim("late")
    ada.erase()
    assert (
        ada.turns(),
        ada.revisions(),
        agent.users(),
        agent.cache_info().memory_bytes,
        agent.cache_info().prefix_bytes,
    ) == (
        [],
        [],
        [],
        0,
        0,
    )
    with pytest.raises(UserErased):
        ada.reply("still there?")
    with pytest.raises(UserErased):
        ada.add("user", "late")
    late = worker_of(agent)
    late.learn([lease], threading.Event())
    assert late.drain() == WorkSummary(lost=1)
    ada.reinstate()
    assert not ada.reply("hello").used_memory
    assert next(turn.content for turn in ada.turns()) == "hello"


def test_expired_turn_is_not_answered_from(agent: AgentMemory) -> None:
    ada = agent.for_user("ada")
    ada.add("user", "ends", expires_at=dt.datetime.now(dt.UTC) + dt.timedelta(seconds=4))
    ada.add("user", "stays")
    assert ada.consolidate(flush=True).admitted
    assert ada.reply("x").used_memory
    time.sleep(4)
    assert not ada.reply("y").used_memory  # without a worker
    assert "ends" not in {turn.content for turn in ada.turns()}
    assert agent.work() == WorkSummary(admitted=1)
    assert learner_of(agent).learnt[-1] == ("stays",)


def test_worker_forgets_what_has_expired(agent: AgentMemory) -> None:
    ada = agent.for_user("ada")
    ada.add("user", "ended", expires_at=dt.datetime.now(dt.UTC) - dt.timedelta(seconds=1))
    assert agent.work() == WorkSummary(expired_turns=1)
    assert agent.store.audit(ada.key)[-1].facts["why"] == "expired"


def test_key_of_a_forgotten_turn_is_not_answered(agent: AgentMemory) -> None:
    ada = agent.for_user("ada")
    ada.reply("secret", idempotency_key="k1")
    ada.forget([1, 2])
    with pytest.raises(TurnNotFound):
        ada.reply("secret", idempotency_key="k1")
    assert ada.turns() == []


def test_current_memory_purged_between_two_reads_is_read_again(agent: AgentMemory, backbone: Backbone) -> None:
    ada = agent.for_user("ada")
    ada.add("user", "one")
    ada.consolidate(flush=True)
    memories = MemoryCache(backbone, agent.store)
    payload, times = agent.store.payload, []

    def purged_meanwhile(*arguments: object) -> bytes:
        times.append(1)
        if len(times) == 1:
            agent.store.forget(ada.key, [1])
        return payload(*arguments)  # type: ignore[arg-type]

    agent.store.payload = purged_meanwhile  # type: ignore[method-assign]
    revision, memory = memories.current(ada.key)
    assert revision is not None
    assert (revision.number, memory) == (2, None)


def test_lease_shows_no_name(agent: AgentMemory) -> None:
    tell(agent)
    (lease,) = agent.store.queue.claim("test")
    assert isinstance(lease, Lease)
    shown = repr(lease) + repr(agent.store.queue.jobs())
    assert "UserKey(" in shown
    assert "'ada'" not in shown  # with its quotes: a job's hexadecimal id may hold the letters


def test_worker_outlives_a_backbone_that_reads_nothing_and_measures_it_once(
    backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[str] = []

    def calibrated(engine: Engine) -> Calibration:
        measured.append(engine.backbone.name)
        return calibrate(engine)

    monkeypatch.setattr("locas_agent.study.forms.known.calibrate", calibrated)
    store = SqlMemoryStore(f"sqlite:///{tmp_path / 'locas.db'}")
    with AgentMemory(backbone=backbone, store=store, consolidation="background") as agent:
        for user in ("ada", "ben"):
            agent.for_user(user).add("user", "I said it.")
            agent.for_user(user).consolidate(flush=True, wait=False)
        assert agent.work() == WorkSummary(failed=2)
        assert {job.reason for job in store.queue.jobs()} == {"UnsupportedBackbone"}
        cai = agent.for_user("cai")
        cai.add("user", "So did I.")
        with pytest.raises(UnsupportedBackbone, match="does not answer questions about a turn"):
            cai.consolidate(flush=True)
        assert len(measured) == 1


def test_what_failed_is_tried_again_after_twice_the_time_and_never_after_more_than_an_hour() -> None:
    assert [RetryPolicy().seconds(attempt) for attempt in (1, 2, 3, 8, 9)] == [30.0, 60.0, 120.0, 3600.0, 3600.0]


def test_a_worker_waits_as_its_policy_says(agent: AgentMemory) -> None:
    ada = agent.for_user("ada")
    ada.add("user", "I said it.")
    ada.consolidate(flush=True, wait=False)

    def broken(_: list[Texts]) -> None:
        raise RuntimeError

    learner_of(agent).meanwhile = broken
    worker = worker_of(agent, retry=RetryPolicy(first_seconds=0.0))
    assert worker.drain() == WorkSummary(failed=MAX_ATTEMPTS)  # tried again at once, until it is dead
    assert [job.state for job in agent.store.queue.jobs()] == ["dead"]

"""The script that moves people of files under kills: it serves, counts and asks, and sees what was lost."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from locas_agent import Backbone
from locas_agent.evaluation.recall.setup import RecallOptions
from locas_storage import SqlMemoryStore
from scripts.upgrade_people import Crowd, accept, is_accepted
from tests.conftest import MakeBackbone
from tests.unit.agent.fake_learner import QuickLearner, quick_agent

OPTIONS = RecallOptions(
    files=(Path(__file__).parents[1] / "unit" / "evaluation" / "two_people.jsonl",), consolidations=1, wordings=1
)


class Forked:
    """A forked process that upgrades one person, and the next unless it waits to be killed; as a `Popen` shows one."""

    def __init__(self, url: str, new: Backbone, old: Backbone, *, waits: bool) -> None:
        self.code: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            try:
                agent = quick_agent(new, SqlMemoryStore(url))
                learner = agent.runner.learner
                assert isinstance(learner, QuickLearner)
                learner.meanwhile = lambda _: time.sleep(600 if waits and learner.learnt else 0)
                agent.upgrade(
                    [agent.for_user(key.user, tenant=key.tenant) for key in agent.users()],
                    former=[old],
                    users_at_once=1,
                )
            finally:
                os._exit(0)

    def poll(self) -> int | None:
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.code = os.waitstatus_to_exitcode(status) if pid else None
        return self.code

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)

    def wait(self) -> int:
        while (code := self.poll()) is None:
            time.sleep(0.01)
        return code


@pytest.fixture
def crowd(backbone: Backbone, make_backbone: MakeBackbone, tmp_path: Path) -> Iterator[Crowd]:
    store = SqlMemoryStore(f"sqlite:///{tmp_path / 'locas.db'}")
    made = Crowd((quick_agent(backbone, store), quick_agent(make_backbone(seed=1), store)), OPTIONS.source(), OPTIONS)
    with made.fleet:
        yield made


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # a fork beside the threads of libraries
def test_people_are_served_moved_and_asked_before_and_after(crowd: Crowd, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'locas.db'}"

    waiting = [True, False]

    def start() -> Forked:
        return Forked(url, crowd.new.backbone, crowd.old.backbone, waits=waiting.pop(0))

    report = accept(crowd, OPTIONS, start, kills=1, delays=(0.05, 0.2), every=0.05)
    assert is_accepted(report), report
    assert [life["killed"] for life in report["lives"]] == [True, False]
    assert (report["users"], report["with_memory"], report["moved"]) == (2, 2, 2)
    assert report["served"]["replies"] >= 2
    for when in ("before", "after"):
        arms = report["recall"][when]
        assert arms["memory"]["n"] == arms["none"]["n"] == len(crowd.source.asked())


def test_what_is_lost_or_refused_is_seen(crowd: Crowd) -> None:
    for handle, text in zip(crowd.handles, ("My dog is Rex.", "I row."), strict=True):
        handle.add("user", text, idempotency_key="told")
        handle.consolidate(flush=True)
    crowd.begin()
    assert crowd.kept() == {"lost": 0, "doubled": 0, "learnt_twice_or_not": 0, "faults": 0}
    crowd.handles[1].add("user", "Said by nobody.", idempotency_key="other")
    assert crowd.kept()["doubled"] == 1
    crowd.handles[0].rollback(0)
    assert crowd.kept()["learnt_twice_or_not"] == 1
    crowd.handles[0].forget(1)
    assert crowd.kept()["lost"] == 1
    crowd.serve_next()
    assert crowd.served.without_memory == 1
    crowd.handles[1].erase()
    crowd.serve_next()
    assert crowd.served.errors == {"UserErased": 1}
    sound: dict[str, Any] = {"lost": 0, "doubled": 0, "learnt_twice_or_not": 0, "faults": 0, "lives": [{"code": 0}]}
    assert is_accepted(sound | {"served": {"errors": {}, "without_memory": 0}})
    assert not is_accepted(sound | {"served": crowd.served.report()})
    assert not is_accepted(sound | {"served": {"errors": {}, "without_memory": 0}, "faults": 1})


def test_whom_the_old_backbone_refused_is_learnt_on_the_new_one(crowd: Crowd) -> None:
    learner = crowd.old.runner.learner
    assert isinstance(learner, QuickLearner)
    learner.refused = {"I row."}
    for handle, text in zip(crowd.handles, ("My dog is Rex.", "I row."), strict=True):
        handle.add("user", text, idempotency_key="told")
        handle.consolidate(flush=True)
    crowd.begin()
    assert (crowd.learnt, crowd.refused(), crowd.moved()) == ([1, 0], {"drift": 1}, 0)
    crowd.new.upgrade(crowd.handles, former=[crowd.old.backbone])
    assert crowd.moved() == 2
    assert crowd.kept() == {"lost": 0, "doubled": 0, "learnt_twice_or_not": 0, "faults": 0}

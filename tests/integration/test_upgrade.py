"""Eight people are moved to another backbone by a process that is killed five times, while another one serves them."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from locas_agent import AgentMemory, Backbone, Fleet
from locas_agent.cli import app
from locas_storage import RevisionDraft, SqlMemoryStore, TurnDraft, UserKey, open_store
from tests.conftest import MakeBackbone
from tests.unit.agent.fake_learner import QuickLearner, quick_agent

PEOPLE = [f"person {number}" for number in range(8)]
SESSIONS, KILLS = 3, 5
STEPS = 40
"""A person takes 22: 3 consolidations and 19 points of the cut over, the last one after its commit."""


def upgrade_until(step: int, url: str, backbone: Backbone, former: Backbone, told: int) -> None:
    """Be the process that upgrades; say so at one step, and wait there to be killed.

    Steps are each consolidation, and each point of a cut over at which the store can be cut short.
    """
    left = step

    def reached(_: object) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.write(told, b".")
            time.sleep(600)

    agent = quick_agent(backbone, SqlMemoryStore(url, fault_point=reached))
    learner = agent.runner.learner
    assert isinstance(learner, QuickLearner)
    learner.meanwhile = reached
    agent.upgrade(former=[former], users_at_once=1)


def killed_at(step: int, url: str, backbone: Backbone, former: Backbone) -> bool:
    """Let a process upgrade, and kill it at a step; return whether it came to that."""
    heard, told = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(heard)
            upgrade_until(step, url, backbone, former, told)
        finally:
            os._exit(0)
    os.close(told)
    os.read(heard, 1)
    os.kill(child, signal.SIGKILL)
    os.close(heard)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # a fork beside the threads of libraries
def test_nothing_is_lost_and_everybody_is_served_whenever_the_upgrade_is_killed(
    backbone: Backbone, make_backbone: MakeBackbone, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path / 'locas.db'}"
    other = make_backbone(seed=1)
    said: dict[str, list[str]] = {person: [] for person in PEOPLE}

    def tell(agent: AgentMemory | Fleet, person: str, text: str) -> None:
        agent.for_user(person).add("user", text)
        said[person].append(text)

    with quick_agent(backbone, SqlMemoryStore(url)) as agent:
        for person in PEOPLE:
            for session in range(SESSIONS):
                tell(agent, person, f"{person} in {session}")
                assert agent.for_user(person).consolidate(flush=True).admitted
    rng = random.Random(25)
    moved = 0
    for kill in range(KILLS):
        assert killed_at(rng.randint(1, STEPS), url, other, backbone)
        store = SqlMemoryStore(url)
        assert store.verify().faults == ()
        with Fleet([quick_agent(backbone, store), quick_agent(other, store)]) as fleet:
            for person in PEOPLE:
                user = fleet.for_user(person)
                assert [turn.content for turn in user.turns() if turn.role == "user"] == said[person]
                tell(fleet, person, f"{person} after {kill}")
                text = f"{person} asks {kill}"
                reply = user.reply(text)
                said[person].append(text)
                assert reply.used_memory
            homes = [fleet.runtime_of(UserKey("default", person)).backbone.fingerprint for person in PEOPLE]
        assert homes.count(other.fingerprint) >= moved  # nobody falls back
        moved = homes.count(other.fingerprint)
    assert 0 < moved < len(PEOPLE)

    with quick_agent(other, SqlMemoryStore(url)) as agent:
        done = agent.upgrade(former=[backbone])
        assert {one.status for one in done} <= {"moved", "there"}
        assert all(one.recall_before is not None and one.recall_after is not None for one in done if one.questions)
        for person in PEOPLE:
            user = agent.for_user(person)
            assert [turn.content for turn in user.turns() if turn.role == "user"] == said[person]
            head = user.revisions()[-1]
            assert (head.fingerprint, head.to_seq) == (other.fingerprint, SESSIONS)
            assert len(agent.store.study_items(user.key)) == SESSIONS  # nothing was learnt twice
            assert len(agent.runtime_of(user.key).pending(user.key, flush=True)) == 3 * KILLS
        store = agent.store
        assert isinstance(store, SqlMemoryStore)
        assert store.verify().faults == ()


def test_command_reports_each_user(tmp_path: Path, backbone_folder: str) -> None:
    url = f"sqlite:///{tmp_path / 'locas.db'}"
    store = open_store(url)
    for user in ("ada", "ben"):
        store.append(UserKey("default", user), [TurnDraft("user", "My dog is Rex.")])
    store.commit(UserKey("default", "ada"), RevisionDraft(0, "another", "config", "0", 0, 1, 1, b"bytes"))
    store.close()
    arguments = ["upgrade", "--to", backbone_folder, "--backbone", backbone_folder, "--store", url, "--json", "-"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    assert (report["kind"], report["counts"]["kept"], report["counts"]["nothing"]) == ("upgrade", 1, 1)
    assert [(one["user"], one["reason"]) for one in report["users"]] == [
        ("ada", "unknown backbone"),
        ("ben", "no memory"),
    ]
    back = CliRunner().invoke(app, [*arguments, "--users", "ben", "--back"])
    assert back.exit_code == 0, back.stderr
    assert [one["status"] for one in json.loads(back.stdout)["users"]] == ["there"]

"""Forgetting on the bundled backbone: the memory is rebuilt to the byte as that of a user who never said it.

Short training and an admission gate that lets everything pass: what is learnt here is the same, not good.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from locas_agent import AgentMemory, Backbone, LocasConfig, UserMemory

SHORT = LocasConfig.model_validate(
    {
        "policy": {"automatic": False},
        "study": {"first_samples": 3, "max_rounds": 1, "negatives_per_piece": 2},
        "training": {"max_steps": 4, "anchor_tokens": 16},
        "admission": {"min_gain": 0.0, "max_old_loss": 1.0, "max_drift_nats": 100.0},
    }
)
MAY = dt.datetime(2026, 5, 4, 10, 0, tzinfo=dt.UTC)
FIRST = ["My dog is called Kolin.", "I live in Varnholm.", "My sister is called Mirel.", "I work as a baker."]
SECOND = ["My favourite colour is green.", "I collect leather maps."]
FORGOTTEN = 2
"""Number of the turn, in the first session."""


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentMemory]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    store = f"sqlite:///{tmp_path_factory.mktemp('forget') / 'locas.db'}"
    with AgentMemory.load(Backbone.load("tiny", device="cpu"), store, SHORT) as memory:
        yield memory
    torch.set_num_threads(threads)


def live(user: UserMemory, *, never_said: int = 0) -> None:
    """Two sessions, each learnt when it is over."""
    for number, session in enumerate((FIRST, SECOND)):
        for at, text in enumerate(session, start=1):
            if (number, at) != (0, never_said):
                user.add("user", text, session=f"s{number}", at=MAY + dt.timedelta(days=number, minutes=at))
        result = user.consolidate(flush=True)
        assert result.admitted, result.detail


def payload(agent: AgentMemory, user: UserMemory) -> bytes:
    return agent.store.payload(user.key, user.revisions()[-1].number)


@pytest.fixture(scope="module")
def spared(agent: AgentMemory) -> bytes:
    """The memory of a user who never said it."""
    ben = agent.for_user("ben")
    live(ben, never_said=FORGOTTEN)
    return payload(agent, ben)


def test_rebuilt_memory_is_that_of_a_user_who_never_said_it(agent: AgentMemory, spared: bytes) -> None:
    ada = agent.for_user("ada")
    live(ada)
    before = payload(agent, ada)
    assert before != spared  # what was said did change it
    receipt = ada.forget(FORGOTTEN)
    assert (receipt.turns, receipt.revisions, receipt.rebuild_to_seq) == ((FORGOTTEN,), (1, 2), 6)
    assert [revision.state for revision in ada.revisions()] == ["erased", "erased", "live", "live", "live"]
    assert payload(agent, ada) == spared
    items = [(item.kind, item.question, item.answer, item.teacher) for item in agent.store.study_items(ada.key)]
    assert items == [
        (item.kind, item.question, item.answer, item.teacher)
        for item in agent.store.study_items(agent.for_user("ben").key)
    ]


def test_corrected_memory_is_first_that_of_a_user_who_never_said_it(agent: AgentMemory, spared: bytes) -> None:
    finn = agent.for_user("finn")
    live(finn)
    made = finn.correct(FORGOTTEN, "I live in Ostrava.")
    assert payload(agent, finn) == spared
    assert (made.seq, made.session) == (7, "s0")
    assert finn.consolidate(flush=True).turns == 1  # the new words are all that is left to learn


def test_rebuild_by_a_worker_in_another_process_is_the_same(agent: AgentMemory, spared: bytes, tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path / 'locas.db'}"
    with AgentMemory.load(agent.backbone, store, SHORT, consolidation="background") as other:
        cleo, dan = other.for_user("cleo"), other.for_user("dan")
        live(cleo)
        live(dan)
        assert not cleo.forget(FORGOTTEN).revisions == ()
        cleo.add("user", "One more thing.")
        assert [job.is_rebuild for job in other.store.queue.jobs()] == [True]
        assert cleo.reply("What is my dog called?").used_memory is False
        assert other.work().admitted == 2
        assert payload(other, cleo) == spared
        assert payload(other, dan) != spared


def test_memory_forgets_the_last_session_by_going_back_to_the_first(agent: AgentMemory) -> None:
    eve = agent.for_user("eve")
    live(eve)
    first = agent.store.payload(eve.key, 1)
    receipt = eve.forget([5, 6])
    assert receipt.revisions == (2,)
    assert payload(agent, eve) == first
    assert agent.store.queue.jobs() == []

"""Correcting a turn: what was said at first is gone, what is said instead is learnt.

A stand-in learns in no time; the store is a real file.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from locas_agent import AgentMemory, Backbone
from locas_agent.cli import app
from locas_agent.errors import ConfigurationError, InvalidTurn, TurnNotFound, TurnTooLong
from locas_agent.results import WorkSummary
from locas_storage import IMPORTED
from tests.unit.agent.fake_learner import MakeAgent, QuickLearner, quick_agents

MAY = dt.datetime(2026, 5, 4, 10, 0, tzinfo=dt.UTC)


@pytest.fixture
def make_agent(backbone: Backbone, tmp_path: Path) -> Iterator[MakeAgent]:
    with quick_agents(backbone, tmp_path, "inline") as make:
        yield make


def learnt(agent: AgentMemory) -> list[tuple[str, ...]]:
    assert isinstance(agent.runner.learner, QuickLearner)
    return agent.runner.learner.learnt


def test_what_was_learnt_from_the_old_text_is_gone_and_the_new_text_is_learnt(make_agent: MakeAgent) -> None:
    agent = make_agent()
    ada = agent.for_user("ada")
    for text in ("I park on level 3.", "I like tea.", "I row."):
        ada.add("user", text)
    ada.consolidate(flush=True)
    made = ada.correct(1, "I park on level 5.")
    assert (made.content, made.receipt.turns, made.receipt.revisions, made.receipt.rebuild_to_seq) == (
        "I park on level 5.",
        (1,),
        (1,),
        3,
    )
    assert learnt(agent)[1:] == [("I like tea.", "I row.")]  # rebuilt as if it had never been said
    assert [turn.content for turn in ada.turns()] == ["I like tea.", "I row.", "I park on level 5."]
    assert not any("level 3" in item.answer for item in agent.store.study_items(ada.key, with_retired=True))
    assert ada.search("level")[0].seq == made.seq
    assert ada.consolidate(flush=True).admitted
    assert learnt(agent)[-1] == ("I park on level 5.",)
    assert agent.store.queue.jobs() == []


def test_new_turn_has_all_but_the_text_of_the_old_one(make_agent: MakeAgent) -> None:
    agent = make_agent()
    ada = agent.for_user("ada")
    ends = dt.datetime.now(dt.UTC) + dt.timedelta(days=1)
    old = ada.add(
        "assistant",
        "It is on level 3.",
        at=MAY,
        session="s",
        name="Bot",
        idempotency_key="k",
        trust="tool",
        expires_at=ends,
    )
    new = ada.correct(old, "It is on level 5, behind the lift.")
    same = ("role", "at", "session", "name", "idempotency_key", "trust", "expires_at")
    assert [getattr(new, name) for name in same] == [getattr(old, name) for name in same]
    assert new.token_count > old.token_count > 0
    assert (
        ada.add("assistant", "It is on level 3.", idempotency_key="k").seq == new.seq
    )  # a late retry brings nothing back
    assert ada.correct(new.seq, "On the roof.").idempotency_key == "k"
    assert [turn.content for turn in ada.turns()] == ["On the roof."]


def test_rebuild_is_left_to_a_worker_where_one_learns(make_agent: MakeAgent) -> None:
    agent = make_agent("background")
    ada = agent.for_user("ada")
    for text in ("one", "two"):
        ada.add("user", text)
    ada.consolidate(flush=True)
    asyncio.run(ada.acorrect(1, "uno"))
    assert ada.reply("x").used_memory is False  # detached at once
    assert len(learnt(agent)) == 1
    assert agent.work() == WorkSummary(admitted=1)
    assert learnt(agent)[1] == ("two",)


@pytest.mark.parametrize(
    ("turn", "text", "error"),
    [
        (9, "other", TurnNotFound),
        (2, "other", TurnNotFound),
        (3, "other", ConfigurationError),
        (1, "a\x00b", InvalidTurn),
        (1, "\ud83d", InvalidTurn),
        (1, "word " * 9000, TurnTooLong),
    ],
    ids=["none", "forgotten", "imported", "NUL", "surrogate", "too long"],
)
def test_what_cannot_be_corrected_changes_nothing(
    make_agent: MakeAgent, turn: int, text: str, error: type[Exception]
) -> None:
    ada = make_agent().for_user("ada")
    ada.add("user", "one")
    ada.add("user", "two")
    ada.add("system", "stands for a memory", trust=IMPORTED)
    ada.forget(2)
    before = ada.turns()
    with pytest.raises(error):
        ada.correct(turn, text)
    assert ada.turns() == before


def test_rebuild_that_nobody_waited_for_is_done_by_the_next_consolidation(make_agent: MakeAgent) -> None:
    agent = make_agent()
    ada = agent.for_user("ada")
    for text in ("one", "two"):
        ada.add("user", text)
    ada.consolidate(flush=True)
    made = ada.correct(1, "uno", wait=False)
    assert made.receipt.rebuild_to_seq == 2
    assert len(learnt(agent)) == 1
    assert ada.consolidate(flush=True).admitted
    assert learnt(agent)[1:] == [("two", "uno")]
    agent.work()
    assert agent.store.queue.jobs() == []
    assert ada.revisions()[-1].to_seq == made.seq


def test_the_command_corrects_and_leaves_the_rest_to_a_worker(
    make_agent: MakeAgent, backbone_folder: str, tmp_path: Path
) -> None:
    agent = make_agent()
    ada = agent.for_user("ada")
    for text in ("I park on level 3.", "I row."):
        ada.add("user", text)
    ada.consolidate(flush=True)
    where = ["--user", "ada", "--store", f"sqlite:///{tmp_path / 'locas.db'}", "--backbone", backbone_folder]
    made = CliRunner().invoke(app, ["correct", "1", "I park on level 5.", *where, "--json", "-"])
    assert made.exit_code == 0, made.stderr
    facts = json.loads(made.stdout)
    assert (facts["seq"], facts["content"], facts["receipt"]["turns"]) == (3, "I park on level 5.", [1])
    assert [turn.content for turn in ada.turns()] == ["I row.", "I park on level 5."]
    assert [job.is_rebuild for job in agent.store.queue.jobs()] == [True]
    refused = CliRunner().invoke(app, ["correct", "9", "x", *where])
    assert (refused.exit_code, "no turn 9" in refused.stderr) == (1, True)

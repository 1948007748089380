"""Imported chats: once however often, nobody else's, never what was forgotten. The files are made up."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from locas_agent import AgentMemory, Backbone
from locas_agent.cli import app
from locas_agent.errors import ExchangeError, UserErased
from locas_storage import SqlMemoryStore
from tests.unit.agent.fake_learner import quick_agent
from tests.unit.import_export.exported import branching_chat, chatgpt_chat, chatgpt_message, claude_chat, write_json

CHATS = [
    branching_chat(),
    claude_chat("u-1", [("human", "I row."), ("assistant", "Nice.")], at="2021-03-04T05:06:07Z"),
]


@pytest.fixture
def agent(backbone: Backbone, tmp_path: Path) -> Iterator[AgentMemory]:
    with quick_agent(backbone, SqlMemoryStore(f"sqlite:///{tmp_path / 'locas.db'}")) as memory:
        yield memory


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    return write_json(tmp_path / "conversations.json", CHATS)


def test_the_oldest_conversation_comes_first_and_keeps_its_times(agent: AgentMemory, exported: Path) -> None:
    ada = agent.for_user("ada")
    done = ada.import_chats(exported)
    assert (done.source, done.conversations, done.turns, done.known, done.left_out) == ("claude", 2, 5, 0, 0)
    turns = ada.turns()
    assert [turn.content for turn in turns][:3] == ["I row.", "Nice.", "I moved to Turin."]
    assert turns[0].at.isoformat() == "2021-03-04T05:06:07+00:00"
    assert len({turn.session for turn in turns}) == 2
    assert all(turn.token_count > 0 and turn.learn and turn.trust == "user" for turn in turns)
    assert ada.search("row")[0].seq == 1
    assert agent.for_user("ben").turns() == []


def test_given_again_it_adds_what_is_new_and_nothing_else(agent: AgentMemory, exported: Path, tmp_path: Path) -> None:
    ada = agent.for_user("ada")
    ada.import_chats(exported)
    again = ada.import_chats(exported)
    assert (again.turns, again.known) == (0, 5)
    ada.forget(3)
    longer = [*CHATS, chatgpt_chat("c-2", [chatgpt_message("user", "I sing.", at=1.8e9, number="9")], at=1.8e9)]
    newer = asyncio.run(ada.aimport_chats(write_json(tmp_path / "newer.json", longer)))
    assert (newer.turns, newer.known) == (1, 5)
    assert [turn.content for turn in ada.turns()].count("I moved to Turin.") == 0  # what was forgotten stays so
    assert agent.for_user("ben").import_chats(exported).turns == 5  # known to Ada is new to Ben


def test_what_no_turn_can_hold_is_left_out_and_counted(agent: AgentMemory, tmp_path: Path) -> None:
    said = [("human", "word " * 5000), ("human", "half a \ud83d"), ("human", "a\x00b"), ("human", "I row.")]
    place = write_json(tmp_path / "conversations.json", [claude_chat("u", said, at="2021-03-04T05:06:07Z")])
    done = agent.for_user("ada").import_chats(place)
    assert (done.turns, done.left_out) == (1, 3)


def test_a_damaged_file_adds_nothing(agent: AgentMemory, tmp_path: Path) -> None:
    place = tmp_path / "conversations.json"
    place.write_text(json.dumps(CHATS)[:-40])
    with pytest.raises(ExchangeError, match="conversation 2 is no JSON"):
        agent.for_user("ada").import_chats(place)
    assert agent.users() == []


def test_an_erased_user_takes_nothing(agent: AgentMemory, exported: Path) -> None:
    ada = agent.for_user("ada")
    ada.add("user", "I row.")
    ada.erase()
    with pytest.raises(UserErased):
        ada.import_chats(exported)


def test_they_wait_for_a_worker_unless_they_are_not_to_be_learnt(agent: AgentMemory, exported: Path) -> None:
    said = [("human", f"I have told {number} things about my boats by now.") for number in range(30)]
    place = write_json(exported, [claude_chat("u", said, at="2021-03-04T05:06:07Z")])
    agent.for_user("ada").import_chats(place)
    assert [job.key for job in agent.store.queue.jobs()] == [agent.for_user("ada").key]
    ben = agent.for_user("ben")
    ben.import_chats(place, learn=False)
    assert not any(turn.learn for turn in ben.turns())


def test_the_command_says_what_became_of_it(backbone_folder: str, exported: Path, tmp_path: Path) -> None:
    where = ["--user", "ada", "--store", f"sqlite:///{tmp_path / 'cli.db'}", "--backbone", backbone_folder]
    made = CliRunner().invoke(app, ["import-chats", str(exported), *where, "--json", "-"])
    assert made.exit_code == 0, made.stderr
    assert json.loads(made.stdout) == {
        "source": "claude",
        "conversations": 2,
        "turns": 5,
        "known": 0,
        "left_out": 0,
    }
    again = CliRunner().invoke(app, ["import-chats", str(exported), *where])
    assert "claude" in again.stdout
    refused = CliRunner().invoke(app, ["import-chats", str(tmp_path / "none.zip"), *where])
    assert (refused.exit_code, "no file 'none.zip'" in refused.stderr) == (1, True)

"""The commands `forget`, `erase`, `jobs` and `work`.

The backbone is a random one, which learns nothing: a refusal ends a job as well.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from locas_agent.cli import app
from locas_agent.cli.signals import stop_on_signals
from locas_storage import RevisionDraft, TurnDraft, UserKey, open_store
from tests import forked
from tests.conftest import MakeBackboneFolder

ADA = UserKey("default", "ada")


@pytest.fixture(scope="module")
def backbone_folder(make_backbone_folder: MakeBackboneFolder) -> str:
    return make_backbone_folder(reach=1024)


@pytest.fixture
def store(tmp_path: Path) -> str:
    """A store in which Ada has said four things, of which two are learnt."""
    url = f"sqlite:///{tmp_path / 'locas.db'}"
    with closing(open_store(url)) as opened:
        opened.append(ADA, [TurnDraft("user", f"I said {number}.", token_count=9) for number in range(4)])
        opened.commit(ADA, RevisionDraft(0, "f", "c", "0", 0, 1, 2, b"what was learnt"))
    return url


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def facts(*arguments: str) -> object:
    result = run(*arguments, "--json", "-")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def test_forget_gives_a_receipt_and_says_what_is_left_to_do(store: str) -> None:
    receipt = facts("forget", "1", "3", "--user", "ada", "--store", store)
    assert isinstance(receipt, dict)
    assert (receipt["turns"], receipt["revisions"], receipt["payload_bytes"], receipt["is_overwritten"]) == (
        [1, 3],
        [1],
        15,
        True,
    )
    assert [
        (job["user"], job["state"], job["to_seq"], job["is_rebuild"]) for job in facts("jobs", "--store", store)
    ] == [("ada", "ready", 2, True)]  # type: ignore[attr-defined]
    with closing(open_store(store)) as opened:
        assert [turn.content for turn in opened.turns(ADA)] == ["I said 1.", "I said 3."]


def test_forget_names_the_command_that_learns_the_rest(store: str) -> None:
    assert (
        "learnt again" not in run("forget", "4", "--user", "ada", "--store", store).stdout
    )  # it was still in the window
    said = run("forget", "1", "--user", "ada", "--store", store)
    assert "removed: 1 turns, 0 study items, 1 revisions, 15 bytes" in said.stdout
    assert f"`locas-agent work --once --store {store}`" in said.stdout


def test_forget_of_a_turn_that_is_not_there_is_an_error(store: str) -> None:
    result = run("forget", "9", "--user", "ada", "--store", store)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "no turn 9" in result.stderr
    assert run("forget", "0", "--user", "ada", "--store", store).exit_code == 2
    assert run("forget", "--user", "ada", "--store", store).exit_code == 2


def test_erase_leaves_nobody(store: str) -> None:
    assert [user["user"] for user in facts("users", "--store", store)] == ["ada"]  # type: ignore[attr-defined]
    receipt = facts("erase", "--user", "ada", "--store", store)
    assert isinstance(receipt, dict)
    assert (len(receipt["turns"]), receipt["revisions"], receipt["action"]) == (4, [1], "erase")
    assert facts("users", "--store", store) == []
    assert facts("turns", "--user", "ada", "--store", store) == []
    assert run("rollback", "0", "--user", "ada", "--store", store).exit_code == 1
    assert run("erase", "--user", "nobody", "--store", store).exit_code == 1


@pytest.mark.usefixtures("measured_before")
def test_work_drains_the_queue_and_ends(store: str, backbone_folder: str) -> None:
    with closing(open_store(store)) as opened:
        opened.append(
            UserKey("default", "ben"), [TurnDraft("user", "My dog is called Rex.", token_count=20)], enqueue=1
        )
    counts = facts("work", "--once", "--backbone", backbone_folder, "--store", store)
    assert counts == {"admitted": 0, "refused": 1, "nothing": 0, "failed": 0, "lost": 0, "expired_turns": 0}
    assert facts("jobs", "--store", store) == []


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGTERM")
@pytest.mark.usefixtures("measured_before")
def test_stopped_worker_ends_cleanly_and_leaves_nothing_leased(
    store: str, backbone_folder: str, tmp_path: Path
) -> None:
    command = ("work", "--poll-seconds", "0.1", "--backbone", backbone_folder, "--store", store, "--json", "-")
    out, err = tmp_path / "out", tmp_path / "err"
    with forked.started("-m", "locas_agent.cli", *command, out=out, err=err) as worker:
        with closing(open_store(store)) as opened:
            opened.append(
                UserKey("default", "ben"), [TurnDraft("user", "My dog is called Rex.", token_count=20)], enqueue=1
            )
            deadline = time.monotonic() + 120
            while opened.queue.jobs() and time.monotonic() < deadline:
                time.sleep(0.1)
            assert opened.queue.jobs() == []  # it works
            assert worker.poll() is None  # and waits for more
            worker.send_signal(signal.SIGTERM)
            assert worker.wait(60) == 0, err.read_text()
            assert json.loads(out.read_text())["refused"] == 1
            assert opened.queue.jobs() == []


def test_second_signal_is_not_held_back() -> None:
    former = signal.getsignal(signal.SIGTERM)
    with stop_on_signals() as stop:
        assert not stop.is_set()
        signal.raise_signal(signal.SIGTERM)
        assert stop.is_set()
        assert signal.getsignal(signal.SIGTERM) is former
        assert signal.getsignal(signal.SIGINT) is not former
    assert signal.getsignal(signal.SIGTERM) is former

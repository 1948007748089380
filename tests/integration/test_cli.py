"""The command line: what goes to standard output, exit codes, and that commands without a model load none."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from locas_agent.cli import app
from locas_agent.cli.output import deliver, progress_bar, visible
from locas_agent.errors import ConfigurationError
from locas_agent.evaluation.recall.setup import RecallOptions
from locas_storage import ConsolidationMetrics, InMemoryStore, RevisionDraft, TurnDraft, UserKey, open_store
from tests.conftest import MakeBackboneFolder

ADA = UserKey("default", "ada")
Run = Callable[..., Result]


@pytest.fixture(scope="module")
def backbone_folder(make_backbone_folder: MakeBackboneFolder) -> str:
    return make_backbone_folder(reach=1024)


@pytest.fixture
def store(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'locas.db'}"


@pytest.fixture
def told(store: str) -> str:
    """A store in which Ada has said two things and has two revisions, and Ben of another tenant one thing."""
    opened = open_store(store)
    opened.append(
        ADA, [TurnDraft("user", "My dog is \x1b[31mRex.", name="Ada"), TurnDraft("assistant", "Noted [bold].")]
    )
    opened.append(UserKey("acme", "ben"), [TurnDraft("user", "Hello")])
    for number in (1, 2):
        metrics = ConsolidationMetrics.of({"after": {"probe_recall": 0.5 * number, "drift_nats": 0.01}})
        draft = RevisionDraft(number - 1, "fingerprint", "config", "0", 0, number, number, b"bytes" * number, metrics)
        opened.commit(ADA, draft)
    opened.close()
    return store


@pytest.fixture
def run() -> Run:
    runner = CliRunner()

    def call(*arguments: str, said: str | None = None) -> Result:
        return runner.invoke(app, list(arguments), input=said)

    return call


COMMANDS = """
import json, sys
from locas_agent.cli import main
for command in json.loads(sys.argv[1]):
    sys.argv[1:] = command
    try:
        main()
    except SystemExit as ended:
        print(f"code {ended.code}", flush=True)
"""


@pytest.fixture
def own_process(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return a function that runs commands as a shell does: output caught, nothing quiet in their environment.

    In one process, since importing torch takes seconds; the code of each stands on a line of its own.
    """
    loud = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("TRANSFORMERS_", "HF_", "TQDM_", "PYTHONWARNINGS"))
    }

    def call(*commands: list[str]) -> subprocess.CompletedProcess[str]:
        program = f"import sys; sys.path[:0] = {[path for path in sys.path if path]!r}\n{COMMANDS}"
        asked = [sys.executable, "-c", program, json.dumps(commands)]
        return subprocess.run(asked, capture_output=True, text=True, env=loud, cwd=tmp_path, check=False)

    return call


def plain(text: str) -> str:
    """Text without colours, frames and line breaks."""
    return " ".join(re.sub(r"\x1b\[[0-9;]*m|[│╭╮╰╯─]", "", text).split())


def test_users_are_listed_with_their_counters(run: Run, told: str) -> None:
    result = run("users", "--store", told, "--json", "-")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout) == [
        {"tenant": "acme", "user": "ben", "turns": 1, "learnt": 0, "revision": 0},
        {"tenant": "default", "user": "ada", "turns": 2, "learnt": 2, "revision": 2},
    ]
    assert [
        each["user"] for each in json.loads(run("users", "--tenant", "acme", "--store", told, "--json", "-").stdout)
    ] == ["ben"]


def test_table_shows_the_same_without_json(run: Run, told: str) -> None:
    result = run("users", "--store", told)
    assert result.exit_code == 0
    assert "ada" in result.stdout
    assert not result.stdout.lstrip().startswith("[")


def test_turns_are_printed_one_to_a_line_and_cannot_steer_a_terminal(run: Run, told: str) -> None:
    result = run("turns", "--user", "ada", "--store", told)
    (line,) = [line for line in result.stdout.splitlines() if "My dog" in line]
    assert "My dog is \\x1b[31mRex." in line
    assert "Ada" in line
    assert "\x1b" not in result.stdout
    assert "Noted [bold]." in result.stdout


def test_turns_as_json_are_the_journal(run: Run, told: str) -> None:
    turns = json.loads(run("turns", "--user", "ada", "--newest", "1", "--store", told, "--json", "-").stdout)
    assert [(turn["seq"], turn["role"], turn["content"]) for turn in turns] == [(2, "assistant", "Noted [bold].")]
    assert set(turns[0]) >= {"at", "name", "key", "session"}


def test_json_goes_into_a_file_beside_the_table(run: Run, told: str, tmp_path: Path) -> None:
    path = tmp_path / "revisions.json"
    result = run("revisions", "--user", "ada", "--store", told, "--json", str(path))
    revisions = json.loads(path.read_text(encoding="utf-8"))
    assert [(each["number"], each["parent"], each["probe_recall"], each["payload_bytes"]) for each in revisions] == [
        (1, 0, 0.5, 5),
        (2, 1, 1.0, 10),
    ]
    assert "probe recall" in result.stdout


def test_rollback_makes_an_older_revision_current(run: Run, told: str) -> None:
    result = run("rollback", "1", "--user", "ada", "--store", told, "--json", "-")
    assert result.exit_code == 0, result.stderr
    assert (json.loads(result.stdout)["number"], json.loads(result.stdout)["restores"]) == (3, 1)
    assert [
        each["number"] for each in json.loads(run("revisions", "--user", "ada", "--store", told, "--json", "-").stdout)
    ] == [1, 2, 3]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["rollback", "9", "--user", "ada"], "9"),
        (["rollback", "1", "--user", "nobody"], "no turns"),
        (["turns", "--user", ""], "blank"),
        (["consolidate", "--backbone", "no/such/folder"], "no/such/folder"),
    ],
)
def test_error_of_ours_is_one_line_and_code_1(run: Run, told: str, arguments: list[str], said: str) -> None:
    result = run(*arguments, "--store", told)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert said in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert "Traceback" not in result.stderr


def test_store_that_is_no_database_is_refused(run: Run, tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("Dear Ada, " * 1000, encoding="utf-8")
    result = run("users", "--store", f"sqlite:///{tmp_path / 'letter.txt'}")
    assert result.exit_code == 1
    assert "letter.txt" in result.stderr
    assert run("users", "--store", "no url").exit_code == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["turns"],
        ["users", "--nonsense"],
        ["rollback", "-1", "--user", "ada"],
        ["chat", "--user", "ada", "--temperature", "-1"],
        ["consolidate", "--dtype", "float8"],
        ["eval", "recall", "--users", "0"],
        ["eval", "nonsense"],
        ["users", "--json", "/no/such/folder/figures.json"],
        ["demo", "--store", "postgresql://host/database"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_code_2(run: Run, arguments: list[str]) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr


def test_demo_refuses_a_file_that_is_there(run: Run, told: str) -> None:
    result = run("demo", "--store", told)
    assert result.exit_code == 2
    assert "does not exist yet" in plain(result.stderr)


@pytest.mark.parametrize("backbone", ["tiny", "smollm2"])
def test_demo_is_about_people_that_the_backbone_understands(
    run: Run, backbone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[RecallOptions] = []

    def seen(store: Path, *, options: RecallOptions, backbone: str, progress: object) -> dict[str, Any]:
        asked.append(options)
        raise ConfigurationError("seen")

    monkeypatch.setattr("locas_agent.evaluation.recall.demo.run_demo", seen)
    assert run("demo", "--backbone", backbone, "--seed", "3").exit_code == 1
    source = asked[0].source()
    assert asked[0].seed == 3
    assert (source.name, len(source.tellers)) == (("generator", 4) if backbone == "tiny" else ("two_people.jsonl", 2))
    assert all(teller.never_told for teller in source.tellers)
    assert any(fact.replaces is not None for teller in source.tellers for fact in teller.facts)


def test_every_command_of_this_version_has_help(run: Run) -> None:
    top = plain(run("--help").stdout)
    for command in (
        "demo",
        "chat",
        "users",
        "turns",
        "revisions",
        "rollback",
        "consolidate",
        "forget",
        "erase",
        "jobs",
        "work",
        "eval",
    ):
        assert command in top
        assert run(command, "--help").exit_code == 0
    assert "recall" in run("eval", "--help").stdout


def test_commands_without_a_model_load_no_torch(told: str) -> None:
    commands = [
        ["users"],
        ["turns", "--user", "ada"],
        ["revisions", "--user", "ada"],
        ["rollback", "1", "--user", "ada"],
        ["jobs"],
        ["forget", "1", "--user", "ada"],
        ["erase", "--user", "ada"],
    ]
    program = (
        "import json, sys\n"
        f"sys.path[:0] = {[path for path in sys.path if path]!r}\n"  # the suite also runs where nothing is installed
        "from typer.testing import CliRunner\n"
        "from locas_agent.cli import app\n"
        f"for command in {commands!r}:\n"
        "    done = CliRunner().invoke(app, [*command, '--store', sys.argv[1], '--json', '-'])\n"
        "    assert done.exit_code == 0, done.stderr\n"
        "    json.loads(done.stdout)\n"
        "    print(command[0], sorted({'torch', 'transformers'} & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, told], check=False, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"{command[0]} []" for command in commands]


def test_chat_answers_streams_and_keeps_both_turns(run: Run, store: str, backbone_folder: str) -> None:
    said = (
        "/why\nHello there\n\n/why\n/revisions\n/forget 1\n/forget it\n/help\n/nonsense\n"
        "/consolidate some\n/consolidate\n/quit\nnever said\n"
    )
    result = run(
        "chat", "--user", "ada", "--backbone", backbone_folder, "--store", store, "--max-new-tokens", "4", said=said
    )
    assert result.exit_code == 0, result.stderr
    for told in (
        "Nothing has been answered yet",
        "No memory was used: nothing has been consolidated yet.",
        "tokens of the window",
        "removed: 1 turns",
        "/forget N, with the number of a turn",
        "/quit",
        "There is no /nonsense",
        "Either /consolidate or /consolidate all",
        "nothing to learn",
    ):
        assert told in result.stdout
    assert [turn.role for turn in open_store(store).turns(ADA)] == ["assistant"]  # what was said is forgotten


def test_chat_goes_on_after_an_error(run: Run, store: str, backbone_folder: str) -> None:
    result = run(
        "chat", "--user", "ada", "--backbone", backbone_folder, "--store", store, said="word " * 500 + "\n/why\n"
    )
    assert result.exit_code == 0
    assert "split it into several turns" in result.stderr
    assert "Nothing has been answered yet" in result.stdout
    assert open_store(store).turns(ADA) == []


@pytest.mark.usefixtures("measured_before")
def test_consolidate_reports_each_user_and_a_refusal_is_no_failure(run: Run, store: str, backbone_folder: str) -> None:
    opened = open_store(store)
    opened.append(ADA, [TurnDraft("user", "My dog is called Rex.", token_count=20)])
    opened.append(UserKey("default", "ben"), [TurnDraft("user", "My cat is called Tom.", token_count=20)])
    opened.close()
    flags = ["--flush", "--backbone", backbone_folder, "--store", store, "--json", "-"]
    both = json.loads(run("consolidate", *flags).stdout)
    assert [(each["user"], each["status"], each["turns"]) for each in both] == [
        ("ada", "refused", 1),
        ("ben", "refused", 1),
    ]
    assert all(each["reason"] and each["detail"] for each in both)
    assert [each["user"] for each in json.loads(run("consolidate", "--user", "ben", *flags).stdout)] == ["ben"]


def test_figures_that_are_not_finite_are_valid_json(capsys: pytest.CaptureFixture[str]) -> None:
    deliver("-", {"loss": float("nan"), "rows": (1, float("inf"))})
    assert json.loads(capsys.readouterr().out) == {"loss": "nan", "rows": [1, "inf"]}


def test_progress_is_silent_without_a_terminal() -> None:
    with progress_bar() as progress:
        assert progress is None


def test_progress_is_drawn_on_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with progress_bar() as progress:
        assert progress is not None
        progress("train", 1, 2)
        progress("train", 2, 2)
    out = capsys.readouterr()
    assert out.out == ""


def test_visible_keeps_line_breaks_and_letters() -> None:
    assert visible("Zoë\n\ta\x07\x9b") == "Zoë\n\ta\\x07\\x9b"


def test_in_memory_store_is_closed_after_a_command(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[Any] = []

    class Watched(InMemoryStore):
        def close(self) -> None:
            closed.append(self)

    monkeypatch.setattr("locas_agent.cli.journal.open_store", lambda url: Watched())
    assert run("users", "--store", "sqlite://").exit_code == 0
    assert len(closed) == 1


def test_version_is_printed_without_a_model(run: Run) -> None:
    done = run("--version")
    assert (done.exit_code, done.stderr) == (0, "")
    assert re.fullmatch(r"locas-agent \d\S*\n", done.stdout)


def test_a_command_says_nothing_on_standard_error_that_is_not_ours_and_nothing_but_json_on_standard_output(
    tmp_path: Path, store: str, own_process: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    opened = open_store(store)
    opened.append(ADA, [TurnDraft("user", "My dog is called Rex.", token_count=9)])
    opened.close()
    settings = tmp_path / "quick.json"
    settings.write_text(
        '{"study": {"max_rounds": 1, "negatives_per_piece": 1}, "training": {"max_steps": 2, "anchor_tokens": 16}}',
        encoding="utf-8",
    )
    options = ["--user", "ada", "--store", store]
    learns = ["consolidate", *options, "--flush", "--config", str(settings), "--json", "-"]
    longer = "This sentence is said again and again. " * 400  # a tokenizer remarks on what is beyond the context
    done = own_process(learns, ["explain", longer, *options])  # it loads weights, studies and trains
    assert done.returncode == 0
    (refused,) = done.stderr.splitlines()
    assert refused.startswith("locas-agent: ")
    said, *codes = done.stdout.rpartition("code 0\n")
    assert [each["turns"] for each in json.loads(said)] == [1]
    assert codes == ["code 0\n", "code 1\n"]


def test_importing_the_packages_leaves_the_program_its_logging_and_its_environment() -> None:
    program = (
        "import logging, os, warnings; before = dict(os.environ), list(warnings.filters), logging.root.handlers[:], "
        "logging.root.level;"
        "import locas_storage, locas_agent.cli.commands;"
        "assert before == (dict(os.environ), list(warnings.filters), logging.root.handlers[:], logging.root.level)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0

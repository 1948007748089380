"""The LangChain examples and every code block of docs/langchain.md run as written, warnings being errors.

The page is run by an interpreter of its own, where warnings are errors from the first import on; an example in this
process, where they are errors too, and after its restart in another one.
"""

from __future__ import annotations

import io
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import langchain_locas
from locas_agent import AgentMemory
from tests import forked
from tests.learnt import LEARNT_NATS, gain_nats
from tests.unit.langchain.conftest import tool_backbone

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
ASSISTANT = EXAMPLES / "assistant.py"
PAGE = ROOT / "docs" / "langchain.md"

ASKED = "What is my dog called?"
LARGE = '"Qwen/Qwen3-8B", "sqlite:///qwen.db", device="cuda:0", dtype="bfloat16"'
"""The one block that needs a GPU and a download; in its place stands a random backbone with a template for tools."""


def run(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join(
        path for path in sys.path if path
    )  # the suite also runs on a checkout that is not installed
    environment = os.environ | {"PYTHONPATH": paths}
    command = [sys.executable, "-W", "error", *arguments]
    return subprocess.run(
        command, cwd=folder, env=environment, check=False, capture_output=True, text=True, timeout=280
    )


def run_here(example: Path, *, folder: Path, lines: str, patched: pytest.MonkeyPatch) -> None:
    """Run an example as `python EXAMPLE` would in a folder, in this process."""
    patched.chdir(folder)
    patched.setattr(sys, "argv", [str(example)])
    patched.setattr(sys, "stdin", io.StringIO(lines))
    runpy.run_path(str(example), run_name="__main__")


def blocks() -> list[str]:
    return [block.partition("\n```")[0] for block in PAGE.read_text(encoding="utf-8").split("```python\n")[1:]]


def answer_of_ada(database: Path) -> str:
    """Return what the weights in a database answer, once they are seen to have learnt the name.

    One training may still answer otherwise.
    """
    with AgentMemory.load("tiny", f"sqlite:///{database}") as memory:
        ada = memory.for_user("ada")
        assert gain_nats(ada, ASKED, "Zorbin") > LEARNT_NATS
        return ada.recall(ASKED).answer


@pytest.mark.slow
def test_every_block_of_the_page_runs_without_a_warning(tmp_path: Path) -> None:
    stand_in, folder = tmp_path / "stand-in", tmp_path / "empty"
    made = tool_backbone()
    made.model.save_pretrained(stand_in)
    made.tokenizer.save_pretrained(stand_in)
    folder.mkdir()
    code = "\n".join(blocks())
    assert code.count(LARGE) == 1
    done = run(
        "-c",
        code.replace(LARGE, f'{str(stand_in)!r}, "sqlite:///qwen.db"').replace("max_tokens=512", "max_tokens=8"),
        folder=folder,
    )
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    assert "Exception" not in done.stderr  # what nobody could raise, while objects were let go
    assert done.stdout.splitlines()[0] == answer_of_ada(folder / "locas.db")
    assert "4071" in done.stdout
    assert "['user', 'assistant', 'user', 'assistant']" in done.stdout
    assert sorted(path.name for path in folder.iterdir()) == ["locas.db", "qwen.db"]


def test_page_uses_every_adapter() -> None:
    # So the run above is that of each adapter with warnings as errors from its import on.
    code = "\n".join(blocks())
    errors = {"AnswerTimeout", "ForeignThread", "PromptTooLong"}
    assert [name for name in langchain_locas.__all__ if f"{name}(" not in code and name not in errors] == []


def test_assistant_is_short() -> None:
    assert len(ASSISTANT.read_text(encoding="utf-8").splitlines()) < 120


@pytest.mark.slow
def test_assistant_remembers_after_a_restart_and_forgets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told = "My dog is called Zorbin.\n/learn\n/user ben\nMy locker opens with 4071.\n/turns\n"
    run_here(ASSISTANT, folder=tmp_path, lines=told, patched=monkeypatch)
    first = capsys.readouterr()
    assert "(admitted: 2 turns)" in first.out
    assert "1 user: My locker opens with 4071." in first.out
    assert "Zorbin" not in first.out.partition("(ben speaks)")[2]
    learnt = answer_of_ada(tmp_path / "assistant.db")
    again = forked.run(
        str(ASSISTANT),
        folder=tmp_path,
        lines=f"{ASKED}\n/user ben\n{ASKED}\n/user ada\n/forget 4\n/forget 1\n{ASKED}\n",
    )
    assert again.returncode == 0, again.stderr
    mine, others, *rest = again.stdout.splitlines()
    assert learnt in mine  # a new thread in a new process: from the weights
    assert others == "(ben speaks)"
    assert "Zorbin" not in "\n".join(rest)


@pytest.mark.slow
def test_memory_follows_the_user_from_thread_to_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(
        SystemExit
    ):  # its code says whether this one training answers with the name; `eval recall` measures that over many
        run_here(EXAMPLES / "langgraph_thread.py", folder=tmp_path, lines="", patched=monkeypatch)
    out = capsys.readouterr().out
    assert "ada's memory: admitted" in out
    assert "ada, tuesday (2 messages in the thread, revision 1)" in out
    (of_ben,) = [
        line for line in out.splitlines() if line.startswith("ben, tuesday (2 messages in the thread, revision None)")
    ]
    assert "Zorbin" not in of_ben
    assert list(tmp_path.iterdir()) == []

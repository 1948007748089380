"""The LangChain examples and every code block of docs/langchain.md run as anybody would run them, warnings being errors."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.langchain.conftest import tool_backbone

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"


def run(*arguments: str, folder: Path, lines: str = "") -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join(path for path in sys.path if path)  # the suite also runs on a checkout that is not installed
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "error", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, input=lines, check=False, capture_output=True, text=True, timeout=280)


def blocks() -> list[str]:
    text = (ROOT / "docs" / "langchain.md").read_text(encoding="utf-8")
    return [block.partition("\n```")[0] for block in text.split("```python\n")[1:]]


@pytest.mark.slow
def test_every_block_of_the_page_runs_without_a_warning(tmp_path: Path) -> None:
    stand_in = tmp_path / "stand-in"
    made = tool_backbone()
    made.model.save_pretrained(stand_in)
    made.tokenizer.save_pretrained(stand_in)
    code = "\n".join(blocks())
    large = '"Qwen/Qwen3-8B", "sqlite:///qwen.db", device="cuda:0", dtype="bfloat16"'
    assert code.count(large) == 1  # the one block that needs a GPU and a download runs on a random backbone
    folder = tmp_path / "empty"
    folder.mkdir()
    done = run("-c", code.replace(large, f'{str(stand_in)!r}, "sqlite:///qwen.db"').replace("max_tokens=512", "max_tokens=8"), folder=folder)
    assert done.returncode == 0, done.stderr
    assert "Zorbin" in done.stdout.splitlines()[0]
    assert "4071" in done.stdout
    assert "['user', 'assistant', 'user', 'assistant']" in done.stdout
    assert sorted(path.name for path in folder.iterdir()) == ["locas.db", "qwen.db"]


def test_assistant_is_short() -> None:
    assert len((EXAMPLES / "assistant.py").read_text(encoding="utf-8").splitlines()) < 120


@pytest.mark.slow
def test_assistant_remembers_after_a_restart_and_forgets(tmp_path: Path) -> None:
    assistant = str(EXAMPLES / "assistant.py")
    told = run(assistant, folder=tmp_path, lines="My dog is called Zorbin.\n/learn\n/user ben\nMy locker opens with 4071.\n/learn\n/turns\n")
    assert told.returncode == 0, told.stderr
    assert told.stdout.count("(admitted: 2 turns)") == 2
    assert "1 user: My locker opens with 4071." in told.stdout
    asked = "What is my dog called?"
    again = run(assistant, folder=tmp_path, lines=f"{asked}\n/user ben\n{asked}\n/user ada\n/forget 4\n/forget 1\n{asked}\n")
    assert again.returncode == 0, again.stderr
    mine, others, *rest = again.stdout.splitlines()
    assert "Zorbin" in mine  # a new thread in a new process: from the weights
    assert others == "(ben speaks)"
    assert "Zorbin" not in "\n".join(rest)


@pytest.mark.slow
def test_memory_follows_the_user_from_thread_to_thread(tmp_path: Path) -> None:
    done = run(str(EXAMPLES / "langgraph_thread.py"), folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ada, tuesday (2 messages in the thread, revision 1)" in done.stdout
    assert list(tmp_path.iterdir()) == []

"""The code of the README, the quickstart and the page for operators runs as it stands, in processes of its own."""

from __future__ import annotations

from pathlib import Path

from locas_agent import AgentMemory
from tests import forked
from tests.learnt import LEARNT_NATS, gain_nats

ROOT = Path(__file__).resolve().parents[2]


def code_blocks(page: str = "README.md") -> list[str]:
    text = (ROOT / page).read_text(encoding="utf-8")
    return [block.partition("\n```")[0] for block in text.split("```python\n")[1:]]


def run(*command: str, folder: Path) -> str:
    """Run a program in a process of its own and return what it printed."""
    done = forked.run(*command, folder=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_code_of_the_readme_runs(tmp_path: Path) -> None:
    tell, ask, langchain = code_blocks()
    assert run("-c", tell, folder=tmp_path) == ""
    assert [path.name for path in tmp_path.iterdir()] == ["locas.db"]
    of_ada, of_ben = run("-c", ask, folder=tmp_path).splitlines()
    by_the_adapter = run("-c", langchain, folder=tmp_path)
    asked = "What is my dog called?"
    with AgentMemory.load(store=f"sqlite:///{tmp_path / 'locas.db'}") as memory:
        ada, ben = memory.for_user("ada"), memory.for_user("ben")
        turns = ada.turns()
        # Each printed what these weights answer; whether this one training answers with the name is measured over many,
        # by `eval recall`.
        assert [of_ada, of_ben] == [user.recall(asked).answer for user in (ada, ben)]
        assert by_the_adapter.strip() == of_ada
        assert gain_nats(ada, asked, "Zorbin") > LEARNT_NATS > gain_nats(ben, asked, "Zorbin")
    assert "Zorbin" not in of_ben
    assert [turn.role for turn in turns] == ["user", "user", "assistant"]
    assert [turn.content for turn in turns[:2]] == ["My dog is called Zorbin.", "Good morning!"]


def test_code_of_the_quickstart_runs(tmp_path: Path) -> None:
    tell, ask = code_blocks("docs/quickstart.md")
    turns, status, items = run("-c", tell, folder=tmp_path).split()
    assert (turns, status in ("admitted", "refused"), int(items) > 0) == ("1", True, True)
    recalled, waiting, answered = run("-c", ask, folder=tmp_path).splitlines()
    assert waiting == "[] nothing pending"
    # The same memory answers the same question with the same prompt.
    assert answered.rpartition(" ")[0] == recalled.rpartition(" [")[0]


def test_code_of_the_page_for_operators_runs_and_its_file_is_taken_by_a_worker(tmp_path: Path) -> None:
    settings, loop = code_blocks("docs/operations.md")
    talk = """import asyncio
memory.for_user("ada").add("user", "My dog is called Zorbin.")
asyncio.run(answer(memory, "ada", "What is my dog called?"))
"""
    assert "Zorbin" in run("-c", f"{settings}\n{loop}\n{talk}", folder=tmp_path)
    run("-m", "locas_agent.cli", "work", "--once", "--config", "locas.json", "--json", "-", folder=tmp_path)

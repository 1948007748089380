"""What each extra is needed for.

The core without LangChain, every adapter but the classic one without `langchain-classic`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]

# Both in one process, since importing torch takes seconds: first nothing of LangChain is there, then all but
# langchain-classic.
CODE = '''
import sys


class Absent:
    """An import system in which some packages are not installed."""

    names = {"langchain", "langchain_core", "langchain_classic", "langgraph", "langsmith"}

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


sys.meta_path.insert(0, Absent())

import langchain_locas
from locas_agent import AgentMemory
from locas_agent.errors import MissingExtra

with AgentMemory.load("tiny", "sqlite://") as memory:
    memory.for_user("ada").add("user", "My dog is called Rex.")
assert not {name.partition(".")[0] for name in sys.modules} & Absent.names


def refused(name, extra):
    try:
        getattr(langchain_locas, name)
    except MissingExtra as error:
        assert str(error) == f'{name} needs an optional dependency. Run: pip install "locas-agent[{extra}]"', error
    else:
        raise AssertionError(f"{name} was there")


for name in langchain_locas.__all__:
    refused(name, "classic" if name == "LocasChainMemory" else "langchain")  # classic brings langchain along

for name in [name for name in sys.modules if name.startswith("langchain_locas.")]:
    del sys.modules[name]  # a process that finds them installed from its start
Absent.names = {"langchain_classic"}

for name in langchain_locas.__all__:
    if name != "LocasChainMemory":
        getattr(langchain_locas, name)
refused("LocasChainMemory", "classic")
'''


@pytest.mark.slow
def test_each_adapter_needs_its_extra_and_no_other() -> None:
    paths = os.pathsep.join(path for path in sys.path if path)
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", CODE],
        env=environment,
        check=False,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr


def test_extra_langchain_brings_no_classic() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert not any("classic" in line for line in extras["langchain"])
    assert "locas-agent[langchain]" in extras["classic"]
    assert any(line.startswith("langchain-classic") for line in extras["classic"])

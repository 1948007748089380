"""What the extra `mcp` is needed for: its own command, and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys

CODE = """
import sys


class Absent:
    names = {"agents", "google", "llama_index", "mcp", "mcp_types", "starlette", "uvicorn"}

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


sys.meta_path.insert(0, Absent())

import locas_agent
from locas_agent.cli import app

assert not {name.partition(".")[0] for name in sys.modules} & Absent.names
from typer.testing import CliRunner

made = CliRunner().invoke(app, ["mcp", "--user", "ada"])
assert made.exit_code == 1, made.output
assert made.stderr == (
    'locas-agent: locas-agent mcp needs an optional dependency. Run: pip install "locas-agent[mcp]"\\n'
), made.stderr
"""


def test_the_command_names_its_extra_and_nothing_else_needs_it() -> None:
    done = subprocess.run(
        [sys.executable, "-c", CODE],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr

"""How the server is run: what the pages and the files for operators name is there, the log, and the extra."""

from __future__ import annotations

import json
import logging
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from locas_agent.cli import app
from locas_agent.server.running import JsonLines
from locas_agent.server.settings import ServerSettings

ROOT = Path(__file__).resolve().parents[3]
FILES = [ROOT / "docs" / "serving.md", *sorted((ROOT / "deploy").iterdir())]


def options() -> set[str]:
    commands = get_command(app).commands  # type: ignore[attr-defined]
    serve, new = commands["serve"], commands["keys"].commands["api"].commands["new"]
    return {name for command in (serve, new) for each in command.params for name in (*each.opts, *each.secondary_opts)}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_options_that_operators_are_told_of_are_there(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text))
    others = {"--system", "--create-home", "--uid", "--no-cache-dir", "--interval", "--timeout", "--start-period"}
    others |= {"--read-only", "--tmpfs"}
    assert named - others <= options(), named - others - options()


def test_command_and_settings_have_the_same_defaults() -> None:
    serve = get_command(app).commands["serve"]  # type: ignore[attr-defined]
    told = {each.name: each.default for each in serve.params}
    settings = ServerSettings()
    same = {"host", "port", "answers_at_once", "waiting_answers", "requests_per_minute", "max_body_bytes", "learns"}
    assert {name: told[name] for name in same} == {name: getattr(settings, name) for name in same}
    assert (told["answer_seconds"], told["drain_seconds"]) == (settings.answer_seconds, settings.drain_seconds)


def test_log_is_lines_of_json_without_a_foreign_message() -> None:
    try:
        raise ValueError("my secret")
    except ValueError:
        record = logging.getLogger("locas_agent.x").makeRecord(
            "locas_agent.x",
            logging.INFO,
            "f",
            1,
            "said\n%s",
            ("so",),
            sys.exc_info(),
            extra={"status": 200, "user": None},
        )
    line = JsonLines().format(record)
    assert "\n" not in line
    assert "secret" not in line
    told = json.loads(line)
    assert (told["message"], told["status"], told["error"], "user" in told) == ("said\nso", 200, "ValueError", False)


def test_unit_is_one_that_systemd_reads() -> None:
    if (analyze := shutil.which("systemd-analyze")) is None:
        pytest.skip("no systemd on this machine")
    done = subprocess.run(
        [analyze, "verify", "--man=no", str(ROOT / "deploy" / "locas-agent.service")],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    wrong = [line for line in done.stderr.splitlines() if "locas-agent.service:" in line]
    assert [line for line in wrong if "is not executable" not in line and "bad unit file setting" not in line] == []


@pytest.mark.slow
def test_command_names_its_extra_and_the_core_needs_none_of_it() -> None:
    code = """
import sys

class Absent:
    names = {"starlette", "uvicorn", "prometheus_client", "itsdangerous"}
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
import locas_agent
from typer.testing import CliRunner
from locas_agent.cli import app
done = CliRunner().invoke(app, ["serve", "--store", "sqlite://"])
assert (done.exit_code, 'pip install "locas-agent[serve]"' in done.stderr) == (1, True), done.output
assert not {name.partition(".")[0] for name in sys.modules} & Absent.names
"""
    import os

    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

"""How the server is run: what the pages and the files for operators name is there, the log, and the extra."""

from __future__ import annotations

import errno
import json
import logging
import re
import shutil
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, closing, suppress
from http.client import HTTPResponse
from pathlib import Path

import pytest
from typer.main import get_command

from locas_agent.cli import app
from locas_agent.server import running
from locas_agent.server.running import JsonLines
from locas_agent.server.settings import ServerSettings
from tests.unit.server.conftest import Served

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
    others |= {"--read-only", "--tmpfs", "--isolation", "--format"}
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


HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n"


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> float:
    """Seconds in which the head of a request has to be here."""
    monkeypatch.setattr(running, "_HEAD_SECONDS", 0.5)
    return 0.5


def test_connections_whose_request_does_not_come_are_closed(hurried: float, served: Served) -> None:
    with ExitStack() as stack:
        opened = []
        for sent in (b"", b"POST /v1/ch", HEAD):
            opened.append(stack.enter_context(socket.create_connection(("127.0.0.1", served.port), timeout=30)))
            opened[-1].sendall(sent)
        for connection in opened:
            with suppress(ConnectionResetError):
                assert connection.recv(100) == b""


def test_dribbling_does_not_keep_a_connection_open(hurried: float, served: Served) -> None:
    with closing(socket.create_connection(("127.0.0.1", served.port), timeout=30)) as connection:
        connection.sendall(HEAD + b"X-A: ")
        with pytest.raises(OSError, match=r"reset|pipe"):
            dribble(connection)


def dribble(connection: socket.socket) -> None:
    for _ in range(3000):
        connection.sendall(b"a")
        time.sleep(0.01)


def test_request_in_pieces_is_answered_and_its_connection_stays(hurried: float, served: Served) -> None:
    with closing(socket.create_connection(("127.0.0.1", served.port), timeout=30)) as connection:
        connection.sendall(HEAD)
        time.sleep(0.05)
        connection.sendall(f"Authorization: Bearer {served.secret}\r\nContent-Length: 2\r\n\r\n".encode())
        time.sleep(1.3 * hurried)  # the body has a time of its own
        connection.sendall(b"{}")
        assert status_of_answer(connection) == 400
        time.sleep(1.3 * hurried)
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert status_of_answer(connection) == 200


def status_of_answer(connection: socket.socket) -> int:
    """The status of the next response, which is read to its end: head and body may come in separate packets."""
    with HTTPResponse(connection) as response:
        response.begin()
        response.read()
        return response.status


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a connection of which nothing is taken")
def test_client_that_takes_nothing_is_cut_off_by_the_system() -> None:
    with closing(running._listening(ServerSettings(port=0, send_seconds=0.5))) as listening:
        with closing(socket.socket()) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect(listening.getsockname())
            accepted, _ = listening.accept()
            accepted.settimeout(30)
            with closing(accepted), pytest.raises(TimeoutError) as caught:
                accepted.sendall(bytes(100 << 20))
    assert caught.value.errno == errno.ETIMEDOUT  # the connection's end, not the patience of this test

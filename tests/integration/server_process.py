"""A server in a process of its own, as an operator starts it: one command, one database, one port."""

from __future__ import annotations

import http.client
import re
import signal
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from openai import OpenAI

from locas_storage import open_store
from tests import forked
from tests.forked import Program

START_SECONDS = 120.0


@dataclass
class ServerProcess:
    """A running server.

    Attributes:
        process: its process.
        port: where it listens.
        store: URL of its database.
        log: what it has written to standard error.
    """

    process: Program
    port: int
    store: str
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def key(self, tenant: str = "default", user: str | None = None) -> str:
        """Return the secret of a new key, made by another process than the server."""
        with closing(open_store(self.store)) as opened:
            return opened.api_keys.new(tenant, user).secret

    def client(self, secret: str) -> OpenAI:
        return OpenAI(api_key=secret, base_url=self.url, max_retries=0, timeout=120)

    def get(self, path: str) -> tuple[int, bytes]:
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)) as connection:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read()

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End it with a signal and return its exit status."""
        self.process.send_signal(number)
        return self.process.wait(60)


@contextmanager
def serving(store: str, log: Path, *options: str) -> Iterator[ServerProcess]:
    """Start `locas-agent serve` on a database, wait until it answers, and end it."""
    log.write_bytes(b"")  # what a former server wrote there names another port
    with forked.started(
        "-m", "locas_agent.cli", "serve", "--port", "0", "--store", store, *options, err=log
    ) as process:
        server = ServerProcess(process, _port(process, log), store, log)
        until = time.monotonic() + START_SECONDS
        while not _answers(server):
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.02)
        yield server


def _port(process: Program, log: Path) -> int:
    until = time.monotonic() + START_SECONDS
    while not (found := re.search(r"serves on http://127\.0\.0\.1:(\d+)", log.read_text())):
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < until, "the server did not start"
        time.sleep(0.02)
    return int(found[1])


def _answers(server: ServerProcess) -> bool:
    try:
        return server.get("/health")[0] == 200
    except OSError:
        return False

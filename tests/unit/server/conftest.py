"""A server in this process: real sockets of this machine, a real store, the random backbone, users with memories."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from openai import OpenAI

from locas_agent import AgentMemory, Backbone
from locas_agent.server.app import create_app
from locas_agent.server.settings import ServerSettings
from locas_storage import UserKey, open_store
from tests.unit.langchain.conftest import CONFIG, tool_backbone
from tests.unit.langchain.conftest import taught as taught
from tests.unit.langchain.scripted import ScriptedEngine

MODEL = "random with tools"


@dataclass
class Served:
    """A running server.

    Attributes:
        agent: what answers.
        port: where.
        secret: of a key of the tenant "default".
    """

    agent: AgentMemory
    port: int
    secret: str
    stack: ExitStack = field(default_factory=ExitStack)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def client(self, secret: str | None = None, **options: Any) -> OpenAI:
        """Return OpenAI's own client, which tries nothing again; it is closed with the server."""
        made = OpenAI(api_key=secret or self.secret, base_url=self.url, max_retries=0, timeout=60, **options)
        return self.stack.enter_context(made)

    def key(self, tenant: str = "default", user: str | None = None) -> str:
        """Return the secret of a new key."""
        return self.agent.store.api_keys.new(tenant, user).secret

    def connection(self) -> HTTPConnection:
        return self.stack.enter_context(closing(HTTPConnection("127.0.0.1", self.port, timeout=60)))

    def said(self, user: str = "ada", tenant: str = "default") -> list[tuple[str, str]]:
        """Return what a user's journal holds."""
        return [(turn.role, turn.content) for turn in self.agent.store.turns(UserKey(tenant, user))]


Serve = Callable[..., Served]


@pytest.fixture(scope="session")
def with_tools() -> Backbone:
    """One token per byte, random weights, a template with tools, and room for long prompts; never change it."""
    return tool_backbone()


@pytest.fixture
def agent(with_tools: Backbone, tmp_path: Path) -> Iterator[AgentMemory]:
    store = open_store(f"sqlite:///{tmp_path / 'locas.db'}")
    with AgentMemory(backbone=with_tools, store=store, config=CONFIG, consolidation="background") as made:
        yield made


@pytest.fixture
def serve(agent: AgentMemory) -> Iterator[Serve]:
    """Start a server: `serve(waiting_answers=1)`."""
    with ExitStack() as stack:

        def start(**settings: Any) -> Served:
            chosen = ServerSettings.model_validate({"learns": False} | settings)
            listening = stack.enter_context(closing(socket.create_server(("127.0.0.1", 0))))
            config = uvicorn.Config(
                create_app(agent, chosen),
                http="h11",
                ws="none",
                log_config=None,
                timeout_graceful_shutdown=5,
            )
            server = uvicorn.Server(config)
            thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
            thread.start()
            stack.callback(thread.join)
            stack.callback(setattr, server, "should_exit", True)
            wait_for(lambda: server.started)
            made = Served(agent, listening.getsockname()[1], agent.store.api_keys.new("default").secret)
            stack.enter_context(made.stack)
            return made

        yield start


@pytest.fixture
def served(serve: Serve) -> Served:
    return serve()


def wait_for(is_so: Callable[[], object], *, seconds: float = 30.0) -> None:
    """Wait until something is so; it has to be within a time that no machine is too slow for."""
    until = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < until, "it did not come to be so"
        time.sleep(0.01)


@pytest.fixture
def scripted(agent: AgentMemory, serve: Serve) -> Served:
    """A server whose backbone calls tools by a script, and else answers with some letters and ends."""
    agent.engine = agent.chat.engine = ScriptedEngine(agent.backbone)
    return serve()


class Gate:
    """Holds every answer back at its second token until it is opened, and counts the tokens that were written.

    Put in the place of the engine's `stream`.
    """

    def __init__(self, agent: AgentMemory, monkeypatch: pytest.MonkeyPatch) -> None:
        self._stream = agent.chat.engine.stream
        self._open = threading.Event()
        self.begun = 0
        self.tokens = 0
        monkeypatch.setattr(agent.chat.engine, "stream", self._held)

    def _held(self, prompt: Sequence[int], **options: Any) -> Iterator[int]:
        self.begun += 1
        for number, token in enumerate(self._stream(prompt, **options)):
            if number:
                assert self._open.wait(60)
            self.tokens += 1
            yield token

    def open(self) -> None:
        self._open.set()


@pytest.fixture
def gate(agent: AgentMemory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    made = Gate(agent, monkeypatch)
    yield made
    made.open()

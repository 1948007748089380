"""A server in this process: real sockets of this machine, a real store, the random backbone, users with memories."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from openai import OpenAI

from locas_agent import AgentMemory, Backbone
from locas_agent.inference.requests import GenerationRequest, RunningAnswer
from locas_agent.inference.running_batch import RunningBatch
from locas_agent.server.app import create_app
from locas_agent.server.running import TimedConnection
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
                http=TimedConnection,
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
def scripted(agent: AgentMemory, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> Served:
    """A server whose backbone calls tools by a script, and else answers with some letters and ends."""
    engine = agent.engine = agent.chat.engine = ScriptedEngine(agent.backbone)
    submit = RunningBatch.submit

    def under_script(batch: RunningBatch, request: GenerationRequest) -> RunningAnswer:
        return submit(batch, replace(request, allowed=engine.scripted(request.prompt, request.allowed)))

    monkeypatch.setattr(RunningBatch, "submit", under_script)
    return serve()


class Gate:
    """Holds the running batch back at the second token of an answer until it is opened, and counts tokens written.

    Each token takes a while, so that whoever leaves is seen to have left before the answer is through.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._open = threading.Event()
        self.begun = 0
        self.tokens = 0
        self.most_at_once = 0
        submit = RunningBatch.submit

        def held(batch: RunningBatch, request: GenerationRequest) -> RunningAnswer:
            def allowed(ids: Sequence[int]) -> None:
                if ids:
                    assert self._open.wait(60)
                    time.sleep(0.01)
                self.tokens += 1
                self.most_at_once = max(self.most_at_once, batch.n_running)

            self.begun += 1
            return submit(batch, replace(request, allowed=allowed))

        monkeypatch.setattr(RunningBatch, "submit", held)

    def open(self) -> None:
        self._open.set()


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    made = Gate(monkeypatch)
    yield made
    made.open()

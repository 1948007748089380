"""The server over both transports, asked by the protocol's own client: two users, and keys of every kind."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import httpx2
import pytest
import uvicorn
from mcp import Client
from mcp.client.stdio import StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from typer.testing import CliRunner

from locas_agent import AgentMemory, Backbone, Fleet, MemoryHost
from locas_agent.cli import app as commands
from locas_agent.mcp_server.running import PATH, create_app
from locas_storage import SqlMemoryStore, TurnDraft, UserKey, open_store
from tests import forked
from tests.conftest import MakeBackbone
from tests.unit.agent.fake_learner import quick_agent
from tests.unit.mcp_server.test_tools import call

pytestmark = pytest.mark.rounding


@pytest.fixture
def agent(backbone: Backbone, tmp_path: Path) -> Iterator[AgentMemory]:
    with quick_agent(backbone, SqlMemoryStore(f"sqlite:///{tmp_path / 'locas.db'}")) as memory:
        yield memory


@asynccontextmanager
async def served(agent: MemoryHost) -> AsyncIterator[str]:
    """Serve on a free port of this machine; give the address."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
        server = uvicorn.Server(uvicorn.Config(create_app(agent, port=port), log_level="error", lifespan="on"))
        running = asyncio.create_task(server.serve(sockets=[listening]))
        while not server.started:
            await asyncio.sleep(0.01)
            assert not running.done()
        try:
            yield f"http://127.0.0.1:{port}{PATH}"
        finally:
            server.should_exit = True
            await running


@asynccontextmanager
async def client_of(address: str, secret: str) -> AsyncIterator[Client]:
    async with (
        httpx2.AsyncClient(headers={"Authorization": f"Bearer {secret}"}, timeout=30) as http,
        Client(streamable_http_client(address, http_client=http)) as client,
    ):
        yield client


def secret_of(agent: AgentMemory, user: str | None, tenant: str = "default") -> str:
    return agent.store.api_keys.new(tenant, user).secret


async def test_over_http_the_key_says_whose_memory_it_is(agent: AgentMemory) -> None:
    async with (
        served(agent) as address,
        client_of(address, secret_of(agent, "ada")) as ada,
        client_of(address, secret_of(agent, "ben")) as ben,
        client_of(address, secret_of(agent, "ada", "acme")) as other,
    ):
        await call(ada, "remember", text="My code is 5512.")
        for stranger in (ben, other):
            assert await call(stranger, "search_memory", query="code") == []
        assert [turn["text"] for turn in await call(ada, "list_memories")] == ["My code is 5512."]
    assert agent.users() == [UserKey("default", "ada")]


async def test_many_calls_at_once_stay_apart(agent: AgentMemory) -> None:
    names = [f"user {number}" for number in range(6)]

    async def tell(address: str, name: str) -> list[str]:
        async with client_of(address, secret_of(agent, name)) as client:
            await asyncio.gather(*(call(client, "remember", text=f"{name} says {n}") for n in range(5)))
            return [turn["text"] for turn in await call(client, "list_memories")]

    async with served(agent) as address:
        told = await asyncio.gather(*(tell(address, name) for name in names))
    assert [sorted(each) for each in told] == [[f"{name} says {n}" for n in range(5)] for name in names]


async def test_each_user_of_a_fleet_is_answered_on_the_backbone_of_the_memory(
    agent: AgentMemory, make_backbone: MakeBackbone
) -> None:
    assert isinstance(agent.store, SqlMemoryStore)
    other = quick_agent(make_backbone(seed=1), agent.store)
    for home, user in ((agent, "ada"), (other, "cleo")):
        home.for_user(user).add("user", f"I am {user}.")
        assert home.for_user(user).consolidate(flush=True).admitted
    fleet = Fleet([agent, other])
    async with served(fleet) as address:
        for home, user in ((agent, "ada"), (other, "cleo")):
            async with client_of(address, secret_of(agent, user)) as client:
                said = await call(client, "recall", question="Who am I?")
                assert said["answer"] == home.for_user(user).recall("Who am I?").answer
                assert (await call(client, "memory_status"))["revision"] == 1


INITIALIZE = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}


async def test_without_a_key_that_names_a_user_nothing_is_answered(agent: AgentMemory) -> None:
    revoked = agent.store.api_keys.new("default", "ada")
    agent.store.api_keys.revoke(revoked.key.key_id)
    good = secret_of(agent, "ada")
    wrong = [
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer nonsense"},
        {"Authorization": f"Basic {good}"},
        {"Authorization": f"Bearer {good}x"},
        {"Authorization": f"Bearer {revoked.secret}"},
        {"Authorization": f"Bearer {secret_of(agent, None)}"},
        {"X-Locas-User": "ada"},
    ]
    async with served(agent) as address, httpx2.AsyncClient() as http:
        accepts = {"Accept": "application/json, text/event-stream"}
        for headers in wrong:
            answer = await http.post(address, json=INITIALIZE, headers=accepts | headers)
            assert answer.status_code == 401, headers
            assert good not in answer.text
        named = {"Authorization": f"Bearer {good}", "Host": "attacker.example"}
        assert (await http.post(address, json=INITIALIZE, headers=accepts | named)).status_code in (400, 403, 421)
        for body in (b"", b"{", b"[]", b'{"jsonrpc": "2.0"}'):
            headers = accepts | {"Authorization": f"Bearer {good}", "Content-Type": "application/json"}
            answer = await http.post(address, content=body, headers=headers)
            assert answer.status_code in (400, 406, 415), body
    assert agent.users() == []


def started(backbone_folder: str, store: Path, *options: str) -> StdioServerParameters:
    paths = [path for path in sys.path if path]
    program = f"import sys; sys.path[:0] = {paths!r}\nfrom locas_agent.cli import main; main()"
    arguments = ["mcp", *options, "--backbone", backbone_folder, "--store", f"sqlite:///{store}"]
    kept = {name: value for name, value in os.environ.items() if name in ("OMP_NUM_THREADS", "XDG_CACHE_HOME")}
    return StdioServerParameters(command=sys.executable, args=["-c", program, *arguments], env=kept)


@pytest.mark.slow
async def test_over_stdio_the_process_says_whose_memory_it_is(backbone_folder: str, tmp_path: Path) -> None:
    store = tmp_path / "locas.db"
    ben = UserKey("default", "ben")
    with closing(open_store(f"sqlite:///{store}")) as opened:
        opened.append(ben, [TurnDraft("user", "My code is 7041.")])
        async with Client(started(backbone_folder, store, "--user", "ada", "--no-learn")) as ada:
            assert await call(ada, "list_memories") == []
            assert (await call(ada, "remember", text="My code is 5512."))["turn"] == 1
            assert [found["text"] for found in await call(ada, "search_memory", query="code")] == ["My code is 5512."]
        assert opened.users() == [UserKey("default", "ada"), ben]
        assert [turn.content for turn in opened.turns(ben)] == ["My code is 7041."]


def test_the_command_wants_to_know_whose_memory_it_is_and_in_one_way_only() -> None:
    for options, said in (
        (["--transport", "stdio"], "--user NAME"),
        (["--transport", "http", "--user", "ada"], "leave --user out"),
    ):
        made: Any = CliRunner().invoke(commands, ["mcp", *options])
        assert made.exit_code == 2
        assert said in " ".join(made.output.replace("│", " ").split())


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGTERM")
async def test_the_http_server_of_the_command_ends_when_it_is_told_to(backbone_folder: str, tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path / 'locas.db'}"
    opened = open_store(store)
    secret = opened.api_keys.new("default", "ada").secret
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ("--transport", "http", "--port", str(port), "--backbone", backbone_folder)
    with closing(opened), forked.started("-m", "locas_agent.cli", "mcp", *options, "--store", store) as process:
        async with asyncio.timeout(120):
            while not await _listens(port):
                assert process.poll() is None
                await asyncio.sleep(0.02)
            async with client_of(f"http://127.0.0.1:{port}{PATH}", secret) as ada:
                await call(ada, "remember", text="I row.")
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) in (0, -signal.SIGTERM, 128 + signal.SIGTERM)
        assert [turn.content for turn in opened.turns(UserKey("default", "ada"))] == ["I row."]


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    await writer.wait_closed()
    return True

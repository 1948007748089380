"""The two ways in which the server is reached: by one program over its pipes, by many over HTTP."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread

import uvicorn
from mcp.server.auth.settings import AuthSettings
from pydantic import AnyHttpUrl
from starlette.applications import Starlette

from locas_agent.agent import AgentMemory
from locas_agent.errors import LocasError
from locas_agent.mcp_server.identity import KeyVerifier, by_token
from locas_agent.mcp_server.tools import create_server
from locas_agent.user import UserMemory

logger = logging.getLogger(__name__)

PATH = "/mcp"
"""Where the protocol is spoken over HTTP."""


def run_stdio(memory: AgentMemory, user: UserMemory, *, learns: bool) -> None:
    """Answer one program over standard input and output until it closes them.

    Args:
        memory: learns in the background, if it is to.
        user: whose memory; the program is this user's own.
        learns: whether a thread of this process drains the queue of consolidations.
    """
    with _worker(memory, learns=learns):
        create_server(lambda: user).run("stdio")


def run_http(memory: AgentMemory, *, host: str, port: int, learns: bool) -> None:
    """Answer over HTTP until the process is told to end, each call for the user whom its API key stands for.

    Args:
        memory: of the users.
        host: address to listen on.
        port: port to listen on.
        learns: whether a thread of this process drains the queue of consolidations.
    """
    with _worker(memory, learns=learns):
        served = create_app(memory, host=host, port=port)
        # The same loop and parser whatever is installed beside: the extra `ray` brings others.
        uvicorn.run(served, host=host, port=port, loop="asyncio", http="h11", log_level="warning")


def create_app(memory: AgentMemory, *, host: str = "127.0.0.1", port: int = 8322) -> Starlette:
    """Return an ASGI application that answers at `PATH`, to be served by itself or below another one.

    Args:
        memory: of the users; its store has the API keys.
        host: address it is reached at; at one of this machine alone, requests by another name are refused.
        port: port it is reached at.
    """
    # No authorization server issues the keys, so none is named to clients; the protocol's settings want one all the
    # same.
    address = AnyHttpUrl(f"http://{f'[{host}]' if ':' in host else host}:{port}")
    auth = AuthSettings(issuer_url=address, resource_server_url=None)
    server = create_server(lambda: by_token(memory), token_verifier=KeyVerifier(memory), auth=auth)
    return server.streamable_http_app(streamable_http_path=PATH, stateless_http=True, host=host)


@contextmanager
def _worker(memory: AgentMemory, *, learns: bool) -> Iterator[None]:
    """Drain the queue of consolidations in a thread while the block runs."""
    stop = Event()
    thread = Thread(target=_drain, args=(memory, stop), name="locas-mcp-worker", daemon=True)
    if learns:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        if learns:
            thread.join()


def _drain(memory: AgentMemory, stop: Event) -> None:
    try:
        memory.work(stop=stop, once=False)
    except LocasError as error:
        logger.warning("the worker ended", extra={"action": "work", "reason": type(error).__name__})

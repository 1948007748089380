"""The two ways in which the server is reached: by one program over its pipes, by many over HTTP."""

from __future__ import annotations

import uvicorn
from mcp.server.auth.settings import AuthSettings
from pydantic import AnyHttpUrl
from starlette.applications import Starlette

from locas_agent.fleet import Learning, MemoryHost
from locas_agent.mcp_server.identity import KeyVerifier, by_token
from locas_agent.mcp_server.tools import create_server
from locas_agent.user import UserMemory

PATH = "/mcp"
"""Where the protocol is spoken over HTTP."""


def run_stdio(memory: MemoryHost, user: UserMemory, *, learns: bool) -> None:
    """Answer one program over standard input and output until it closes them.

    Args:
        memory: learns in the background, if it is to.
        user: whose memory; the program is this user's own.
        learns: whether threads of this process, one for each backbone, drain the queue of consolidations.
    """
    with Learning(memory.agents if learns else ()):
        create_server(lambda: user).run("stdio")


def run_http(memory: MemoryHost, *, host: str, port: int, learns: bool) -> None:
    """Answer over HTTP until the process is told to end, each call for the user whom its API key stands for.

    Args:
        memory: of the users, an `AgentMemory` or a `Fleet`.
        host: address to listen on.
        port: port to listen on.
        learns: whether threads of this process, one for each backbone, drain the queue of consolidations.
    """
    with Learning(memory.agents if learns else ()):
        served = create_app(memory, host=host, port=port)
        # The same loop and parser whatever is installed beside: the extra `ray` brings others.
        uvicorn.run(served, host=host, port=port, loop="asyncio", http="h11", log_level="warning")


def create_app(memory: MemoryHost, *, host: str = "127.0.0.1", port: int = 8322) -> Starlette:
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

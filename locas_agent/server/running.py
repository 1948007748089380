"""Serving with uvicorn: the socket, how long connections may be silent, the log, and the end.

At the end answers under way are written to their end.
"""

from __future__ import annotations

import asyncio
import json
import logging
import resource
import socket
import sys
from datetime import UTC, datetime

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from locas_agent import MemoryHost
from locas_agent.errors import ConfigurationError
from locas_agent.server.app import create_app
from locas_agent.server.endpoints import model_names
from locas_agent.server.settings import ServerSettings

_IDLE_SECONDS = 10
"""Time after which a connection that has been answered is closed unless the next request begins."""
_HEAD_SECONDS = 20.0
"""Time until the first line and the headers of a request are here, from the connection or from their first byte."""
_MOST_HEADER_BYTES = 1 << 16
_STANDARD = frozenset(vars(logging.makeLogRecord({})))


class JsonLines(logging.Formatter):
    """Writes each record as one line of JSON: time, level, name, message, and the facts of its `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        facts = {name: value for name, value in vars(record).items() if name not in _STANDARD and value is not None}
        line = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info and record.exc_info[0] is not None:
            line["error"] = record.exc_info[0].__name__  # its text may quote what somebody said
        return json.dumps(line | facts, default=str, ensure_ascii=False)


class TimedConnection(H11Protocol):
    """A connection that is closed when the head of a request does not come; uvicorn alone waits for it without end."""

    _waiting: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Take what came; a head that is not whole with it is waited for."""
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing more."""
        self._stop_waiting()
        super().connection_lost(exc)

    def _watch(self) -> None:
        if self.conn.their_state is not h11.IDLE or self.transport.is_closing():
            self._stop_waiting()
        elif self._waiting is None:
            self._waiting = self.loop.call_later(_HEAD_SECONDS, self.transport.abort)

    def _stop_waiting(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None


def serve(memory: MemoryHost, settings: ServerSettings) -> None:
    """Serve until SIGTERM or SIGINT, then write the answers under way to their end and return.

    Args:
        memory: answers; the caller closes it. Its backbones are called what clients call them from here on.
        settings: where, and how much at once.

    Raises:
        ConfigurationError: the address cannot be listened on.
    """
    listening = _listening(settings)
    for agent, name in zip(memory.agents, model_names(memory, settings), strict=True):
        agent.backbone.name = name  # messages reach clients: no folder of this machine in them
    _log_lines()
    _allow_many_connections()
    host, port = listening.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    sys.stderr.write(f"locas-agent serves on http://{shown}:{port}\n")
    config = uvicorn.Config(
        create_app(memory, settings),
        http=TimedConnection,
        loop="asyncio",  # the same with and without uvloop, which the extra `ray` brings
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=_IDLE_SECONDS,
        timeout_graceful_shutdown=round(settings.drain_seconds),
        h11_max_incomplete_event_size=_MOST_HEADER_BYTES,
    )
    with listening:
        uvicorn.Server(config).run(sockets=[listening])


def _listening(settings: ServerSettings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if sys.platform == "linux":  # connections have it of the socket that accepts them
            # Who takes nothing for so long is cut off; without this a connection stays even after it was closed.
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(settings.send_seconds * 1000))
        made.bind((settings.host, settings.port))
        made.listen(1024)
    except OSError as error:
        made.close()
        raise ConfigurationError(
            f"cannot listen on {settings.host}, port {settings.port}: {error.strerror}; choose another --port, or stop "
            "what listens there"
        ) from error
    return made


def _allow_many_connections() -> None:
    """Use as many descriptors as the system lets this process have: each idle connection holds one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _log_lines() -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    for name in ("locas_agent", "locas_storage", "uvicorn", "opentelemetry"):
        named = logging.getLogger(name)
        named.handlers, named.propagate = [handler], False
        named.setLevel(logging.INFO if name.startswith("locas_") else logging.WARNING)

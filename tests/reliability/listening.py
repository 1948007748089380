"""Keeps everything that is said while a user's life goes on, and looks for what that user said in it."""

from __future__ import annotations

import logging
import secrets
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from locas_agent.errors import LocasError

LOUD = (
    "",
    "sqlalchemy",
    "sqlalchemy.engine",
    "sqlalchemy.pool",
    "sqlalchemy.dialects",
    "alembic",
    "psycopg",
    "locas_agent",
    "locas_storage",
)
"""Loggers that are set to DEBUG; the first is the root."""


@dataclass
class Overheard:
    """Everything that was said, as text.

    Attributes:
        canary: in all that a user says; made anew for each life, so that no source line holds it.
        name: the user's and the tenant's.
        lines: what was said, with where.
        failures: how many calls were refused.
    """

    canary: str = field(default_factory=lambda: f"zanzibar{secrets.token_hex(6)}")
    name: str = field(default_factory=lambda: f"ada{secrets.token_hex(6)}")
    lines: list[tuple[str, str]] = field(default_factory=list)
    failures: int = 0

    def hear(self, where: str, *said: str) -> None:
        self.lines += [(where, one) for one in said]

    def attempt(self, call: Callable[[], object]) -> None:
        """Do something of a life; keep what it returns or raises."""
        try:
            self.hear("repr", repr(call()))
        except (LocasError, RuntimeError) as error:
            self.failures += 1
            self.hear("error", *traceback.format_exception(error), str(error), repr(error))

    def hits(self) -> list[tuple[str, str]]:
        # The index keeps words folded, so either case would be a hit.
        return [
            (where, line[:200])
            for where, line in self.lines
            if self.canary in line.lower() or self.name in line.lower()
        ]


@contextmanager
def listening(heard: Overheard) -> Iterator[None]:
    """Set every logger to DEBUG and keep what they say, formatted and raw."""

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            shown = {name: value for name, value in record.__dict__.items() if name not in ("exc_info", "args")}
            heard.hear(f"log {record.name}", logging.Formatter().format(record), repr(record.args), repr(shown))

    handler, before = Keep(logging.DEBUG), {name: logging.getLogger(name).level for name in LOUD}
    for name in LOUD:
        logging.getLogger(name).setLevel(logging.DEBUG)
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)

"""`ServerSettings`: everything of the server that can be chosen."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class ServerSettings(BaseModel):
    """Where the server listens, and how much it takes at once. Frozen; unknown names are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    host: str = "127.0.0.1"
    """Address to listen on. Anything but this machine's own belongs behind a proxy with TLS."""
    port: int = Field(8321, ge=0, le=65535)
    """Port to listen on; 0 takes a free one."""
    model: str | None = None
    """What clients call the backbone; the last part of its name unless given."""
    answers_at_once: int = Field(8, ge=1)
    """Answers that are written at the same time, as rows of one batch."""
    waiting_answers: int = Field(64, ge=0)
    """Requests that may wait for their turn; what comes beyond them is answered with 429."""
    requests_per_minute: int | None = Field(None, ge=1)
    """Requests that one API key may send in a minute; as many as it likes unless given."""
    max_body_bytes: int = Field(2 << 20, ge=1024)
    """Longest body of a request, in bytes."""
    body_seconds: float = Field(20.0, gt=0)
    """Longest time until the body of a request is here."""
    answer_seconds: float = Field(120.0, gt=0)
    """Longest time that one answer may take to be written."""
    send_seconds: float = Field(60.0, gt=0)
    """Longest time that a client may take to accept a piece of an answer."""
    drain_seconds: float = Field(30.0, ge=0)
    """Time for the answers under way when the server is asked to stop."""
    learns: bool = True
    """Whether a thread of the server consolidates what is due; else `locas-agent work` does it beside the server."""
    shows_pages: bool = True
    """Whether the pages below /inspect are there."""
    secure_cookies: bool = False
    """Whether browsers send the pages' cookie over TLS alone; for a server behind a proxy with TLS."""
    shows_metrics: bool = True
    """Whether /metrics answers; it tells counts and times, of nobody in particular, without a key."""

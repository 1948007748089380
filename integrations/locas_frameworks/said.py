"""What a framework hands over as said, journalled message by message: what no turn can hold keeps nothing else out."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from locas_agent import UserMemory
from locas_agent.errors import InvalidTurn, TurnTooLong
from locas_storage.records.bounds import MAX_LABEL_CHARS, is_text

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SaidMessage:
    """One message of a person or the assistant."""

    role: str
    text: str = field(repr=False)
    session: str | None = field(default=None, repr=False)
    message_id: str | None = field(default=None, repr=False)
    """By which it is one turn however often it is handed over; None where the framework gives none."""
    at: datetime | None = None


async def journal(user: UserMemory, messages: Iterable[SaidMessage], *, source: str, learn: bool) -> int:
    """Add messages to a user's journal, and return how many no turn can hold.

    Args:
        user: whose.
        messages: in the order in which they were said.
        source: short name of the framework, part of each key.
        learn: whether they may be learnt.
    """
    left_out = 0
    for message in messages:
        key = None if message.message_id is None else f"{source}:{_digest(message.session or '', message.message_id)}"
        try:
            await user.aadd(
                message.role,
                message.text,
                session=None if message.session is None else label_of(message.session),
                at=message.at,
                idempotency_key=key,
                learn=learn,
            )
        except (InvalidTurn, TurnTooLong):
            left_out += 1
    if left_out:
        logger.warning(
            "messages that no turn can hold were left out",
            extra={"action": "journal", "source": source, "left_out": left_out, "user": user.key.short_hash},
        )
    return left_out


def label_of(name: str) -> str:
    """Return a framework's name of a session as a label that a turn can carry."""
    return name if name.strip() and is_text(name, max_chars=MAX_LABEL_CHARS) else f"session-{_digest(name)}"


def _digest(*parts: str) -> str:
    sizes = (f"{len(part)}:{part}" for part in parts)
    return hashlib.sha256("".join(sizes).encode("utf-8", "surrogatepass")).hexdigest()[:40]

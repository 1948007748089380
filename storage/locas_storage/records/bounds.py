"""Owns the bounds of what every store takes: sizes, characters, integers, times, ids, plain JSON.

A message says how much of what kind was got, never the text itself.
"""

import datetime as dt
import os
import time
import uuid
from collections.abc import Mapping
from typing import Any

from locas_storage.errors import InvalidRevision, InvalidTurn, StorageError

MAX_TENANT_CHARS = 64
MAX_USER_CHARS = 200
MAX_LABEL_CHARS = 200
"""Limit of a turn's name, session and key."""
MAX_TURN_BYTES = 1 << 20
MAX_PAYLOAD_BYTES = 1 << 30
MAX_INTEGER = (1 << 63) - 1
"""Largest integer a database column holds."""


def check_query(text: str, limit: int) -> None:
    """Refuse a search that cannot be one.

    Raises:
        InvalidTurn: the text is no text or too long, or the limit is negative.
    """
    check_text("search text", text, max_chars=MAX_TURN_BYTES)
    check_integer("limit", limit, least=0)


def check_text(
    label: str,
    value: str,
    *,
    max_chars: int | None = None,
    may_be_blank: bool = True,
    error: type[StorageError] = InvalidTurn,
) -> None:
    """Refuse what is no text that every database keeps."""
    if not isinstance(value, str):
        raise error(f"{label}: got {type(value).__name__}, expected str")
    if not may_be_blank and not value.strip():
        raise error(f"{label}: got a blank string, expected at least one visible character")
    if max_chars is not None and len(value) > max_chars:
        raise error(f"{label}: got {len(value)} characters, expected at most {max_chars}")
    if "\x00" in value:
        raise error(f"{label}: holds a NUL character, which databases cut or refuse; remove it")
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise error(f"{label}: holds a lone surrogate, which is not text; decode the source with errors='replace'")


def is_text(value: str, *, max_chars: int) -> bool:
    """Tell whether `check_text` would take a value."""
    try:
        check_text("", value, max_chars=max_chars)
    except InvalidTurn:
        return False
    return True


def check_integer(
    label: str, value: int, *, least: int, most: int = MAX_INTEGER, error: type[StorageError] = InvalidTurn
) -> None:
    """Refuse what is no integer within bounds."""
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        shown = value if isinstance(value, int) else type(value).__name__
        raise error(f"{label}: got {shown}, expected an integer, {least} to {most}")


def check_span(from_seq: int, to_seq: int) -> None:
    """Refuse a span of turns that ends before it begins."""
    check_integer("from_seq", from_seq, least=1, error=InvalidRevision)
    check_integer("to_seq", to_seq, least=from_seq, error=InvalidRevision)


def check_time(label: str, value: dt.datetime) -> None:
    """Refuse a time without a zone, or that UTC cannot express."""
    if not isinstance(value, dt.datetime) or value.utcoffset() is None:
        raise InvalidTurn(
            f"{label}: got {type(value).__name__} without a time zone, expected an aware datetime; add tzinfo=UTC"
        )
    try:
        value.astimezone(dt.UTC)
    except OverflowError:
        raise InvalidTurn(f"{label}: outside the years 1 to 9999 in UTC") from None


def check_item_id(value: str) -> None:
    """Refuse what `new_item_id` does not make."""
    if not isinstance(value, str) or len(value) != 32 or not set(value) <= set("0123456789abcdef"):
        raise InvalidRevision("study item id: expected 32 lower-case hexadecimal digits; take one from new_item_id()")


def new_item_id() -> str:
    """Return a fresh UUIDv7 as 32 hexadecimal digits.

    Random, and later ids sort after earlier ones (by millisecond).
    """
    millis = time.time_ns() // 1_000_000
    value = (millis & (1 << 48) - 1) << 80 | int.from_bytes(os.urandom(10), "big")
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return uuid.UUID(int=value).hex


def plain_json(label: str, value: Mapping[str, Any]) -> dict[str, Any]:
    """Return a deep copy of a mapping that every JSON column keeps as it is.

    A diverged loss is a figure worth keeping, and JSON has no NaN: numbers that are not finite become 'nan', 'inf' or
    '-inf'.

    Raises:
        InvalidRevision: something in it is not plain JSON.
    """
    if not isinstance(value, Mapping):
        raise InvalidRevision(f"{label}: got {type(value).__name__}, expected a mapping")
    plain = _plain(label, value)
    assert isinstance(plain, dict)
    return plain


def _plain(label: str, value: object) -> object:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        check_text(label, value, error=InvalidRevision)
        return str(value)
    if isinstance(value, int):
        check_integer(label, value, least=-MAX_INTEGER, error=InvalidRevision)
        return int(value)
    if isinstance(value, float):
        # Adding zero turns -0.0, which one database keeps and another does not, into 0.0.
        return float(value) + 0.0 if abs(value) < float("inf") else str(float(value))
    if isinstance(value, Mapping):
        copied = {}
        for name, inner in value.items():
            if not isinstance(name, str):
                raise InvalidRevision(f"{label}: got a key of type {type(name).__name__}, expected str")
            check_text(label, name, error=InvalidRevision)
            copied[name] = _plain(label, inner)
        return copied
    if isinstance(value, list | tuple):
        return [_plain(label, inner) for inner in value]
    raise InvalidRevision(
        f"{label}: got a {type(value).__name__}, expected plain JSON; convert it to int, float or str"
    )

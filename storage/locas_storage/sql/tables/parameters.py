"""Owns what statements over many values share.

How many one may carry, how they are given, and which integers a column holds.
"""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, TypeVar

from locas_storage.records.bounds import MAX_INTEGER

T = TypeVar("T")
VALUES_PER_STATEMENT = 500
"""Databases limit how many values one statement may carry."""


def chunks(values: Iterable[T]) -> Iterator[list[T]]:
    """Cut values into pieces that one statement can carry."""
    rest = iter(values)
    while chunk := list(islice(rest, VALUES_PER_STATEMENT)):
        yield chunk


def clamped(number: int) -> int:
    """Keep a number within what a column holds; beyond it no row differs."""
    return max(-MAX_INTEGER, min(MAX_INTEGER, number))


def one_or_many(values: list[dict[str, Any]]) -> dict[str, Any] | list[dict[str, Any]]:
    """Return the parameters of an insert as the driver takes them best.

    A list of one would cost psycopg a round trip more.
    """
    return values[0] if len(values) == 1 else values

"""Owns what statements over many values share: how many one may carry, and which integers a column holds.

Knows no table.
"""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

from locas_storage.records import MAX_INTEGER

T = TypeVar("T")
_VALUES_PER_STATEMENT = 500
"""Databases limit how many values one statement may carry."""


def chunks(values: Iterable[T]) -> Iterator[list[T]]:
    """Cut values into pieces that one statement can carry."""
    rest = iter(values)
    while chunk := list(islice(rest, _VALUES_PER_STATEMENT)):
        yield chunk


def clamped(number: int) -> int:
    """Keep a number within what a column holds; beyond it no row differs."""
    return max(-MAX_INTEGER, min(MAX_INTEGER, number))

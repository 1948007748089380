"""The figures of a PG-19 run and the rows of its table. Knows only the finished streams."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any, Literal

from locas_agent.evaluation.pg19.streams import BookStream

Clock = Literal["seconds", "cpu_seconds"]
"""What relative times are of: wall time on a GPU, processor time on a CPU, which other work on the machine does not
change."""

MARKS = (50_000, 100_000, 150_000, 200_000)
"""Tokens after which perplexity is reported, cumulative and since the mark before."""


def clock_on(device: str) -> Clock:
    """Return the clock for a type of device."""
    return "cpu_seconds" if device == "cpu" else "seconds"


def perplexity(nll: float, tokens: int) -> float:
    """Return exp(nll / tokens); of a sum over all tokens, never a mean of exponentials, which reads too high."""
    return math.exp(nll / tokens)


def figures(arms: Mapping[str, BookStream], clock: Clock) -> dict[str, dict[str, Any]]:
    """Return the figures of each arm on one book.

    Args:
        arms: by name.
        clock: of the relative times.

    Returns:
        Per arm `nll` (sum, nats), `tokens`, `perplexity`, `parameters`, `seconds`, `cpu_seconds`, `relative_time` (to
        the arm `none`; null without it), `marks` and `chunks` (tokens and NLL of each).
    """
    found = {name: _figures(stream) for name, stream in arms.items()}
    for name, stream in arms.items():
        found[name] |= {
            "marks": _marks(stream),
            "chunks": [list(pair) for pair in zip(stream.tokens, stream.nll, strict=True)],
        }
    return _relative(found, clock)


def overall(books: Sequence[Mapping[str, Any]], clock: Clock) -> dict[str, dict[str, Any]]:
    """Return the figures of each arm over all books; NLL and tokens are summed first.

    `books_better` counts the books with a lower perplexity than `none`.
    """
    found: dict[str, dict[str, Any]] = {}
    for name in books[0]["arms"]:
        own = [book["arms"][name] for book in books]
        sums = {key: sum(each[key] for each in own) for key in ("nll", "tokens", "seconds", "cpu_seconds")}
        found[name] = {
            **sums,
            "perplexity": perplexity(sums["nll"], sums["tokens"]),
            "parameters": own[0]["parameters"],
        }
        if "none" in books[0]["arms"]:
            found[name]["books_better"] = sum(
                book["arms"][name]["perplexity"] < book["arms"]["none"]["perplexity"] for book in books
            )
    return _relative(found, clock)


COLUMNS = ("book", "arm", "tokens", "perplexity", "against none", "parameters", "seconds per 1,000", "relative time")


def pg19_rows(report: Mapping[str, Any]) -> list[list[object]]:
    """Return what people read, under `COLUMNS`: each book, then all."""
    rows: list[list[object]] = []
    for name, arms in [*((book["book"], book["arms"]) for book in report["books"]), ("all", report["overall"])]:
        for arm, own in arms.items():
            change = f"{100 * (own['perplexity'] / arms['none']['perplexity'] - 1):+.2f} %" if "none" in arms else None
            per_thousand = 1000 * own["seconds"] / own["tokens"]
            rows.append(
                [
                    name,
                    arm,
                    own["tokens"],
                    own["perplexity"],
                    change,
                    own["parameters"],
                    per_thousand,
                    own["relative_time"],
                ]
            )
    return rows


def _figures(stream: BookStream) -> dict[str, Any]:
    nll, tokens = math.fsum(stream.nll), sum(stream.tokens)
    return {
        "nll": nll,
        "tokens": tokens,
        "perplexity": perplexity(nll, tokens),
        "parameters": stream.parameters,
        "seconds": stream.seconds,
        "cpu_seconds": stream.cpu_seconds,
    }


def _relative(arms: dict[str, dict[str, Any]], clock: Clock) -> dict[str, dict[str, Any]]:
    """Add each arm's time over that of `none`."""
    for own in arms.values():
        own["relative_time"] = own[clock] / arms["none"][clock] if "none" in arms else None
    return arms


def _marks(stream: BookStream) -> list[dict[str, float]]:
    """Perplexity at each mark a book reaches, at the end of the chunk that reaches it."""
    tokens, nll = list(accumulate(stream.tokens, initial=0)), list(accumulate(stream.nll, initial=0.0))
    found: list[dict[str, float]] = []
    before = 0
    for mark in MARKS:
        at = next((at for at, seen in enumerate(tokens) if seen >= mark), None)
        if at is None:
            break
        bucket = perplexity(nll[at] - nll[before], tokens[at] - tokens[before])
        found.append({"tokens": mark, "cumulative": perplexity(nll[at], tokens[at]), "bucket": bucket})
        before = at
    return found

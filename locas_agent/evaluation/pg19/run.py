"""`eval pg19`: how well each arm foresees whole books while it reads them.

Every token is scored before anything is learnt from it.

Knows neither how an arm learns nor how figures are shown. NLL is summed over all tokens and exponentiated once.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from locas_agent.backbone import Backbone
from locas_agent.errors import ConfigurationError, ConsolidationError
from locas_agent.evaluation.pg19.data import Book, BookChunk, chunks_of, token_ids
from locas_agent.evaluation.pg19.learners import reader
from locas_agent.evaluation.pg19.options import Arm, Pg19Options
from locas_agent.evaluation.pg19.report import clock_on, figures, overall
from locas_agent.evaluation.pg19.streams import BookStream, Shelf
from locas_agent.types import Progress

CHECKPOINT_CHUNKS = 16
"""Chunks between two writings of a stream: a kill loses at most so many."""


def run_pg19(
    backbone: Backbone,
    books: Sequence[Book],
    options: Pg19Options,
    *,
    state: Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Let every arm read every book from its beginning.

    Args:
        backbone: reads; stays untouched.
        books: at least one.
        options: arms, window and how they learn.
        state: folder in which a run keeps how far it is; with the same one a stopped run goes on, and finished arms are
            not read again.
        progress: called after each chunk.

    Returns:
        The report: `books`, each with its `arms`, and `overall`; see `pg19_report`.

    Raises:
        ConfigurationError: a book shorter than the window, a window beyond the backbone's context, or a width beyond
            its FFN.
        ConsolidationError: an arm's NLL is not finite.
        ExchangeError: the state cannot be read or written.
        MissingExtra: PEFT is not installed.
    """
    if options.window_tokens + options.stride_tokens > backbone.context_tokens:
        raise ConfigurationError(
            f"a window of {options.window_tokens} and a stride of {options.stride_tokens} tokens exceed the "
            f"{backbone.context_tokens} "
            f"that {backbone.name!r} can attend to; give smaller ones"
        )
    ids = [
        token_ids(book, backbone, options.max_tokens) for book in books
    ]  # all of them first: a short one shall not be found after hours
    for book, tokens in zip(books, ids, strict=True):
        if len(tokens) <= options.window_tokens:
            raise ConfigurationError(
                f"book {book.name!r} has {len(tokens)} tokens, more than the window of {options.window_tokens} are "
                "needed; "
                "leave it out, or give a smaller window or a larger --max-tokens"
            )
    shelf, clock = Shelf(state), clock_on(backbone.device.type)
    for book in books:  # a damaged file neither
        for arm in options.arms:
            shelf.read(_name(backbone, book, arm, options))
    found = []
    for book, tokens in zip(books, ids, strict=True):
        chunks = chunks_of(tokens, window=options.window_tokens, stride=options.stride_tokens)
        arms: dict[str, BookStream] = {
            arm: _read(backbone, book, chunks, arm, options, shelf, progress) for arm in options.arms
        }
        found.append({"book": book.name, "sha256": book.sha256, "tokens": len(tokens), "arms": figures(arms, clock)})
    about = {
        "kind": "pg19",
        "backbone": backbone.name,
        "fingerprint": backbone.fingerprint,
        "device": backbone.device.type,
        "dtype": str(backbone.dtype),
    }
    return about | {
        "seed": options.seed,
        "options": options.model_dump(mode="json"),
        "books": found,
        "overall": overall(found, clock),
    }


def _read(
    backbone: Backbone,
    book: Book,
    chunks: Sequence[BookChunk],
    arm: Arm,
    options: Pg19Options,
    shelf: Shelf,
    progress: Progress | None,
) -> BookStream:
    """Read one book in one arm, from where a former run stopped."""
    name = _name(backbone, book, arm, options)
    stream, tensors = shelf.read(name)
    if len(stream.nll) == len(chunks):
        return stream
    own = reader(arm, backbone, chunks[0].input_ids, options)
    if stream.nll:
        own.restore(tensors)
    stream.parameters = own.parameter_count
    for number in range(len(stream.nll), len(chunks)):
        wall, cpu = time.perf_counter(), time.process_time()
        nll = own.read(chunks[number], number)
        if backbone.device.type == "cuda":
            torch.cuda.synchronize(backbone.device)  # the step is still under way there
        stream.seconds += time.perf_counter() - wall
        stream.cpu_seconds += time.process_time() - cpu
        if not math.isfinite(nll):
            raise ConsolidationError(
                f"{arm} gives no finite NLL in chunk {number} of book {book.name!r}; give it a smaller rate"
            )
        stream.tokens.append(len(chunks[number].targets))
        stream.nll.append(nll)
        is_last = number + 1 == len(chunks)
        if is_last or (number + 1) % CHECKPOINT_CHUNKS == 0:
            shelf.keep(name, stream, {} if is_last else own.state())
        if progress is not None:
            progress(f"{book.name}: {arm}", number + 1, len(chunks))
    return stream


def _name(backbone: Backbone, book: Book, arm: Arm, options: Pg19Options) -> str:
    """Name the stream of an arm on a book.

    Whatever its figures depend on changes the name, times and so the kind of device too.
    """
    about = [backbone.fingerprint, str(backbone.dtype), backbone.device.type, book.sha256, options.about(arm)]
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
    return f"{book.sha256[:12]}-{arm}-{digest[:16]}"

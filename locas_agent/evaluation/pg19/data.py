"""The books of `eval pg19`: plain text files, each one told apart by its digest."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from locas_agent.backbone import Backbone
from locas_agent.errors import ConfigurationError, ExchangeError


@dataclass(frozen=True, slots=True)
class Book:
    """One book.

    Attributes:
        name: its file's name without the ending.
        text: all of it.
        sha256: of the text in UTF-8.
    """

    name: str
    text: str
    sha256: str


@dataclass(frozen=True, slots=True)
class BookChunk:
    """A part of a book that is scored at once, with what may be looked at before it.

    Attributes:
        input_ids: window and chunk without the last token, which predicts nothing that is asked for.
        targets: the scored tokens, the last `len(targets)` that `input_ids` predicts.
    """

    input_ids: tuple[int, ...]
    targets: tuple[int, ...]


def book_of(name: str, text: str) -> Book:
    """Return a book of a text."""
    return Book(name, text, hashlib.sha256(text.encode("utf-8")).hexdigest())


def read_books(paths: Sequence[Path]) -> list[Book]:
    """Read books in the order given; a folder stands for its .txt files in the order of their names.

    Raises:
        ConfigurationError: no book, two of one name, or a file that is no UTF-8 text.
        ExchangeError: a file cannot be read.
    """
    files = [file for path in paths for file in (sorted(path.glob("*.txt")) if path.is_dir() else [path])]
    if not files:
        raise ConfigurationError("no book was found: name text files, or a folder that holds .txt files")
    books = [_read(file) for file in files]
    names = [book.name for book in books]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigurationError(f"two books are called {twice[0]!r}; a report names each once, so rename one file")
    return books


def token_ids(book: Book, backbone: Backbone, max_tokens: int | None) -> list[int]:
    """Cut a book into tokens once, and keep the first ones.

    Tokens depend on the text around them, so the whole is cut before anything is dropped.
    """
    return backbone.encode(book.text)[:max_tokens]


def chunks_of(ids: Sequence[int], *, window: int, stride: int) -> list[BookChunk]:
    """Divide a book into chunks that are scored once each.

    The book's first token has nothing before it and is not scored.

    Args:
        ids: the book's tokens, at least two.
        window: tokens before a chunk that the backbone sees, at most.
        stride: tokens of a chunk; the last one may be shorter.
    """
    chunks = []
    for start in range(0, len(ids), stride):
        end, scored = min(start + stride, len(ids)), max(start, 1)
        if scored < end:
            chunks.append(BookChunk(tuple(ids[max(0, start - window) : end - 1]), tuple(ids[scored:end])))
    return chunks


def _read(file: Path) -> Book:
    try:
        return book_of(file.stem, file.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{file.name} is no UTF-8 text; convert it first") from error
    except OSError as error:
        raise ExchangeError(f"cannot read the book {file.name}: {error.strerror or type(error).__name__}") from error

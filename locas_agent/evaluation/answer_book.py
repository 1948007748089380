"""The raw answers of a long evaluation, one JSON line each, so that a run that was stopped goes on where it was.

The first line says what the answers depend on. An answer names what it answers by numbers and digests: neither
questions nor golds are in the file, whose licence is the data's.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from locas_agent.errors import ConfigurationError, ExchangeError
from locas_agent.memory import LocasMemory
from locas_agent.memory.serialization import to_bytes


class Kept(Protocol):
    """What a book holds: a dataclass whose fields are JSON's."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def place(self) -> Hashable:
        """What it answers; one answer a place."""


Answer = TypeVar("Answer", bound=Kept)


class AnswerBook(Generic[Answer]):
    """Answers by what they answer, kept in a file if there is one."""

    def __init__(self, kind: type[Answer], about: dict[str, Any], path: Path | None = None) -> None:
        """Open a book, or make one.

        Args:
            kind: of its answers.
            about: what all of them depend on; a file made with another is refused.
            path: JSON lines; None keeps them in this process alone.

        Raises:
            ConfigurationError: the file is another run's, or no such file.
            ExchangeError: it cannot be read or written.
        """
        self._path = path
        self._given: dict[Hashable, Answer] = {}
        if path is None:
            return
        try:
            content = path.read_bytes() if path.exists() else b""
            if not content:
                _append(path, [about])
                return
            whole = content[: content.rfind(b"\n") + 1]
            self._given = {one.place: one for one in _read(kind, whole, about, path.name)}
            os.truncate(path, len(whole))  # what a killed process left of a line
        except OSError as error:
            raise ExchangeError(
                f"cannot open {path.name!r} for answers: {error.strerror or type(error).__name__}"
            ) from error

    def __contains__(self, place: Hashable) -> bool:
        """Whether this was answered."""
        return place in self._given

    def __getitem__(self, place: Hashable) -> Answer:
        """Return the answer."""
        return self._given[place]

    def add(self, given: Sequence[Answer]) -> None:
        """Keep answers; when the call returns they are on the disk.

        Raises:
            ExchangeError: they cannot be written.
        """
        if self._path is not None:
            try:
                _append(self._path, [asdict(one) for one in given])
            except OSError as error:
                raise ExchangeError(
                    f"cannot write answers to {self._path.name!r}: {error.strerror or type(error).__name__}"
                ) from error
        self._given |= {one.place: one for one in given}


def digest_of(memory: LocasMemory | None) -> str:
    """Return by what an answer names the memory that gave it: the SHA-256 of its bytes; nothing for none."""
    return "" if memory is None else hashlib.sha256(to_bytes(memory)).hexdigest()


def _read(kind: type[Answer], content: bytes, about: dict[str, Any], name: str) -> list[Answer]:
    """Return the answers of finished lines.

    Raises:
        ConfigurationError: they are no answers of this kind, or another run's.
    """
    try:
        found, *rows = [json.loads(line) for line in content.splitlines()]
        given = [kind(**row) for row in rows]
        differing = [key for key, value in json.loads(json.dumps(about)).items() if found[key] != value]
    except (ValueError, TypeError, KeyError) as error:
        raise ConfigurationError(f"{name!r} does not hold answers of such a run: name a new file") from error
    if differing:
        raise ConfigurationError(
            f"the answers in {name!r} are another run's, it differs in {', '.join(differing)}: name a new file, or "
            "repeat that run"
        )
    return given


def _append(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    text = "".join(json.dumps(row, ensure_ascii=True) + "\n" for row in rows)
    with path.open("a", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())

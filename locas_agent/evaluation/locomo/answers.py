"""The raw answers of a LoCoMo run, one JSON line each, so that a run that was stopped goes on where it was.

The first line says what the run was; an answer names its question by conversation and number, and holds neither the
question nor the gold, whose licence is the data's.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from locas_agent.errors import ConfigurationError, ExchangeError

OPEN = "open"
"""The question as it is, answered freely."""
TRAP_FIRST, TRAP_SECOND = "trap first", "trap second"
"""Category 5 with two answers to choose from, in either order."""


@dataclass(frozen=True, slots=True)
class Given:
    """One answer."""

    dialogue: str
    question: int
    arm: str
    form: str
    answer: str
    prompt_tokens: int

    @property
    def place(self) -> Place:
        """What it answers."""
        return (self.dialogue, self.question, self.arm, self.form)


Place = tuple[str, int, str, str]


class AnswerBook:
    """Answers by what they answer, kept in a file if there is one."""

    def __init__(self, about: dict[str, Any], path: Path | None = None) -> None:
        """Open a book, or make one.

        Args:
            about: what the answers depend on; a file made with another is refused.
            path: JSON lines; None keeps them in this process alone.

        Raises:
            ConfigurationError: the file is another run's, or no such file.
            ExchangeError: it cannot be read or written.
        """
        self._path = path
        self._given: dict[Place, Given] = {}
        if path is None:
            return
        try:
            content = path.read_bytes() if path.exists() else b""
            if not content:
                _append(path, [about])
                return
            whole = content[: content.rfind(b"\n") + 1]
            self._given = _read(whole, about, path.name)
            os.truncate(path, len(whole))  # what a killed process left of a line
        except OSError as error:
            raise ExchangeError(
                f"cannot open {path.name!r} for answers: {error.strerror or type(error).__name__}"
            ) from error

    def __contains__(self, place: Place) -> bool:
        """Whether this was answered."""
        return place in self._given

    def __getitem__(self, place: Place) -> Given:
        """Return the answer."""
        return self._given[place]

    def add(self, given: Sequence[Given]) -> None:
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


def _read(content: bytes, about: dict[str, Any], name: str) -> dict[Place, Given]:
    """Return the answers of finished lines.

    Raises:
        ConfigurationError: they are no answers, or another run's.
    """
    try:
        found, *rows = [json.loads(line) for line in content.splitlines()]
        given = [Given(**row) for row in rows]
        differing = [key for key, value in json.loads(json.dumps(about)).items() if found[key] != value]
    except (ValueError, TypeError, KeyError) as error:
        raise ConfigurationError(f"{name!r} does not hold answers of a LoCoMo run: name a new file") from error
    if differing:
        raise ConfigurationError(
            f"the answers in {name!r} are another run's, it differs in {', '.join(differing)}: name a new file, or "
            "repeat that run"
        )
    return {one.place: one for one in given}


def _append(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    text = "".join(json.dumps(row, ensure_ascii=True) + "\n" for row in rows)
    with path.open("a", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())

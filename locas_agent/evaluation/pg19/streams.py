"""How far each arm has read each book: NLL by chunk, times, and what a stopped run needs to go on.

Files are safetensors; none holds text of a book.

Parameters are named tensors here. A file's name says which book, arm and settings it is of, so runs that share
an arm share its file.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from locas_agent.errors import ExchangeError


@dataclass(slots=True)
class BookStream:
    """One arm on one book, as far as it has come.

    Attributes:
        tokens: scored tokens of each chunk.
        nll: sum of each chunk's NLL, nats.
        parameters: numbers the arm trains.
        seconds: wall time, scoring and learning.
        cpu_seconds: processor time of this process for the same; other work on the machine does not count.
    """

    tokens: list[int] = field(default_factory=list)
    nll: list[float] = field(default_factory=list)
    parameters: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0


class Shelf:
    """Streams in a folder; without one nothing is kept."""

    def __init__(self, folder: Path | None) -> None:
        """Take a folder, and make it if need be.

        Raises:
            ExchangeError: it cannot be made.
        """
        self._folder = folder
        if folder is not None:
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise ExchangeError(
                    f"--state: cannot make the folder {folder.name!r}: {error.strerror or type(error).__name__}"
                ) from error

    def read(self, name: str) -> tuple[BookStream, dict[str, Tensor]]:
        """Return what was kept under a name, and the learner's tensors; an empty stream where there is nothing.

        Raises:
            ExchangeError: the file is damaged.
        """
        path = self._path(name)
        if path is None or not path.exists():
            return BookStream(), {}
        try:
            with safe_open(path, framework="pt") as opened:
                tensors, about = {key: opened.get_tensor(key) for key in opened.keys()}, opened.metadata()
            if about["sha256"] != _digest(about["stream"], tensors):
                raise ValueError("other bytes than were written")
            return BookStream(**json.loads(about["stream"])), tensors
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            raise ExchangeError(
                f"--state: {path.name} cannot be read ({type(error).__name__}); remove it to read that book anew"
            ) from error

    def keep(self, name: str, stream: BookStream, tensors: Mapping[str, Tensor]) -> None:
        """Replace what is kept under a name; a kill in between leaves the former file.

        Raises:
            ExchangeError: the file cannot be written.
        """
        path = self._path(name)
        if path is None:
            return
        fresh = path.with_suffix(".new")
        try:
            told = json.dumps(asdict(stream))
            save_file(dict(tensors), fresh, metadata={"stream": told, "sha256": _digest(told, tensors)})
            os.replace(fresh, path)
        except (SafetensorError, OSError) as error:
            raise ExchangeError(f"--state: cannot write {path.name} ({type(error).__name__})") from error

    def _path(self, name: str) -> Path | None:
        return None if self._folder is None else self._folder / f"{name}.safetensors"


def _digest(told: str, tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of what a file says and of its tensors' bytes, hexadecimal."""
    digest = hashlib.sha256(told.encode())
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].contiguous().numpy().tobytes())
    return digest.hexdigest()

"""Files that hold one JSON object a line: people of talk, passages."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from locas_agent.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class LinedFile:
    """A file's text, and the SHA-256 of its bytes, hexadecimal."""

    name: str
    digest: str
    text: str = field(repr=False)

    def lines(self) -> Iterator[tuple[str, str]]:
        """Yield where each line stands that is not empty, and the line."""
        for number, line in enumerate(self.text.split("\n"), 1):
            if line.strip():
                yield f"{self.name}, line {number}", line


def read_json_lines(path: Path, *, each: str) -> LinedFile:
    """Read one file.

    Args:
        path: of the file.
        each: what a line holds, such as "a person".

    Raises:
        ConfigurationError: it cannot be read.
    """
    try:
        content = path.read_bytes()
        return LinedFile(path.name, hashlib.sha256(content).hexdigest(), content.decode("utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"{path.name}: no text that can be read ({type(error).__name__}); give a file in UTF-8, {each} a line"
        ) from error

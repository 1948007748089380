"""Passages with questions: JSON lines, a passage each, read strictly.

A line holds `id, title, context, questions: [{question, answer}]`, as SQuAD's paragraphs do. Messages name the file,
the line and the place in it, and never a text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from locas_agent.errors import ConfigurationError
from locas_agent.evaluation.json_lines import read_json_lines

Text = Annotated[str, Field(pattern=r"\S")]
"""Text with something in it."""


class _Read(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, use_attribute_docstrings=True)


class PassageQuestion(_Read):
    """What is asked about a passage, and what is right."""

    question: Text
    """The question, which says by itself what it is about."""
    answer: Text
    """The words of the passage that answer it."""


class Passage(_Read):
    """One passage."""

    id: Text
    """Its id, one of its kind in a file."""
    title: Text
    """What the passage is about."""
    context: Text
    """The text itself."""
    questions: tuple[PassageQuestion, ...] = Field(min_length=1)
    """What is asked about it."""


@dataclass(frozen=True, slots=True)
class PassageFile:
    """The passages of one file, and the SHA-256 of its bytes, hexadecimal."""

    name: str
    digest: str
    passages: tuple[Passage, ...]


def read_passages(path: Path) -> PassageFile:
    """Read one file.

    Raises:
        ConfigurationError: it cannot be read, a line is no such passage, or two passages have one id.
    """
    file = read_json_lines(path, each="a passage")
    passages: dict[str, Passage] = {}
    for where, line in file.lines():
        passage = _passage(line, where)
        if passage.id in passages:
            raise ConfigurationError(f"{where}: a passage of the same id stands above; give each an id of its own")
        passages[passage.id] = passage
    if not passages:
        raise ConfigurationError(f"{path.name} holds no passage; give a file with a passage a line")
    return PassageFile(file.name, file.digest, tuple(passages.values()))


def drawn(passages: Sequence[Passage], limit: int | None, *, seed: int) -> tuple[Passage, ...]:
    """Return so many passages in an order drawn by the seed; all of them in that order without a limit.

    Neighbours in a file are of one article: the first of them would ask about one subject only.
    """
    return tuple(Random(seed).sample(list(passages), len(passages)))[:limit]


def _passage(line: str, where: str) -> Passage:
    try:
        return Passage.model_validate_json(line, strict=True)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
        at = ".".join(str(part)[:40] for part in first["loc"]) or "the line"
        raise ConfigurationError(
            f"{where}: {at}: {first['msg']}; a line holds id, title, context and questions, see docs/passages.md"
        ) from None  # the original shows the line

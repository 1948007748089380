"""What the command prints: tables, JSON, progress bars.

One place decides what goes to standard output and what to standard error.

Text of a turn is shown with control characters made visible.
"""

from __future__ import annotations

import json
import math
import os
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from locas_agent.types import Progress as ProgressCall
from locas_storage import LocasError, Revision, Turn

STDOUT = "-"
"""As a path of `--json`: standard output, on which nothing else is printed then."""
PIPED_COLUMNS = 4000
"""Width of a table that is not printed to a terminal, so that `grep` finds whole lines."""

_INVISIBLE = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}

"""Called with (stage, done, total)."""


class OutputFailed(LocasError):
    """The file named by `--json` could not be written."""


QUIET = {
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_VERBOSITY": "error",
    "DATASETS_VERBOSITY": "error",
    "PYTHONWARNINGS": "ignore",
}
WITHOUT_BARS = {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1", "TQDM_DISABLE": "1"}


def keep_libraries_quiet() -> None:
    """Keep notes of the libraries off standard error, and their bars where it is no terminal.

    It holds in processes begun from here too.

    To be called before any of them is imported, by a process that is the command's own: a package that is imported into
    somebody's program does not choose for it. What the environment asks for stands.
    """
    for name, value in (QUIET if sys.stderr.isatty() else QUIET | WITHOUT_BARS).items():
        os.environ.setdefault(name, value)
    if os.environ["PYTHONWARNINGS"] == "ignore" and not sys.warnoptions:
        warnings.simplefilter("ignore")


def visible(text: str) -> str:
    """Return text that cannot steer a terminal: an escape becomes four plain characters."""
    return text.translate(_INVISIBLE)


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> Table:
    """Return a plain table; numbers stand on the right, None is a dash."""
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for index, column in enumerate(columns):
        numeric = bool(rows) and all(row[index] is None or isinstance(row[index], int | float) for row in rows)
        made.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        made.add_row(*(Text(_cell(value)) for value in row))
    return made


def deliver(path: str | None, data: object, *shown: RenderableType) -> None:
    """Write `data` as JSON where `--json` says; show the rest on standard output unless the JSON goes there.

    Raises:
        OutputFailed: the file cannot be written.
    """
    if path != STDOUT:
        console = Console(width=None if sys.stdout.isatty() else PIPED_COLUMNS, highlight=False)
        for renderable in shown:
            console.print(renderable, markup=False)
    if path is None:
        return
    text = json.dumps(_plain(data), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    if path == STDOUT:
        sys.stdout.write(text)
        return
    try:
        Path(path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise OutputFailed(f"--json: cannot write {path}: {error.strerror}") from error


@contextmanager
def progress_bar() -> Iterator[ProgressCall | None]:
    """Give a callback that draws bars on standard error, or None where that is no terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        stages: dict[str, TaskID] = {}

        def show(stage: str, done: int, total: int) -> None:
            if stage not in stages:
                stages[stage] = bars.add_task(stage, total=total)
            bars.update(stages[stage], completed=done, total=total)

        yield show


def turn_facts(turn: Turn) -> dict[str, Any]:
    """Return what JSON says of a turn; its idempotency key is called `key` there."""
    names = {"idempotency_key": "key"}
    return {names.get(field.name, field.name): getattr(turn, field.name) for field in fields(turn)}


def revision_facts(revision: Revision) -> dict[str, Any]:
    """Return what is shown of a revision."""
    after = revision.metrics.after
    return {
        "number": revision.number,
        "parent": revision.parent,
        "restores": revision.restores,
        "from_seq": revision.from_seq,
        "to_seq": revision.to_seq,
        "created_at": revision.created_at,
        "probe_recall": after and after.probe_recall,
        "drift_nats": after and after.drift_nats,
        "payload_bytes": revision.payload_bytes,
        "state": revision.state,
    }


def revision_table(revisions: Sequence[Revision]) -> Table:
    """Return the table of a user's revisions, oldest first."""
    rows = []
    for revision in revisions:
        facts = revision_facts(revision)
        span = "-" if revision.to_seq < revision.from_seq else f"{revision.from_seq}-{revision.to_seq}"
        rows.append([facts[name] if name != "span" else span for name in _REVISION_COLUMNS])
    return table(list(_REVISION_COLUMNS.values()), rows)


_REVISION_COLUMNS = {
    "number": "revision",
    "parent": "parent",
    "restores": "restores",
    "span": "turns",
    "created_at": "created",
    "probe_recall": "probe recall",
    "drift_nats": "drift (nats)",
    "payload_bytes": "bytes",
    "state": "state",
}


def _cell(value: object) -> str:
    match value:
        case None:
            return "-"
        case float():
            return f"{value:.4f}"
        case datetime():
            return value.strftime("%Y-%m-%d %H:%M:%S")
        case _:
            return visible(str(value))


def _plain(value: object) -> object:
    """Return what JSON can hold: records as objects, times in ISO form, a number that is not finite as its name."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value

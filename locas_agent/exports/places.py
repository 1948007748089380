"""Where an export is put: under its name only when it is complete, and readable by its owner alone."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp

from safetensors import SafetensorError

from locas_agent.errors import ExchangeError


def check_free(path: str | Path) -> Path:
    """Return the absolute path of an export that is about to be written.

    Raises:
        ExchangeError: something is there, or the folder it would lie in is not.
    """
    place = Path(path).expanduser().absolute()
    if place.exists() or place.is_symlink():
        raise ExchangeError(
            f"{place.name!r} is there already; an export overwrites nothing: remove it, or name another place"
        )
    if not place.parent.is_dir():
        raise ExchangeError(f"there is no folder {str(place.parent)!r} to put {place.name!r} into")
    return place


@contextmanager
def placed(place: Path) -> Iterator[Path]:
    """Give a path to write a file or a folder to, and give that its name when the block ends.

    After an error nothing is left.

    What is being written lies in a folder of mode 0700 beside its place, on the same file system: renaming is one step.

    Args:
        place: from `check_free`.

    Raises:
        ExchangeError: the place or the disk refuses the writing.
    """
    try:
        folder = Path(mkdtemp(prefix=".locas-export-", dir=place.parent))
        try:
            draft = folder / place.name
            yield draft
            draft.chmod(0o700 if draft.is_dir() else 0o600)
            draft.rename(place)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    except (OSError, SafetensorError) as error:  # the latter when the disk refuses a tensor file
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise ExchangeError(f"cannot write {place.name!r}: {reason}") from error

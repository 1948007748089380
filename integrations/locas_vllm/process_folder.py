"""A folder that belongs to one process, and is removed by the next one when that process has ended, however it ended.

What lies in it is personal data: it must not outlive who watches over it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from pathlib import Path
from tempfile import mkdtemp

_PREFIX = "locas-adapters-"
_LOCK = ".lock"


class ProcessFolder:
    """A fresh folder of mode 0700, held by a lock that the system lets go of with the process.

    Args:
        parent: where it is made; folders of ended processes that lie there are removed.
    """

    def __init__(self, parent: Path) -> None:
        for left in parent.glob(f"{_PREFIX}*"):
            _remove_if_left(left)
        self.path = Path(mkdtemp(prefix=_PREFIX, dir=parent))
        self._lock = os.open(self.path / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)

    def close(self) -> None:
        """Remove the folder with all that is in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


def _remove_if_left(folder: Path) -> None:
    """Remove a folder whose process has ended; one that is being made or whose process is alive stays."""
    try:
        lock = os.open(folder / _LOCK, os.O_RDWR)
    except OSError:
        return  # it has no lock yet: its process has just begun
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
    except BlockingIOError:
        pass
    finally:
        os.close(lock)

"""Files of the user's cache folder: what this machine worked out about a backbone once, and need not again.

They hold nothing that anybody said. Who reads one checks it, since anything may have happened to it.
"""

from __future__ import annotations

import logging
import os
import tempfile
from pathlib import Path

from platformdirs import user_cache_path

logger = logging.getLogger(__name__)


def place_of(kind: str, name: str) -> Path:
    """Return where a file of a kind is kept; neither it nor its folder need be there."""
    return Path(user_cache_path("locas-agent", appauthor=False)) / kind / name


def keep(path: Path, data: bytes, *, what: str, action: str) -> None:
    """Write a file whole or not at all. Where it cannot be written, that is logged, and it is worked out again.

    Args:
        path: from `place_of`.
        data: what is kept.
        what: it is, for the log.
        action: what the log calls the work.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, suffix=".part")
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        Path(name).replace(path)
    except OSError as error:
        logger.warning("%s not kept", what, extra={"action": action, "reason": type(error).__name__})

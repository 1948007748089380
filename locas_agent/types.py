"""Types that many modules share, and the version of the code."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version

try:
    CODE_VERSION = version("locas-agent")
except PackageNotFoundError:
    CODE_VERSION = "unknown"


DEFAULT_STORE = "sqlite:///locas.db"
"""Where a store is unless it is said: an SQLite file in the working directory."""

Progress = Callable[[str, int, int], None]
"""`progress(stage, done, total)`: what is being done, and how much of how much is. What it raises ends the work."""

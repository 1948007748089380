"""How long work tells how far it is. Knows nothing of the work."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""`progress(stage, done, total)`: what is being done, and how much of how much is. What it raises ends the work."""

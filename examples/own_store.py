"""A store of one's own: each user is one JSON file of a folder. It passes every public case of `locas_storage`.

    python examples/own_store.py FOLDER      # tells one fact, opens the folder again, and shows what it holds

For one process. `InMemoryStore` applies the rules; this class says where a user is kept. A database server needs a
store that writes rows: see docs/extending.md.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from pydantic import ConfigDict, TypeAdapter

from locas_agent import AgentMemory
from locas_storage import InMemoryStore, UserData, UserKey

_BYTES_IN_TEXT = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")
_FILE = TypeAdapter(list[UserData], config=_BYTES_IN_TEXT)


class FolderStore(InMemoryStore):
    """A `MemoryStore` in a folder, one file for each user, named by the digest of tenant and user.

    Args:
        folder: made if it is not there; its files are personal data.
    """

    def __init__(self, folder: str | Path) -> None:
        self._folder = Path(folder)
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        kept = [data for path in self._folder.glob("*.json") for data in _FILE.validate_json(path.read_bytes())]
        super().__init__(kept=kept, save=self._write)

    def _write(self, data: UserData) -> None:
        """Replace a user's file: a process that is killed here leaves the former one whole."""
        path = self._folder / f"{data.state.key.digest}.json"
        written = path.with_suffix(".part")
        with written.open("wb") as file:
            file.write(_FILE.dump_json([data]))
            file.flush()
            os.fsync(file.fileno())
        written.replace(path)


def main(folder: str) -> None:
    with AgentMemory.load(store=FolderStore(folder)) as memory:
        memory.for_user("ada").add("user", "My dog is called Zorbin.")
    again = FolderStore(folder)
    for turn in again.search(UserKey("default", "ada"), "dog"):
        print(f"turn {turn.seq}: {turn.content}")


if __name__ == "__main__":
    main(sys.argv[1])

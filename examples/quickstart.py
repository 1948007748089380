"""Two people tell one fact each, the process ends, and a new one answers from the weights alone.

No turn is in its prompts.

    python examples/quickstart.py                    # bundled backbone, on CPU, a database in a temporary folder

Ends with code 0 if each was answered from their own memory and neither from the other's.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from locas_agent import AgentMemory
from locas_agent.errors import UnsupportedBackbone

TOLD = {"ada": "My dog is called Zorbin.", "ben": "My locker opens with 4071."}
ASKED = {"ada": "What is my dog called?", "ben": "With which code does my locker open?"}
ANSWER = {"ada": "Zorbin", "ben": "4071"}


def tell(backbone: str, store: str) -> bool:
    """Journal one turn of each, and learn both side by side."""
    with AgentMemory.load(backbone, store) as memory:
        for name, text in TOLD.items():
            memory.for_user(name).add("user", text)
            print(f"{name}: {text}")
        results = memory.consolidate_many(list(TOLD), flush=True)
        for name, result in zip(TOLD, results, strict=True):
            print(f"{name}'s memory: {result.status} {result.detail}".rstrip())
    return all(result.admitted for result in results)


def ask(backbone: str, store: str) -> bool:
    """Put both questions to both memories; each must answer its own and not the other's."""
    right = True
    with AgentMemory.load(backbone, store) as memory:
        for name in TOLD:
            for owner, text in ASKED.items():
                found = memory.for_user(name).recall(text)
                sources = ", ".join(f"turn {turn.seq}" for turn in found.citations) or "no turn"
                print(f"asked of {name}'s memory: {text} -> {found.answer} (from {sources})")
                right &= (ANSWER[owner] in found.answer) == (name == owner)
    return right


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--backbone", default="tiny", help="'tiny' (bundled), a folder, or a hub id")
    parser.add_argument("--store", help="database of an earlier run: ask only")
    arguments = parser.parse_args()
    if arguments.store:
        sys.exit(
            0
            if ask(arguments.backbone, arguments.store)
            else "A memory did not answer its own question, or answered the other's."
        )
    with tempfile.TemporaryDirectory() as folder:
        store = f"sqlite:///{Path(folder) / 'locas.db'}"
        try:
            is_learnt = tell(arguments.backbone, store)
        except UnsupportedBackbone as error:
            sys.exit(f"This backbone cannot learn: {error}")
        if not is_learnt:
            sys.exit("The admission gate refused a memory: this backbone did not learn what it was told.")
        print("-- a new process --", flush=True)
        again = [sys.executable, __file__, "--backbone", arguments.backbone, "--store", store]
        sys.exit(subprocess.run(again, check=False).returncode)


if __name__ == "__main__":
    main()

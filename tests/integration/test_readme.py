"""The code of the README runs as it stands, in an empty folder. Knows nothing of what the verbs answer."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from locas_storage import UserKey, open_store

ROOT = Path(__file__).resolve().parents[2]


def code_blocks() -> list[str]:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return [block.partition("\n```")[0] for block in text.split("```python\n")[1:]]


def test_code_of_the_readme_runs(tmp_path: Path) -> None:
    (code,) = code_blocks()
    # The paths of this process: the suite also runs on a checkout that is not installed.
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, check=False, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["locas.db"]
    store = open_store(f"sqlite:///{tmp_path / 'locas.db'}")
    turns = store.turns(UserKey("default", "ada"))
    store.close()
    assert [turn.role for turn in turns] == ["user", "user", "assistant"]
    assert [turn.content for turn in turns[:2]] == ["My dog is called Rex.", "What is my dog called?"]
    assert "Rex" in turns[2].content  # still in the window

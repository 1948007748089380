"""The worked example of rewarded answers on the bundled backbone, in a process of its own: the reward rises."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests import forked

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.skipif(find_spec("trl") is None, reason="needs the extra grpo")
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_reward_rises_and_the_bare_backbone_earns_none() -> None:
    done = forked.run(str(ROOT / "examples" / "grpo_memory.py"), "--steps", "16", timeout=580)
    assert done.returncode == 0, done.stderr[-2000:]
    found = re.findall(r"bare backbone ([\d.]+), memory ([\d.]+), after GRPO ([\d.]+)", done.stdout)
    (_, plain, plain_after), (bare, before, after) = [[float(value) for value in row] for row in found]
    assert bare == 0.0
    assert after > before
    assert plain_after > plain - 0.1  # what was answered before is still answered

"""docs/method.md: whatever it names in code font is there."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from locas_agent.backbone import Backbone

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "method.md").read_text(encoding="utf-8")


def found(dotted: str) -> Any:
    """Resolve `module.name.attribute` below locas_agent, or below its public names."""
    parts = dotted.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            thing: Any = importlib.import_module(".".join(["locas_agent", *parts[:cut]]))
        except ModuleNotFoundError:
            continue
        break
    else:
        thing, cut = importlib.import_module("locas_agent"), 0
    for part in parts[cut:]:
        fields = getattr(thing, "model_fields", {})
        thing = fields[part] if part in fields else getattr(thing, part)
    return thing


def test_every_module_and_function_of_the_page_exists() -> None:
    prose = re.sub(r"```.*?```", "", PAGE, flags=re.DOTALL)
    dotted = {
        name for name in re.findall(r"`([A-Za-z_]+(?:\.[A-Za-z_]+)+)`", prose) if not name.endswith((".md", ".json"))
    }
    assert len(dotted) > 30  # it did look
    for name in sorted(dotted):
        assert found(name) is not None, name
    for path in re.findall(r"`(tests/[\w/.]+)`", PAGE):
        assert (ROOT / path).is_file(), path


@pytest.mark.rounding
def test_example_of_the_page_runs() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    backbone = Backbone.load("tiny")
    ids = torch.tensor([backbone.encode("My dog is called Rex. My cat is called Mog.")])
    names: dict[str, Any] = {"input_ids": ids}
    exec(compile(code, "method.md", "exec"), names)
    assert names["memory"].grad.abs().max() > 0
    with torch.no_grad():
        torch.testing.assert_close(
            names["dense"](input_ids=ids).logits, backbone.model(input_ids=ids).logits, atol=1e-4, rtol=1e-4
        )  # new: no effect

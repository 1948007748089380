"""Which tests run a model.

What they see can hang on how a processor rounds, so `make test-rounding` repeats them under other roundings.

A test is marked `rounding` when a fixture that it asks for holds a model, or when it stands in a folder of `FOLDERS`,
whose tests build models of their own or start processes that do. An unmarked test in which a model runs fails.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from torch.nn import Module
from torch.nn.modules.module import register_module_forward_pre_hook
from transformers import PreTrainedModel

HOLD_A_MODEL = {"make_backbone", "make_backbone_folder", "process_pool", "with_tools"}
"""The fixtures at the bottom: whatever else holds a model asks for one of them, and pytest names them all."""
TESTS = Path(__file__).parent
FOLDERS = {
    TESTS / "conformance",
    TESTS / "integration",
    *(
        TESTS / "unit" / folder
        for folder in ("backbone", "benchmarks", "core", "exports", "inference", "memory", "paper", "study", "training")
    ),
}


@pytest.hookimpl(tryfirst=True)  # before pytest chooses by -m
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test that runs a model."""
    for item in items:
        if FOLDERS & set(item.path.parents) or HOLD_A_MODEL & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.rounding)


@pytest.fixture(autouse=True)
def _model_runs_in_marked_tests_only(request: pytest.FixtureRequest) -> Iterator[None]:
    if request.node.get_closest_marker("rounding") is not None:
        yield
        return
    ran: list[str] = []

    def watch(module: Module, _: object) -> None:
        if isinstance(module, PreTrainedModel):
            ran.append(type(module).__name__)

    watching = register_module_forward_pre_hook(watch)
    yield
    watching.remove()
    assert not ran, f"{ran[0]} ran in a test without the mark: set `pytestmark = pytest.mark.rounding`"

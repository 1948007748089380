"""The public conformance suite, over every store of ours."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

import locas_storage.conformance
from locas_storage.conformance import *  # noqa: F403  the cases, collected by pytest from here


def test_every_case_is_public() -> None:
    cases = locas_storage.conformance
    modules = [import_module(f"{cases.__name__}.{found.name}") for found in iter_modules(cases.__path__)]
    written = {name for module in modules for name in vars(module) if name.startswith("test_")}
    assert written == set(cases.__all__)
    assert len(written) > 20

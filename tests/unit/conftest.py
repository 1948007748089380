"""What tests of several folders share."""

from __future__ import annotations

import pytest

from locas_agent.inference import Engine
from tests.unit.core.deep import deep


@pytest.fixture(scope="module")
def llama() -> Engine:
    """A random backbone of four layers; one for each file, since some change its methods for a while."""
    return deep("llama")

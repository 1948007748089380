"""Types that many modules share, and the version of the code."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

try:
    CODE_VERSION = version("locas-agent")
except PackageNotFoundError:
    CODE_VERSION = "unknown"


DEFAULT_STORE = "sqlite:///locas.db"
"""Where a store is unless it is said: an SQLite file in the working directory."""

Dtype = Literal["float32", "bfloat16", "float16", "auto"]
"""Dtype of a backbone's weights and of its computation; "auto" is measured, see `Backbone.load`."""

NeuronChoice = Literal["highest", "lowest", "random", "random_index"]
"""How the first rows of a memory are chosen: cloned from ranked neurons or from any, or Gaussian ("random")."""

Initialization = Literal[NeuronChoice, "inputs"]
"""What the rows of a memory start from: names of the reference implementation, and "inputs", which is ours."""

LinearLayers = Literal["all", "ffn", "attention"]
"""Which linear layers of a decoder an adapter stands beside: all, those of the FFNs, or those of the attention."""

ScaleRule = Literal["width", "sqrt", "none"]
"""What the output scale is divided by: the width (the paper's), its root, or nothing."""

Progress = Callable[[str, int, int], None]
"""`progress(stage, done, total)`: what is being done, and how much of how much is. What it raises ends the work."""

"""What a consolidation says beside its decision: what was not covered, dropped, left out, or not followed.

Each remark is a sentence of numbers, without content.
"""

from __future__ import annotations

from locas_agent.config import MemorySettings
from locas_agent.memory import LocasMemory
from locas_agent.memory.placement import placement
from locas_agent.memory.slab import topmost
from locas_agent.study.items import Coverage


def of_coverage(coverage: Coverage) -> list[str]:
    """Say how much of what was told got no question, and how much of what was written could not be kept."""
    said = []
    if 0 < coverage.covered < coverage.carrying:
        said.append(
            f"{coverage.covered} of {coverage.carrying} turns that carry a fact got a question that held; what the "
            "others tell is not recalled"
        )
    if coverage.dropped:
        said.append(f"{coverage.dropped} questions were dropped, since no store keeps what the backbone wrote there")
    return said


def of_turns(left_out: int) -> list[str]:
    """Say how many turns the teacher did not read."""
    if not left_out:
        return []
    return [
        f"{left_out} turns were left out: by their trust (settings sources), or because the backbone's chat template "
        "refuses their text"
    ]


def of_shape(memory: LocasMemory | None, settings: MemorySettings, *, n_layers: int) -> list[str]:
    """Say that a memory that exists keeps its shape, whatever the settings ask for.

    Args:
        memory: the one that learns on; None where a new one is begun, which has the shape asked for.
        settings: what is asked for; a width of None asks for none.
        n_layers: of the backbone.
    """
    if memory is None:
        return []
    width, layers = settings.width or memory.width, placement(settings.layers, n_layers)
    if (memory.width, memory.layers) == (width, layers):
        return []
    return [
        f"the memory keeps its {memory.width} slots beside {_said(memory.layers, n_layers)}, {width} beside "
        f"{_said(layers, n_layers)} are asked for: memory.width and memory.layers shape new memories only; rollback(0) "
        "and another consolidation begin one"
    ]


def _said(layers: tuple[int, ...], n_layers: int) -> str:
    """Say which layers: how many where they are the topmost, else their numbers."""
    if layers == topmost(len(layers)):
        return f"{len(layers)} layers"
    return "layers " + ", ".join(str(n_layers + layer) for layer in layers)

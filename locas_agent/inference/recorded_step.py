"""One more token of every row in places that never move, so that a GPU can record the step once and repeat it.

A step of a small backbone is some thousand short kernels, and launching each takes longer than running it. A CUDA graph
launches all of them at once; it repeats what was recorded to the byte of memory, so tokens, places, mask, keys and
values lie in tensors that are written to and never replaced. On a processor the same step runs each time anew: there
it serves tests alone.

Shapes: B rows, K columns of the buffers, D hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from locas_agent.inference.kv_buffer import fix_columns, free_columns, is_full_attention
from locas_agent.inference.runner import ModelRunner
from locas_agent.memory import MemoryBatch

COLUMNS = 128
"""Columns are laid out in multiples of this, one at least beyond those held: a step attends to all of them."""
WARM_UP = 3
"""Runs before a step is recorded: the first ones of a library choose kernels and take memory."""


class RecordedStep:
    """The step of one composition of rows, memories and buffers; any change of these needs another one."""

    def __init__(self, runner: ModelRunner, memory: MemoryBatch | None, cache: Any, mask: Tensor) -> None:
        """Lay out the buffers and record the step.

        Args:
            runner: runs the backbone.
            memory: serves exactly B rows; None is the bare backbone.
            cache: holds all columns of `mask` but the last, and takes no others until `close`.
            mask: 1 for tokens, 0 for padding, the token to come included, shape (B, C + 1).
        """
        self._cache = cache
        self._held = mask.shape[1] - 1
        self._columns = -(-(self._held + 1) // COLUMNS) * COLUMNS
        device, rows = runner.backbone.device, mask.shape[0]
        self._ids = torch.zeros(rows, 1, dtype=torch.long, device=device)
        self._places = torch.zeros(rows, 1, dtype=torch.long, device=device)
        self._column = torch.zeros(1, dtype=torch.long, device=device)
        self._unseen = torch.full((rows, 1, 1, self._columns), -torch.inf, dtype=runner.backbone.dtype, device=device)
        self._unseen[:, 0, 0, : self._held].masked_fill_(mask[:, :-1] == 1, 0.0)
        fix_columns(cache, self._column, self._columns)

        def act() -> Tensor:
            hidden = runner.hidden(self._ids, self._unseen, memory, cache=cache, position_ids=self._places)  # (B, 1, D)
            return runner.lm_head(hidden[:, -1]).float()

        self._act = act
        self._repeat: Callable[[], Tensor] | None = None

    @staticmethod
    def serves(runner: ModelRunner, cache: Any) -> bool:
        """Tell whether a step may be recorded.

        Every layer of the cache has to be buffered and look at all columns, and attention to take a mask of ours.
        """
        return runner.takes_masks and is_full_attention(cache)

    @property
    def is_full(self) -> bool:
        """Whether the buffers have no column left."""
        return self._held == self._columns

    def __call__(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Run the next token of every row.

        Args:
            ids: shape (B, 1), int64.
            mask: as before, a column longer with each call.

        Returns:
            Logits in fp32, shape (B, V), good until the next call.
        """
        self._ids.copy_(ids)
        self._places.copy_(mask.sum(dim=1, keepdim=True) - 1)
        self._column.fill_(self._held)
        self._unseen[..., self._held] = 0.0  # the token looks at itself, whatever row it is of
        if self._repeat is None:
            self._repeat = _recorded(self._act, self._ids.device)
        logits = self._repeat()
        self._held += 1
        return logits

    def close(self) -> None:
        """Give the cache back, as long as it has become."""
        free_columns(self._cache, self._held)


def _recorded(act: Callable[[], Tensor], device: torch.device) -> Callable[[], Tensor]:
    """Return what repeats an act: a CUDA graph of it on a GPU, itself elsewhere.

    The act may be run several times over: it writes the same keys and values to the same places.
    """
    if device.type != "cuda":
        return act
    beside = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    beside.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(beside):
        for _ in range(WARM_UP):
            act()
    torch.cuda.current_stream(device).wait_stream(beside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # other threads may go on
        found = act()

    def repeat() -> Tensor:
        graph.replay()
        return found

    return repeat

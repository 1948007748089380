"""Keys and values of rows under way, in buffers with room for tokens to come.

A token is written into its place; nothing is copied unless the room is used up, or rows come or go. Rows end in one
column: the newest token of each stands in the last one, so a shorter row begins further to the right.

Shapes: B rows, H key heads, C columns, d numbers of a head.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

ROOM = 64
"""Least columns that a buffer grows by; long ones grow by a quarter."""


class BufferedLayer(DynamicLayer):  # type: ignore[no-untyped-call]  # transformers registers it
    """Keys and values of one layer.

    A layer with a sliding window keeps every column too: its mask says what a token looks at, and rows that come later
    can be put beside those that are under way.
    """

    keys: Tensor
    values: Tensor

    def __init__(self, *, is_sliding: bool = False) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.is_sliding = is_sliding
        self._buffers: tuple[Tensor, Tensor] | None = None
        self._column: Tensor | None = None

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Begin with no column."""
        super().lazy_initialization(key_states, value_states)
        self.keys, self.values = key_states[:, :, :0], value_states[:, :, :0]

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Write new columns, shape (B, H, T, d) each, and return all of them, shape (B, H, C, d)."""
        if self._column is not None:
            self.keys.index_copy_(2, self._column, key_states)
            self.values.index_copy_(2, self._column, value_states)
            return self.keys, self.values
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        held = self.get_seq_length()
        end = held + key_states.shape[2]
        if self._buffers is None or end > self._buffers[0].shape[2]:
            self._hold(self.keys, self.values, columns=end + max(ROOM, end // 4))
        assert self._buffers is not None
        for buffer, states in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[:, :, held:end] = states
        self._show(end)
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep a choice of rows, in the order given, in buffers of their own."""
        if held := self.get_seq_length():
            keys, values = (each.index_select(0, indices) for each in (self.keys, self.values))
            self._hold(keys, values, columns=held + ROOM)

    def join(self, other: BufferedLayer, *, drop: int) -> None:
        """Put the rows of another layer behind these; the last columns of both stand side by side.

        Args:
            other: has as many heads; it is used up.
            drop: the first columns of what comes of it, which are left out.
        """
        columns = max(self.get_seq_length(), other.get_seq_length()) - drop
        keys, values = (
            torch.cat([_fitted(own, columns), _fitted(new, columns)])
            for own, new in ((self.keys, other.keys), (self.values, other.values))
        )
        self._hold(keys, values, columns=columns + ROOM)

    def fix(self, column: Tensor, columns: int) -> None:
        """Show so many columns from now on, and write each new one where a tensor says; nothing moves until `free`.

        Args:
            column: number of the next column, shape (1,), int64; whoever holds it changes it.
            columns: as many as are shown; what is in those not written yet is a number, and has to be masked.
        """
        held = self.get_seq_length()
        self._hold(self.keys, self.values, columns=columns)
        self._show(columns)
        for each in (self.keys, self.values):
            each[:, :, held:] = 0.0
        self._column = column

    def free(self, held: int) -> None:
        """Show the first columns again, as many as were written, and write the next one behind them."""
        self._column = None
        self._show(held)

    def _hold(self, keys: Tensor, values: Tensor, *, columns: int) -> None:
        """Take new buffers and put these into them."""
        buffers = [each.new_empty(*each.shape[:2], columns, each.shape[3]) for each in (keys, values)]
        for buffer, own in zip(buffers, (keys, values), strict=True):
            buffer[:, :, : own.shape[2]] = own
        self._buffers = (buffers[0], buffers[1])
        self._show(keys.shape[2])

    def _show(self, columns: int) -> None:
        assert self._buffers is not None
        self.keys, self.values = (buffer[:, :, :columns] for buffer in self._buffers)


def new_cache(config: Any) -> DynamicCache:
    """Return an empty cache for a backbone: buffered wherever a layer keeps keys and values and nothing else.

    Layers of other kinds, such as those that keep a state, stay as transformers makes them.
    """
    cache = DynamicCache(config=config)
    cache.layers = [_buffered(layer) for layer in cache.layers]
    return cache


def rows_of(cache: DynamicCache, indices: Tensor) -> DynamicCache:
    """Return a cache of a choice of rows, in the order given, that shares nothing with the other."""
    chosen = copy.deepcopy(cache)
    chosen.batch_select_indices(indices)
    return chosen


def take_beginnings(cache: DynamicCache, kept: DynamicCache, spans: Sequence[tuple[int, int, int]]) -> None:
    """Fill an empty cache with the first columns of rows of another, which end in one column there as here.

    Args:
        cache: is filled; every layer of both is buffered and looks at all columns.
        kept: left as it is.
        spans: of each row to come, which row it begins, how many columns that has, and how many are taken.
    """
    for layer, other in zip(_layers(cache), _layers(kept), strict=True):
        columns = other.get_seq_length()
        longest = max(count for _, _, count in spans)
        keys, values = (
            torch.stack(
                [_fitted(each[row, :, columns - held : columns - held + count], longest) for row, held, count in spans]
            )
            for each in (other.keys, other.values)
        )
        layer.update(keys, values)


def is_buffered(cache: DynamicCache) -> bool:
    """Tell whether every layer is buffered, so that rows may be put beside others."""
    return all(isinstance(layer, BufferedLayer) for layer in cache.layers)


def is_full_attention(cache: DynamicCache) -> bool:
    """Tell whether every layer is buffered and looks at all columns, however far back."""
    return all(isinstance(layer, BufferedLayer) and not layer.is_sliding for layer in cache.layers)


def join_rows(cache: DynamicCache, other: DynamicCache, *, drop: int) -> None:
    """Put the rows of another cache behind those of one, without the first columns; both are buffered."""
    for layer, new in zip(_layers(cache), _layers(other), strict=True):
        layer.join(new, drop=drop)


def fix_columns(cache: DynamicCache, column: Tensor, columns: int) -> None:
    """Let every layer write where a tensor says; see `BufferedLayer.fix`."""
    for layer in _layers(cache):
        layer.fix(column, columns)


def free_columns(cache: DynamicCache, held: int) -> None:
    """Undo `fix_columns`, with as many columns as were written."""
    for layer in _layers(cache):
        layer.free(held)


def joined_masks(mask: Tensor, other: Tensor) -> Tensor:
    """Return the masks of rows joined as `join_rows` does, shape (B, C)."""
    columns = max(mask.shape[1], other.shape[1])
    return torch.cat([torch.nn.functional.pad(each, (columns - each.shape[1], 0)) for each in (mask, other)])


def _layers(cache: DynamicCache) -> list[BufferedLayer]:
    return [layer for layer in cache.layers if isinstance(layer, BufferedLayer)]


def _fitted(states: Tensor, columns: int) -> Tensor:
    """Let rows end in the last of so many columns, shape (..., C, d); even what is masked has to be a number."""
    return torch.nn.functional.pad(states, (0, 0, columns - states.shape[-2], 0))


def _buffered(layer: Any) -> Any:
    if type(layer) is DynamicLayer:
        return BufferedLayer()
    return BufferedLayer(is_sliding=True) if type(layer) is DynamicSlidingWindowLayer else layer

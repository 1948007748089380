"""What a backbone has already run of a conversation.

Tokens, and the keys and values they left, kept from one call to the next.

A past depends on the memory it was run with, so it belongs to one (tenant, user, revision); that is for its keeper to
see to, as this module knows no user. It is never written to: a decoding copies what it takes up and hands out a new
one.

Shapes: B rows, H key heads, T tokens of one past, P tokens of the longest beginning of a batch, d numbers of a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor
from transformers import DynamicCache


@dataclass(frozen=True, eq=False)
class CachedPrefix:
    """Tokens of one row from the conversation's beginning, and what they left in each layer.

    Attributes:
        ids: the tokens, T of them.
        layers: keys and values of each layer, each of shape (H, T, d), in the backbone's dtype and on its device.
    """

    ids: tuple[int, ...] = field(repr=False)
    layers: tuple[tuple[Tensor, Tensor], ...] = field(repr=False)

    @property
    def n_bytes(self) -> int:
        """What the keys and values take."""
        return sum(part.numel() * part.element_size() for layer in self.layers for part in layer)

    def shared_with(self, prompt: Sequence[int]) -> int:
        """Count the tokens a prompt has in common from its beginning on; its last one always has to be run."""
        count = 0
        for mine, theirs in zip(self.ids, prompt[:-1], strict=False):
            if mine != theirs:
                break
            count += 1
        return count


@dataclass(slots=True)
class PrefixSlot:
    """Where a call finds the past of a row, and leaves the new one."""

    past: CachedPrefix | None = None


def load_prefix(
    cache: DynamicCache, pasts: Sequence[CachedPrefix | None], prompts: Sequence[Sequence[int]]
) -> list[int]:
    """Put into an empty cache what the rows' pasts have in common with their prompts, left-padded to the longest.

    Returns:
        Tokens of each row that need not be run again.
    """
    shared = [0 if past is None else past.shared_with(prompt) for past, prompt in zip(pasts, prompts, strict=True)]
    longest = max(shared)
    first = next((past for past, count in zip(pasts, shared, strict=True) if past is not None and count), None)
    if first is None:
        return shared
    for index, (keys, values) in enumerate(first.layers):
        heads, _, size = keys.shape
        stacked = (
            keys.new_zeros(len(pasts), heads, longest, size),
            values.new_zeros(len(pasts), heads, longest, values.shape[2]),
        )
        for row, (past, count) in enumerate(zip(pasts, shared, strict=True)):
            if past is not None and count:
                for whole, part in zip(stacked, past.layers[index], strict=True):
                    whole[row, :, longest - count :] = part[:, :count]
        cache.update(*stacked, index)
    return shared


def save_prefix(cache: Any, row: int, mask: Tensor, ids: Sequence[int]) -> CachedPrefix:
    """Copy one row out of a cache.

    Args:
        cache: of a batch.
        row: its place in the batch.
        mask: 1 for tokens, 0 for padding, shape (positions,); positions the cache does not hold are left out.
        ids: the row's tokens in order; there may be fewer than the cache holds, or more.
    """
    at = mask[: cache.get_seq_length()].nonzero()[:, 0][: len(ids)]
    layers = tuple(
        (layer.keys[row][:, at], layer.values[row][:, at]) for layer in cache.layers
    )  # chosen by indices, so copies
    return CachedPrefix(tuple(ids[: len(at)]), layers)

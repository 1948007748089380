"""How rows are put into forwards: padding, micro-batches, common beginnings, and the memories of the rows chosen.

Shapes: B rows, T tokens, P tokens of a common beginning.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from locas_agent.errors import ConfigurationError
from locas_agent.inference.kv_buffer import is_full_attention, new_cache, rows_of, take_beginnings
from locas_agent.inference.runner import ModelRunner
from locas_agent.memory import MemoryBatch

PART_TOKENS = 256
"""Tokens from which a part of like length is run by itself."""
LIKE_LENGTH = 0.85
"""Least length of a row in parts of the longest beside it; a shorter one begins a further part."""


def shared_lengths(prompts: Sequence[Sequence[int]], groups: Sequence[int] | None) -> list[int]:
    """Of each row, how many tokens all rows of its group begin with; at least one token of every prompt is left out."""
    if groups is None:
        return [0] * len(prompts)
    if len(groups) != len(prompts):
        raise ConfigurationError(f"one group per prompt, got {len(groups)} for {len(prompts)}")
    shared: dict[int, int] = {}
    first: dict[int, Sequence[int]] = {}
    for prompt, group in zip(prompts, groups, strict=True):
        other = first.setdefault(group, prompt)
        limit = min(shared.get(group, len(other) - 1), len(prompt) - 1)
        shared[group] = next((at for at in range(limit) if prompt[at] != other[at]), limit)
    return [shared[group] for group in groups]


def grouped_batches(
    prompts: Sequence[Sequence[int]],
    shared: Sequence[int],
    groups: Sequence[int] | None,
    max_new_tokens: int,
    max_batch_tokens: int,
) -> list[list[int]]:
    """Micro-batches of texts to be run; groups stay together, and a shared token counts once per group."""
    if groups is None:
        return micro_batches([len(prompt) + max_new_tokens for prompt in prompts], max_batch_tokens)
    batches: list[list[int]] = []
    used = 0
    for row in sorted(range(len(prompts)), key=lambda row: (groups[row], row)):
        opens = not batches or groups[batches[-1][-1]] != groups[row]
        cost = len(prompts[row]) - shared[row] + max_new_tokens + (shared[row] if opens else 0)
        if not batches or used + cost > max_batch_tokens:
            batches.append([])
            used = 0
            cost = len(prompts[row]) + max_new_tokens
        batches[-1].append(row)
        used += cost
    return [sorted(batch) for batch in batches]


def micro_batches(lengths: Sequence[int], max_batch_tokens: int) -> list[list[int]]:
    """Rows of like length together, rows times longest within the budget; in order inside one: memories stay shared."""
    batches: list[list[int]] = []
    longest = 0
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        if not batches or (len(batches[-1]) + 1) * longest > max_batch_tokens:
            batches.append([])
            longest = lengths[row]
        batches[-1].append(row)
    return [sorted(batch) for batch in batches]


def length_parts(lengths: Sequence[int]) -> list[list[int]]:
    """Rows in parts of like length, so that little padding is run; a part of few tokens takes shorter rows too.

    A forward over `PART_TOKENS` costs hardly more a token than one over many.
    """
    parts: list[list[int]] = []
    longest = tokens = 0
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        if not parts or (tokens >= PART_TOKENS and lengths[row] < LIKE_LENGTH * longest):
            parts.append([])
            longest, tokens = lengths[row], 0
        parts[-1].append(row)
        tokens += longest
    return [sorted(part) for part in parts]


def pad(rows: Sequence[Sequence[int]], pad_id: int, *, left: bool) -> tuple[Tensor, Tensor]:
    """Ids and attention mask of rows padded to one length, shape (B, T) each."""
    longest = max(len(row) for row in rows)
    ids, mask = torch.full((len(rows), longest), pad_id), torch.zeros(len(rows), longest, dtype=torch.int64)
    for at, row in enumerate(rows):
        span = slice(longest - len(row), longest) if left else slice(0, len(row))
        ids[at, span] = torch.tensor(list(row), dtype=torch.int64)
        mask[at, span] = 1
    return ids, mask


def memories_of(memory: MemoryBatch | None, rows: Sequence[int]) -> MemoryBatch | None:
    """The memories of a choice of rows; None stays the bare backbone."""
    return None if memory is None else memory.select(rows)


class KeptBeginnings:
    """Beginnings that calls with one memory, or with none, have run: further calls with it take them up.

    Whoever makes one lets it go soon: it holds keys and values of texts.
    """

    def __init__(self) -> None:
        self._runs: list[tuple[list[tuple[int, ...]], DynamicCache]] = []

    def keep(self, texts: Sequence[Sequence[int]], cache: DynamicCache) -> None:
        """Keep what was run.

        Args:
            texts: token ids of each row.
            cache: of these rows, left-padded; nothing is written into it any more.
        """
        if is_full_attention(cache):
            self._runs.append(([tuple(text) for text in texts], cache))

    def found(self, texts: Sequence[Sequence[int]], cache: DynamicCache) -> bool:
        """Fill an empty cache with texts, left-padded, where one run began with all of them; tell whether it did."""
        wanted = [tuple(text) for text in texts]
        for told, kept in self._runs:
            rows = [next((at for at, own in enumerate(told) if own[: len(text)] == text), None) for text in wanted]
            known = [row for row in rows if row is not None]
            if len(known) == len(rows):
                spans = [(row, len(told[row]), len(text)) for row, text in zip(known, wanted, strict=True)]
                take_beginnings(cache, kept, spans)
                return True
        return False


class Beginnings:
    """What rows of some groups begin with, run once for each group; rows take it up all at once or in parts."""

    @torch.inference_mode()
    def __init__(
        self,
        runner: ModelRunner,
        texts: Sequence[Sequence[int]],
        groups: Sequence[tuple[int, int]],
        memory: MemoryBatch | None,
        kept: KeptBeginnings | None = None,
    ) -> None:
        """Run each group's beginning, or take it up.

        Args:
            runner: runs the backbone.
            texts: token ids of the rows.
            groups: of each row its group and how many tokens the group shares; its rows use the same memory.
            memory: serves exactly these rows; None is the bare backbone.
            kept: what calls with the same memory have run, if their memory is one; what is run here is left there.
        """
        first = {group: row for row, (group, _) in reversed(list(enumerate(groups)))}
        names = {group: at for at, group in enumerate(first)}
        device = runner.backbone.device
        self._group_of = [names[group] for group, _ in groups]
        self._cache = new_cache(runner.backbone.model.config)
        self._mask = torch.zeros(len(names), 0, dtype=torch.int64, device=device)
        beginnings = [texts[row][: groups[row][1]] for row in first.values()]
        if any(beginnings):
            ids, self._mask = (part.to(device) for part in pad(beginnings, runner.backbone.pad_id, left=True))
            if kept is not None and kept.found(beginnings, self._cache):
                return
            runner.hidden(ids, self._mask, memories_of(memory, list(first.values())), cache=self._cache)
            if kept is not None:
                kept.keep(beginnings, self._cache)

    @torch.inference_mode()
    def of(self, rows: Sequence[int]) -> tuple[Any, Tensor]:
        """Return a cache of its own for a choice of rows, and its mask, left-padded, shape (B, P)."""
        index = torch.tensor([self._group_of[row] for row in rows], device=self._mask.device)
        return rows_of(self._cache, index), self._mask[index]

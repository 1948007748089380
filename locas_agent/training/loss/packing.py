"""How rows of training are put into forwards: rows of one owner as one sequence, their common beginning once.

Token rows in, ids, masks and places out; it runs no model.

Every question of a chat begins with the same words of the template, and questions are of different lengths. Side by
side in one sequence a beginning is computed once and nothing is padded; a mask keeps the rows from seeing each other.

Shapes: P sequences, T tokens of the longest.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from locas_agent.inference.batching import micro_batches
from locas_agent.training.examples import Example

SEQUENCE_TOKENS = 256
"""Rows are put into one sequence up to this length: attention costs its square. Behind a common beginning of more than
half of it, as many tokens as that has: to run it again for each row costs more."""


@dataclass(frozen=True, eq=False)
class PackedRows:
    """Rows of one forward.

    Attributes:
        owners: whose rows a sequence holds, one of each sequence.
        rows: which rows were laid out, in the order of `places`.
        ids: right-padded, shape (P, T).
        places: of each row, where its tokens stand in the flattened (P, T), shape (its tokens,).
        mask: added to attention's scores, shape (P, 1, T, T): 0 where a token looks, the least number elsewhere. None
            where every sequence is one row.
        position_ids: place of each token in its row, shape (P, T); None as above.
    """

    owners: tuple[int, ...]
    rows: tuple[int, ...]
    ids: Tensor
    places: tuple[Tensor, ...]
    mask: Tensor | None
    position_ids: Tensor | None


def layouts(
    examples: Sequence[Example],
    owners: Sequence[int],
    *,
    is_packed: bool,
    pad_id: int,
    max_batch_tokens: int,
    dtype: torch.dtype,
    device: torch.device,
) -> Iterator[PackedRows]:
    """Lay out rows for as many forwards as they need.

    Args:
        examples: the rows.
        owners: whose each is; rows of two owners never share a sequence.
        is_packed: put several rows into one sequence.
        pad_id: put into padding.
        max_batch_tokens: budget of one forward.
        dtype: of the mask, the backbone's.
        device: where the tensors go.
    """
    sequences = _packed(examples, owners) if is_packed else [([row], 0) for row in range(len(examples))]
    lengths = [shared + sum(examples[row].n_tokens - shared for row in rows) for rows, shared in sequences]
    for chosen in micro_batches(lengths, max_batch_tokens):
        longest = max(lengths[at] for at in chosen)
        yield _layout([sequences[at] for at in chosen], longest, examples, owners, pad_id, dtype, device)


def _packed(examples: Sequence[Example], owners: Sequence[int]) -> list[tuple[list[int], int]]:
    """Rows of each sequence, and how many tokens they all begin with."""
    sequences = []
    for owner in dict.fromkeys(owners):
        own = [row for row in range(len(examples)) if owners[row] == owner]
        shared = _common([examples[row] for row in own])
        total = sum(examples[row].n_tokens - shared for row in own)
        share = total / -(-total // max(SEQUENCE_TOKENS - shared, shared))  # as even as they come
        rows, used = list[int](), 0
        for row in own:
            own_tokens = examples[row].n_tokens - shared
            if rows and used + own_tokens / 2 > share:
                sequences.append((rows, shared))
                rows, used = [], 0
            rows.append(row)
            used += own_tokens
        sequences.append((rows, shared))
    return [(rows, shared if len(rows) > 1 else 0) for rows, shared in sequences]


def _common(examples: Sequence[Example]) -> int:
    """How many tokens all rows begin with, the last of each prompt left out: it predicts a target."""
    limit = min(len(example.prompt) for example in examples) - 1
    first = examples[0].prompt
    return next((at for at in range(limit) if any(each.prompt[at] != first[at] for each in examples)), limit)


def _layout(
    sequences: Sequence[tuple[list[int], int]],
    length: int,
    examples: Sequence[Example],
    owners: Sequence[int],
    pad_id: int,
    dtype: torch.dtype,
    device: torch.device,
) -> PackedRows:
    ids = torch.full((len(sequences), length), pad_id)
    position_ids = torch.zeros(len(sequences), length, dtype=torch.long)
    segments = torch.full((len(sequences), length), -1)  # 0 is the common beginning, -1 is padding
    chosen, places = list[int](), list[Tensor]()
    for at, (rows, shared) in enumerate(sequences):
        end = shared
        for number, row in enumerate(rows, start=1):
            tokens = [*examples[row].prompt, *examples[row].target][:-1]
            own = torch.cat([torch.arange(shared), torch.arange(end, end + len(tokens) - shared)])
            ids[at, own] = torch.tensor(tokens)
            position_ids[at, own] = torch.arange(len(tokens))
            segments[at, own[shared:]] = number
            end += len(tokens) - shared
            chosen.append(row)
            places.append((at * length + own).to(device))
        segments[at, :shared] = 0
    is_plain = all(len(rows) == 1 for rows, _ in sequences)
    return PackedRows(
        tuple(owners[rows[0]] for rows, _ in sequences),
        tuple(chosen),
        ids.to(device),
        tuple(places),
        None if is_plain else _mask(segments, dtype).to(device),
        None if is_plain else position_ids.to(device),
    )


def _mask(segments: Tensor, dtype: torch.dtype) -> Tensor:
    """Each token looks at those before it that are of its row or of the common beginning, shape (P, 1, T, T)."""
    before = torch.ones(segments.shape[1], segments.shape[1], dtype=torch.bool).tril()
    looked_at = segments[:, None, :]
    looks = before & ((looked_at == 0) | (looked_at == segments[:, :, None]))  # (P, T, T)
    nothing = torch.zeros(looks.shape, dtype=dtype)
    return nothing.masked_fill(~looks, torch.finfo(dtype).min)[:, None]

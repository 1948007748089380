"""How the next token of each row of a batch is drawn.

Shapes: B rows, V vocabulary, n tokens, K kept candidates.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from locas_agent.errors import ConfigurationError
from locas_agent.inference.generation import AnswerRow, TopK

_CACHED_NUMBERS = 1 << 17
"""Numbers in float64 of which a few copies fit into a processor's cache."""


def draw(logits: Tensor, rows: Sequence[AnswerRow]) -> Tensor:
    """Choose the next token of every row: the best, or the quantile on which its random number falls.

    Args:
        logits: shape (B, V), fp32.
        rows: B of them, in order.

    Returns:
        Token ids, shape (B,), int64; of rows that are over the best.
    """
    logits = _limited(logits, rows)
    chosen = logits.argmax(dim=-1)
    drawn = [at for at, row in enumerate(rows) if not row.is_greedy and not row.is_over]
    for at_once in _parts(drawn, logits):
        index = torch.tensor(at_once, device=logits.device)
        chosen[index] = _quantiles(logits.index_select(0, index), [rows[at] for at in at_once])
    return chosen


def top_k_of(logprobs: Tensor, top_k: int) -> TopK:
    """Return the head of distributions over the vocabulary, shape (n, V) -> (n, K)."""
    best = logprobs.topk(top_k, dim=-1)
    return TopK(ids=best.indices.to(device="cpu", dtype=torch.int32), logprobs=best.values.cpu())


def _parts(rows: list[int], logits: Tensor) -> list[list[int]]:
    """Return rows in parts whose distributions stay in a processor's cache; all at once on another device."""
    at_once = max(1, _CACHED_NUMBERS // logits.shape[1]) if logits.device.type == "cpu" else max(1, len(rows))
    return [rows[start : start + at_once] for start in range(0, len(rows), at_once)]


def _limited(logits: Tensor, rows: Sequence[AnswerRow]) -> Tensor:
    """Logits with minus infinity for whatever may not come next, shape (B, V)."""
    limited = logits
    for at, row in enumerate(rows):
        if row.allowed is None or row.is_over or (ids := _allowed_of(row)) is None:
            continue
        limited = logits.clone() if limited is logits else limited
        limited[at] = -torch.inf
        limited[at, ids] = logits[at, ids]
    return limited


def _allowed_of(row: AnswerRow) -> list[int] | None:
    """Ask which tokens may come next; a row that cannot go on ends with its error, and no other row does."""
    assert row.allowed is not None
    try:
        ids = row.allowed(row.ids)
        if ids is None or ids:
            return None if ids is None else list(ids)
        raise ConfigurationError(
            f"`allowed` rules out every token after {len(row.ids)} generated ones: it has to name at least one"
        )
    except Exception as error:  # noqa: BLE001  the caller's function: it is raised again where the row is read
        row.error, row.is_over = error, True
        return None


def _quantiles(logits: Tensor, rows: Sequence[AnswerRow]) -> Tensor:
    """Return the tokens on which the rows' random numbers fall, shape (B,)."""
    numbers = torch.stack([row.uniforms[min(len(row.ids), row.limit - 1)] for row in rows]).to(logits.device)
    temperatures = torch.tensor([row.temperature for row in rows], dtype=torch.float64, device=logits.device)
    cumulative = (logits.double() / temperatures[:, None]).softmax(dim=-1).cumsum(dim=-1)  # (B, V)
    found = torch.searchsorted(cumulative, (numbers * cumulative[:, -1])[:, None], right=True)[:, 0]
    return found.clamp_max(logits.shape[-1] - 1)

"""The losses a memory is trained with, per token.

Shapes: n scored tokens, V vocabulary, K entries of the teacher's distribution that were kept. All losses are in nats.

| objective | scored text x | student sees | loss per token |
|---|---|---|---|
| `ntp` | the overflow itself | x before t | -log p(x_t) |
| `sd` | one turn of the overflow | x before t | KL(teacher with the chunk in context || student) |
| `mix` | both | | `ntp` + `sd_weight` * `sd` |
| `self_study` | answer to a question about the chunk | question, x before t | KL(teacher with the chunk || student) |

To each is added the anchor: KL(bare backbone || student) on neutral text.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, log_softmax

HEAD_ROWS = 256
"""Positions whose logits are held at once in training."""

Score = tuple[Tensor, bool]
"""Loss of every scored token, nats, shape (n,), and whether greedy decoding would give them all."""


def next_token_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Return -log p(target).

    Args:
        logits: shape (n, V), any float dtype.
        targets: token ids, shape (n,), int64.

    Returns:
        Shape (n,), fp32.

    Source: arXiv 2602.05085, language-model loss (`--loss_function NTP` of the reference implementation).
    """
    return cross_entropy(logits.float(), targets, reduction="none")


def teacher_divergence(logits: Tensor, teacher_ids: Tensor, teacher_logprobs: Tensor) -> Tensor:
    """Return KL(teacher || student) with everything outside the teacher's top K in one bucket.

    The bucket keeps the divergence honest: a student cannot hide mass on tokens the teacher's list leaves out. With K =
    V it is the full divergence.

    Args:
        logits: the student's, shape (n, V), any float dtype.
        teacher_ids: the teacher's most likely tokens, shape (n, K), any integer dtype.
        teacher_logprobs: their log-probabilities, shape (n, K), fp32.

    Returns:
        Shape (n,), fp32, never negative but for rounding.

    Source: context distillation as in arXiv 2602.05085 (`--ttt_loss SD`, our reading); top-K with a rest bucket is
        ours.
    """
    student = log_softmax(logits.float(), dim=-1).gather(-1, teacher_ids.long())  # (n, K)
    probabilities = teacher_logprobs.exp()  # (n, K)
    listed = (probabilities * (teacher_logprobs - student)).sum(-1)  # (n,)
    teacher_rest = (1 - probabilities.sum(-1)).clamp_min(0)  # (n,)
    student_rest = (1 - student.exp().sum(-1)).clamp_min(1e-7)  # (n,)
    rest = torch.where(
        teacher_rest > 1e-6, teacher_rest * (teacher_rest.clamp_min(1e-7).log() - student_rest.log()), 0.0
    )
    return listed + rest


def mean_by_user(losses: Tensor, rows: Tensor, row_weights: Tensor, n_users: int) -> Tensor:
    """Return each user's weighted mean over rows of the row's mean over tokens.

    Sum the result over users before backward: gradients are then what each user would get alone, in any batch.

    Args:
        losses: per token, shape (n,).
        rows: the row of each token, shape (n,), int64, row b belongs to user b // (B / n_users).
        row_weights: shape (B,); 0 leaves a row out.
        n_users: U, a divisor of B.

    Returns:
        Shape (U,), fp32.
    """
    n_rows = row_weights.shape[0]
    sums = torch.zeros(n_rows, dtype=torch.float32, device=losses.device).index_add(0, rows, losses)
    counts = torch.bincount(rows, minlength=n_rows).clamp_min(1)
    weighted = (sums / counts * row_weights).view(n_users, -1).sum(-1)
    return weighted / row_weights.view(n_users, -1).sum(-1).clamp_min(1e-9)


def losses_in_parts(hidden: Tensor, losses: Callable[[Tensor, slice], Tensor]) -> Tensor:
    """Losses of many tokens, of which only some have their logits in memory at once.

    Each token's loss depends on its own hidden state alone, so a part's gradient can be taken at once and its logits
    dropped: 2,048 positions of 152k words are 1.2 GB, and several times that until the backward.

    Args:
        hidden: normed hidden states, shape (n, D); gradients flow into them, but no second ones.
        losses: of some of them, shape (P, D), given with their place among all; shape (P,).

    Returns:
        Shape (n,).
    """
    if not torch.is_grad_enabled():
        spans = [slice(start, start + HEAD_ROWS) for start in range(0, len(hidden), HEAD_ROWS)]
        return torch.cat([losses(hidden[span], span) for span in spans])
    found: Tensor = _InParts.apply(hidden, losses)  # type: ignore[no-untyped-call]
    return found


class _InParts(torch.autograd.Function):
    """See `losses_in_parts`."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, losses: Callable[[Tensor, slice], Tensor]) -> Tensor:
        found, gradients = list[Tensor](), list[Tensor]()
        for start in range(0, len(hidden), HEAD_ROWS):
            span = slice(start, start + HEAD_ROWS)
            part = hidden[span].detach().requires_grad_(True)
            with torch.enable_grad():
                own = losses(part, span)
                gradients += torch.autograd.grad(own.sum(), part)
            found.append(own.detach())
        ctx.save_for_backward(torch.cat(gradients))
        return torch.cat(found)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None]:
        (gradient,) = ctx.saved_tensors  # of each token's loss with respect to its own hidden state
        return gradient * upstream[0][:, None].to(gradient.dtype), None

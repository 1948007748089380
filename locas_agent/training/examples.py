"""Training examples: token rows with what is to be learnt at which position, and their batches.

Shapes: U users, R rows per user, B = U * R, T tokens, n scored tokens, K kept candidates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from locas_agent.inference import Engine
from locas_agent.inference.generation import TopK
from locas_agent.training.loss.losses import next_token_loss, teacher_divergence


@dataclass(frozen=True, eq=False)
class Example:
    """One row of training: a prompt, the tokens to be learnt after it, and the teacher's distribution over them.

    Attributes:
        prompt: tokens in front, at least one; never scored.
        target: tokens after it, at least one.
        teacher: distribution before each scored token; None asks for plain next-token loss.
        weight: weight of the row in its user's mean.
        scored: places in `target` of the tokens to be learnt, ascending; None means all. Several answers with questions
            in between are one row.
    """

    prompt: tuple[int, ...]
    target: tuple[int, ...]
    teacher: TopK | None
    weight: float = 1.0
    scored: tuple[int, ...] | None = None

    @property
    def n_tokens(self) -> int:
        """Tokens the forward sees: the last target token is only predicted."""
        return len(self.prompt) + len(self.target) - 1

    @property
    def places(self) -> Sequence[int]:
        """Places in `target` of the scored tokens."""
        return range(len(self.target)) if self.scored is None else self.scored

    @property
    def n_scored(self) -> int:
        """Tokens to be learnt."""
        return len(self.places)


@dataclass(frozen=True, eq=False)
class ExampleBatch:
    """Examples as tensors, users outermost.

    Attributes:
        input_ids: right-padded, shape (B, T): causal attention never looks at the padding.
        positions: where a target is predicted, shape (B, T), bool.
        rows: the row of each scored token, shape (n,).
        targets: shape (n,).
        teacher_ids, teacher_logprobs: shape (n, K); rows without a teacher hold log-probability 0 on their target.
        row_weights: shape (B,).
        n_users: U.
    """

    input_ids: Tensor
    positions: Tensor
    rows: Tensor
    targets: Tensor
    teacher_ids: Tensor
    teacher_logprobs: Tensor
    row_weights: Tensor
    n_users: int

    @classmethod
    def of(cls, examples: Sequence[Sequence[Example]], *, pad_id: int, device: torch.device) -> ExampleBatch:
        """Stack the examples of each user; every user brings the same number of rows."""
        flat = [example for user in examples for example in user]
        length = max(example.n_tokens for example in flat)
        input_ids = torch.full((len(flat), length), pad_id, dtype=torch.long)
        positions = torch.zeros(len(flat), length, dtype=torch.bool)
        heads = list[TopK]()
        for row, example in enumerate(flat):
            tokens = [*example.prompt, *example.target]
            input_ids[row, : len(tokens) - 1] = torch.tensor(tokens[:-1])
            positions[row, len(example.prompt) - 1 + torch.tensor(example.places)] = True
            said = torch.tensor([example.target[place] for place in example.places])[:, None]  # (n, 1)
            heads.append(example.teacher or TopK(said, torch.zeros(said.shape)))
        teachers = TopK.joined(heads)
        lengths = torch.tensor([example.n_scored for example in flat])
        return cls(
            input_ids.to(device),
            positions.to(device),
            torch.repeat_interleave(torch.arange(len(flat)), lengths).to(device),
            torch.tensor([example.target[place] for example in flat for place in example.places]).to(device),
            teachers.ids.long().to(device),
            teachers.logprobs.to(device),
            torch.tensor([example.weight for example in flat]).to(device),
            len(examples),
        )

    def losses(self, logits: Tensor, span: slice = slice(None)) -> Tensor:
        """Return the loss of every scored token, shape (n,), or of a span of them.

        Without a teacher the divergence is -log p(target).
        """
        if self.teacher_ids.shape[1] == 1 and not self.teacher_logprobs.any():
            return next_token_loss(logits, self.targets[span])
        return teacher_divergence(logits, self.teacher_ids[span], self.teacher_logprobs[span])


def with_teacher(
    engine: Engine,
    prompts: Sequence[Sequence[int]],
    targets: Sequence[Sequence[int]],
    *,
    top_k: int,
    student_prompts: Sequence[Sequence[int]],
) -> list[Example]:
    """Return examples whose teacher is the bare backbone behind `prompts`, to be learnt behind `student_prompts`."""
    teachers = engine.distributions(prompts, targets, top_k=top_k)
    return [
        Example(tuple(prompt), tuple(target), teacher)
        for prompt, target, teacher in zip(student_prompts, targets, teachers, strict=True)
    ]

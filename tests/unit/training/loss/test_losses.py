"""The losses against an independent computation in float64."""

from __future__ import annotations

import torch

from locas_agent.training.loss.losses import mean_by_user, next_token_loss, teacher_divergence


def test_divergence_with_the_whole_vocabulary_is_the_full_divergence() -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(5, 11), torch.randn(5, 11).log_softmax(-1)
    ids = torch.argsort(teacher, dim=-1, descending=True)
    expected = (teacher.double().exp() * (teacher.double() - student.double().log_softmax(-1))).sum(-1)
    got = teacher_divergence(student, ids, teacher.gather(-1, ids))
    torch.testing.assert_close(got, expected.float(), atol=1e-5, rtol=1e-5)  # fp32 rounding of sums over 11 terms


def test_mass_outside_the_list_counts_as_one_bucket() -> None:
    torch.manual_seed(1)
    student, teacher = torch.randn(4, 9).double(), torch.randn(4, 9).double().log_softmax(-1)
    ids = teacher.topk(3, dim=-1).indices
    listed = teacher.gather(-1, ids)
    p_rest, q = 1 - listed.exp().sum(-1), student.log_softmax(-1).gather(-1, ids)
    expected = (listed.exp() * (listed - q)).sum(-1) + p_rest * (p_rest.log() - (1 - q.exp().sum(-1)).log())
    got = teacher_divergence(student.float(), ids, listed.float())
    torch.testing.assert_close(got, expected.float(), atol=1e-5, rtol=1e-4)
    assert (got > 0).all()


def test_divergence_is_zero_for_the_teacher_itself() -> None:
    logits = torch.randn(3, 7)
    top = logits.log_softmax(-1).topk(4, dim=-1)
    assert teacher_divergence(logits, top.indices, top.values).abs().max() < 1e-5


def test_certain_teacher_gives_the_next_token_loss() -> None:
    logits, targets = torch.randn(6, 8), torch.tensor([0, 1, 2, 3, 4, 5])
    certain = teacher_divergence(logits, targets[:, None], torch.zeros(6, 1))
    torch.testing.assert_close(certain, next_token_loss(logits, targets), atol=1e-4, rtol=1e-4)


def test_users_do_not_weigh_on_each_other() -> None:
    """User 0 has two rows of one and three tokens, user 1 one row that counts and one that does not."""
    losses = torch.tensor([1.0, 2.0, 2.0, 5.0, 7.0, 100.0])
    rows = torch.tensor([0, 1, 1, 1, 2, 3])
    got = mean_by_user(losses, rows, torch.tensor([1.0, 1.0, 1.0, 0.0]), 2)
    torch.testing.assert_close(got, torch.tensor([(1.0 + 3.0) / 2, 7.0]))

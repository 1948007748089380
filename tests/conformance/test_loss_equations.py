"""The losses and what is reported in nats, against sums written out in float64.

The likelihood of a text on every family.
"""

from __future__ import annotations

import math

import pytest
import torch

from locas_agent.backbone import Backbone
from locas_agent.inference import Engine
from locas_agent.inference.composition import compose, interaction
from locas_agent.memory import MemoryBatch
from locas_agent.paper.reference import LocasModel, to_reference
from locas_agent.training.loss.losses import mean_by_user, next_token_loss, teacher_divergence
from tests.conformance import equations
from tests.conformance.samples import trained
from tests.conftest import byte_tokenizer
from tests.unit.core.architectures import SUPPORTED, build


def test_next_token_loss_is_minus_log_p() -> None:
    logits, targets = 3 * torch.randn(6, 11), torch.randint(0, 11, (6,))
    for row, loss in enumerate(next_token_loss(logits, targets).tolist()):
        z = logits[row].double()
        assert loss == pytest.approx(math.log(sum(math.exp(v) for v in z.tolist())) - float(z[targets[row]]), abs=1e-5)


def test_distillation_is_kl_of_teacher_and_student_with_one_bucket_for_the_rest() -> None:
    student, teacher = 2 * torch.randn(5, 13), 2 * torch.randn(5, 13)
    p_all, q_all = teacher.double().softmax(-1), student.double().softmax(-1)
    for kept in (1, 4, 13):
        ids = p_all.topk(kept).indices
        got = teacher_divergence(student, ids, p_all.gather(1, ids).log().float())
        for row in range(5):
            chosen = set(ids[row].tolist())
            pairs = [(float(p_all[row, j]), float(q_all[row, j])) for j in chosen]
            rest = [sum(float(dist[row, j]) for j in range(13) if j not in chosen) for dist in (p_all, q_all)]
            expected = sum(p * math.log(p / q) for p, q in [*pairs, *([(rest[0], rest[1])] if kept < 13 else [])])
            assert float(got[row]) == pytest.approx(expected, abs=2e-5)
    torch.testing.assert_close(
        got.double(), equations.kl(teacher, student), atol=2e-5, rtol=0
    )  # all 13 kept: the full divergence


def test_a_users_loss_is_the_weighted_mean_over_rows_of_the_mean_over_tokens() -> None:
    losses = torch.rand(9)
    rows = torch.tensor([0, 0, 1, 2, 2, 2, 3, 3, 3])
    weights = torch.tensor([1.0, 0.5, 0.0, 2.0])
    got = mean_by_user(losses, rows, weights, 2)
    for user, own in enumerate(((0, 1), (2, 3))):
        means = [sum(losses[at].item() for at in range(9) if rows[at] == row) / int((rows == row).sum()) for row in own]
        total = sum(weights[row].item() for row in own)
        assert float(got[user]) == pytest.approx(
            sum(weights[row].item() * mean for row, mean in zip(own, means, strict=True)) / total, rel=1e-5
        )


@pytest.mark.parametrize("family", sorted(SUPPORTED))
def test_likelihood_and_perplexity_of_a_text_with_its_memory(family: str) -> None:
    """-log p by hand from the logits of a merged model, which is built by the equations and has no hook of ours."""
    backbone = Backbone(build(family), byte_tokenizer(), name=family)
    memory = trained(backbone, 4, 6)
    ids = torch.randint(0, 256, (1, 12))
    model = LocasModel(backbone)
    tensor, scale = to_reference([memory], backbone)
    nll = model.compute_nll(ids, tensor, scale=scale)
    with torch.no_grad():
        dense = model.to_dense(tensor, scale=scale)(input_ids=ids).logits[0].double()
    expected = [float(dense[t].logsumexp(-1) - dense[t, ids[0, t + 1]]) for t in range(11)]
    torch.testing.assert_close(nll[0].double(), torch.tensor(expected, dtype=torch.float64), atol=2e-5, rtol=1e-5)
    assert (model.compute_nll(ids, None)[0] - nll[0]).abs().max() > 0.01  # the memory has a say in it
    assert float((nll.sum() / nll.numel()).exp()) == pytest.approx(math.exp(sum(expected) / 11), rel=1e-4)


def test_interaction_is_made_of_divergences_over_the_whole_vocabulary() -> None:
    backbone = Backbone(build("qwen3"), byte_tokenizer(), name="qwen3")
    engine, first, second = Engine(backbone), trained(backbone, 4, 1), trained(backbone, 3, 2)
    first.scale.fill_(2.0)
    second.scale.fill_(3.0)
    texts = [[3, 1, 4, 1, 5], [9, 2, 6]]
    sums = dict.fromkeys(
        ("drift_first", "drift_second", "drift_both", "moved_first", "moved_second", "beyond_sum"), 0.0
    )
    for text in texts:
        ids = torch.tensor([text])
        z0, z1, z2, z12 = (
            engine.logits(ids, memory=None if each is None else MemoryBatch.of([each], backbone))[0]
            .double()
            .log_softmax(-1)
            for each in (None, first, second, compose(first, second))
        )
        terms = ((z0, z1), (z0, z2), (z0, z12), (z1, z12), (z2, z12), (z1 + z2 - z0, z12))
        for name, (p, q) in zip(sums, terms, strict=True):
            sums[name] += float(equations.kl(p, q).sum())
    got = interaction(engine, first, second, texts)
    assert got.tokens == 8
    for name, total in sums.items():
        assert getattr(got, name) == pytest.approx(total / 8, abs=1e-5)
        assert getattr(got, name) > 1e-3  # these two memories do get in each other's way

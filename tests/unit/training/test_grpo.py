"""GRPO through TRL: the reward rises, only the memory's rows change, and the reference is the bare backbone."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from locas_agent.backbone import Backbone
from locas_agent.conversation.messages import question
from locas_agent.errors import ConfigurationError, IncompatibleMemory, MissingExtra
from locas_agent.inference import Engine
from locas_agent.memory import LocasMemory, MemoryBatch
from locas_agent.training.grpo import PARAMETER, MemoryPolicy, memory_trainer
from locas_agent.training.initialization import initialize
from tests.conftest import MakeBackbone, MakeMemory

pytestmark = [
    # Looked for and not imported: that takes seconds, and every worker collects this file.
    pytest.mark.skipif(find_spec("trl") is None, reason="needs the extra grpo"),
    pytest.mark.filterwarnings(
        "ignore:`is_gradient_checkpointing`:FutureWarning"
    ),  # TRL 1.16 asks transformers 5.23 so
]

PROMPTS = ("Where?", "Which dog do I have?")
GENERATIONS = 8


@pytest.fixture(autouse=True)
def _quiet_random_stream() -> Iterator[None]:
    state = torch.random.get_rng_state()
    yield
    torch.random.set_rng_state(state)  # TRL seeds the global stream


def settings(folder: Path, **changes: Any) -> Any:
    from trl import GRPOConfig

    options: dict[str, Any] = {
        "max_steps": 1,
        "per_device_train_batch_size": GENERATIONS * len(PROMPTS),
        "num_generations": GENERATIONS,
        "max_completion_length": 4,
        "learning_rate": 5e-2,
        "lr_scheduler_type": "constant",
        "beta": 0.01,
        "temperature": 1.0,
        "activation_checkpointing": False,
        "save_strategy": "no",
        "bf16": False,
        "report_to": "none",
        "use_cpu": True,
        "disable_tqdm": True,
        "logging_strategy": "no",
    }
    return GRPOConfig(str(folder), **options | changes)


def data() -> Any:
    from datasets import Dataset

    return Dataset.from_list([{"prompt": [{"role": "user", "content": text}]} for text in PROMPTS])


def early_letters(completions: list[list[dict[str, str]]], **_: Any) -> list[float]:
    """Share of an answer's characters that come before "n"."""
    texts = [answer[0]["content"] for answer in completions]
    return [sum(letter < "n" for letter in text) / max(1, len(text)) for text in texts]


def start(backbone: Backbone) -> LocasMemory:
    """A new memory, big enough to be heard: it changes nothing until it is trained."""
    return initialize(backbone, [], width=8, method="random_index", scale_rule="none", seed=1)


def logprobs(backbone: Backbone, inputs: dict[str, Any], memory: LocasMemory | None) -> Tensor:
    """Log-probability of each sampled token by our engine, float64, shape (B, C)."""
    ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1)
    mask = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], dim=1)
    batch = None if memory is None else MemoryBatch.of([memory], backbone, rows_per_memory=len(ids))
    logits = Engine(backbone).logits(ids, attention_mask=mask, memory=batch).double()
    asked = inputs["completion_ids"]
    return logits[:, -asked.shape[1] - 1 : -1].log_softmax(-1).gather(-1, asked[..., None])[..., 0]


def test_reward_rises_and_only_the_rows_change(make_backbone: MakeBackbone, tmp_path: Path) -> None:
    backbone = make_backbone(seed=4)
    before = {name: tensor.clone() for name, tensor in backbone.model.state_dict().items()}
    memory = start(backbone)
    rows = memory.slab.clone()
    policy = MemoryPolicy(backbone, memory)
    frozen = {name: tensor.clone() for name, tensor in policy.model.state_dict().items() if name != PARAMETER}
    assert [name for name, parameter in policy.model.named_parameters() if parameter.requires_grad] == [PARAMETER]
    rewards: list[float] = []

    def reward(completions: list[list[dict[str, str]]], **columns: Any) -> list[float]:
        found = early_letters(completions, **columns)
        rewards.append(sum(found) / len(found))
        return found

    memory_trainer(policy, reward, settings(tmp_path, max_steps=12), data()).train()
    assert sum(rewards[-3:]) / 3 > sum(rewards[:3]) / 3 + 0.15
    after = policy.model.state_dict()
    assert all(torch.equal(after[name], frozen[name]) for name in frozen)
    assert not torch.equal(policy.memory().slab, rows)
    assert torch.equal(memory.slab, rows)  # what was handed in stays as it was
    assert all(torch.equal(tensor, before[name]) for name, tensor in backbone.model.state_dict().items())
    assert backbone.tokenizer.padding_side == make_backbone().tokenizer.padding_side


def test_loss_is_that_of_its_equation_with_the_bare_backbone_as_reference(
    backbone: Backbone, make_memory: MakeMemory, tmp_path: Path
) -> None:
    memory = make_memory(1)
    beta = 0.3
    trainer = memory_trainer(
        MemoryPolicy(backbone, memory), early_letters, settings(tmp_path, beta=beta, learning_rate=1e-9), data()
    )
    seen: dict[str, Any] = {}
    compute = trainer.compute_loss

    def watched(model: Any, inputs: dict[str, Any], **options: Any) -> Any:
        loss = compute(model, inputs, **options)
        seen.update(inputs | {"loss": float(loss.detach())})
        return loss

    trainer.compute_loss = watched
    trainer.train()
    mask = seen["completion_mask"].bool()
    on, off = logprobs(backbone, seen, memory), logprobs(backbone, seen, None)
    torch.testing.assert_close(seen["ref_per_token_logps"].double()[mask], off[mask], atol=2e-5, rtol=0)
    assert (on - off)[mask].abs().max() > 0.1
    kl = (off - on).exp() - (off - on) - 1
    expected = (beta * kl - seen["advantages"].double()[:, None])[
        mask
    ].sum() / mask.sum()  # p / p_old is 1 at the first step
    assert seen["loss"] == pytest.approx(float(expected), abs=1e-4)
    assert float(seen["advantages"].sum()) == pytest.approx(0.0, abs=1e-3)  # each group's mean reward is taken off
    assert float(seen["advantages"].abs().max()) > 0.5
    rows = zip(seen["prompt_ids"], seen["prompt_mask"].bool(), strict=True)
    prompts = {tuple(ids[kept].tolist()) for ids, kept in rows}
    assert prompts == {tuple(backbone.encode_chat(question(text))) for text in PROMPTS}  # asked as everywhere else


def test_policy_answers_as_the_engine_with_the_memory_and_off_as_without(
    backbone: Backbone, make_memory: MakeMemory
) -> None:
    memory = make_memory(2)
    policy = MemoryPolicy(backbone, memory)
    ids = torch.randint(0, 256, (3, 7))
    engine = Engine(backbone)
    with torch.no_grad():
        on, off, again = (
            policy.model(input_ids=ids).logits,
            policy.reference()(input_ids=ids).logits,
            policy.model(ids).logits,
        )
    torch.testing.assert_close(
        on, engine.logits(ids, memory=MemoryBatch.of([memory], backbone, rows_per_memory=3)), atol=1e-6, rtol=1e-6
    )
    assert torch.equal(off, engine.logits(ids))
    assert torch.equal(on, again)
    assert torch.equal(policy.memory().slab, memory.clipped().slab)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"activation_checkpointing": True}, "activation_checkpointing"),
        ({"save_strategy": "steps"}, "personal data"),
        ({"use_transformers_continuous_batching": True}, "half precision"),
    ],
)
def test_settings_that_lose_or_spill_the_memory_are_refused(
    backbone: Backbone, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigurationError, match=said):
        memory_trainer(MemoryPolicy(backbone, start(backbone)), early_letters, settings(tmp_path, **changes), data())


def test_memory_of_another_backbone_is_refused(backbone: Backbone, make_backbone: MakeBackbone) -> None:
    with pytest.raises(IncompatibleMemory, match="fingerprint"):
        MemoryPolicy(backbone, start(make_backbone(seed=7)))


def test_missing_trl_names_the_extra(backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = settings(tmp_path)
    monkeypatch.setitem(sys.modules, "trl", None)
    with pytest.raises(MissingExtra, match=r"locas-agent\[grpo\]"):
        memory_trainer(MemoryPolicy(backbone, start(backbone)), early_letters, options, None)  # type: ignore[arg-type]

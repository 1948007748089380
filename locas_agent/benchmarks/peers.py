"""LoRA adapters of PEFT on a private copy of a backbone: the peers that need the library.

A mixed batch is PEFT's own: each row of the input names its adapter. The names are handed to the layers once, when the
peer is made, where PEFT does so again in every forward; the peer is spared that.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import Qwen3ForCausalLM

from locas_agent.backbone import Backbone
from locas_agent.benchmarks.bench import without_hooks, wrapped
from locas_agent.evaluation.baselines.peer import peft
from locas_agent.exports.lora import write_lora
from locas_agent.exports.padded import write_padded_base
from locas_agent.inference import Engine
from locas_agent.memory import LocasMemory

ALL_LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
"""What Temp-LoRA adapts."""


def adapted(backbone: Backbone, names: Sequence[str], *, rank: int) -> Any:
    """Return a `PeftModel` of a copy of the backbone, with random adapters beside all its linear layers."""
    options = peft().LoraConfig(
        r=rank, lora_alpha=rank, lora_dropout=0.0, target_modules=ALL_LINEAR, init_lora_weights=False
    )
    own = copy.deepcopy(backbone.model)
    with _quiet(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = peft().get_peft_model(own, options, adapter_name=names[0])
        for name in names[1:]:
            made.add_adapter(name, options)
    return made.to(backbone.device, dtype=backbone.dtype).eval()


def exported(backbone: Backbone, memories: Sequence[LocasMemory], names: Sequence[str], folder: Path) -> Any:
    """Return a `PeftModel` of the padded backbone with memories as adapters.

    What this library exports, read by PEFT.
    """
    base = write_padded_base(backbone, folder / "base", slots=memories[0].width)
    for name, memory in zip(names, memories, strict=True):
        write_lora(backbone, memory, folder / name, base=base)
    with _quiet():
        padded: Any = Qwen3ForCausalLM.from_pretrained(base, dtype=backbone.dtype)
        made = peft().PeftModel.from_pretrained(padded.to(backbone.device), folder / names[0], adapter_name=names[0])
        for name in names[1:]:
            made.load_adapter(folder / name, adapter_name=name)
    return made.to(backbone.device, dtype=backbone.dtype).eval()


def mixed_batch(peer: Any, names: Sequence[str]) -> Engine:
    """Return an engine that runs each row of every input with the adapter named for it."""

    def with_names(_layer: object, args: Any, options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return args, options | {"adapter_names": list(names)}

    engine = without_hooks(wrapped(peer.get_base_model(), name="PEFT mixed batch"))
    for layer in engine.backbone.model.modules():
        if isinstance(layer, peft().tuners.lora.LoraLayer):
            layer.register_forward_pre_hook(with_names, with_kwargs=True)
    return engine


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message="`is_gradient_checkpointing`", category=FutureWarning
        )  # PEFT 0.21 asks transformers 5.23 so
        yield

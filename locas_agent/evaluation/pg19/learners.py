"""What reads a book in `eval pg19`: the bare backbone, one with an adapter, one with a memory.

A chunk is scored before anything is learnt from it.

The three differ in what they train; reading, loss, optimiser and clipping are the same code.

Shapes: T tokens of window and chunk, n scored tokens, D hidden size.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from locas_agent.backbone import Backbone
from locas_agent.errors import IncompatibleMemory
from locas_agent.evaluation.baselines.peer import peft
from locas_agent.evaluation.pg19.data import BookChunk
from locas_agent.evaluation.pg19.options import LocasSettings, LoraSettings, Pg19Options, StepSettings
from locas_agent.inference import Engine
from locas_agent.memory import MemoryBatch
from locas_agent.memory.placement import placement
from locas_agent.training.initialization import initialize
from locas_agent.training.loss.losses import losses_in_parts, next_token_loss
from locas_agent.types import LinearLayers

GRADIENT_CLIP = 1.0
"""Largest gradient norm of a step; that of Temp-LoRA."""
_MOMENTS = ("exp_avg", "exp_avg_sq", "step")
"""What AdamW keeps of a parameter."""

Memories = Callable[[], MemoryBatch | None]


class Bare:
    """The backbone alone, which only scores."""

    parameter_count = 0

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def read(self, chunk: BookChunk, _number: int) -> float:
        """See `Online.read`."""
        return _score(self._engine, chunk, None)

    def state(self) -> dict[str, Tensor]:
        """See `Online.state`."""
        return {}

    def restore(self, _state: Mapping[str, Tensor]) -> None:
        """See `Online.restore`."""


class Online:
    """Scores a chunk, then learns it."""

    def __init__(
        self,
        engine: Engine,
        parameters: Mapping[str, Tensor],
        settings: StepSettings,
        *,
        memory: Memories = lambda: None,
        dropping: nn.Module | None = None,
        seed: int = 0,
    ) -> None:
        """Take what learns.

        Args:
            engine: runs the backbone.
            parameters: what is trained, by name.
            settings: how.
            memory: makes the memory of one forward, in the graph of the parameters.
            dropping: the module whose dropout is on while it learns and off while it scores; None has no dropout.
            seed: of the dropout.
        """
        self._engine, self._parameters, self._settings = engine, dict(parameters), settings
        self._memory, self._dropping, self._seed = memory, dropping, seed
        self._optimizer = torch.optim.AdamW(
            self._parameters.values(), lr=settings.rate, betas=(0.9, 0.999), eps=settings.eps, weight_decay=0.0
        )

    @property
    def parameter_count(self) -> int:
        """Numbers that are trained."""
        return sum(parameter.numel() for parameter in self._parameters.values())

    def read(self, chunk: BookChunk, number: int) -> float:
        """Return a chunk's sum of NLL as it was before the chunk was learnt, nats; then learn it.

        Without dropout the forward that scores is also that of the first step.

        Args:
            chunk: what is read.
            number: its place in the book, from 0.
        """
        for group in self._optimizer.param_groups:
            group["lr"] = self._settings.rate * min(
                1.0, number / self._settings.warmup_chunks if self._settings.warmup_chunks else 1.0
            )
        if self._dropping is None:
            losses = self._losses(chunk)
            total = float(losses.detach().double().sum())
            self._step(losses)
            for _ in range(self._settings.steps - 1):
                self._step(self._losses(chunk))
            return total
        total = _score(self._engine, chunk, self._memory())
        self._dropping.train()
        with torch.random.fork_rng(devices=[self._device] if self._device.type == "cuda" else []):
            torch.manual_seed(
                self._seed * 1_000_003 + number
            )  # a chunk's draws do not depend on where a run was resumed
            for _ in range(self._settings.steps):
                self._step(self._losses(chunk))
        self._dropping.eval()
        return total

    def state(self) -> dict[str, Tensor]:
        """Return parameters and moments as they stand, for a run that goes on later."""
        found = {f"parameter.{name}": parameter.detach().cpu().clone() for name, parameter in self._parameters.items()}
        for name, parameter in self._parameters.items():
            found |= {
                f"{kind}.{name}": self._optimizer.state[parameter][kind].detach().cpu().clone() for kind in _MOMENTS
            }
        return found

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take over what `state` returned.

        Raises:
            IncompatibleMemory: it is of other parameters.
        """
        wanted = {f"{kind}.{name}" for name in self._parameters for kind in ("parameter", *_MOMENTS)}
        if state.keys() != wanted:
            raise IncompatibleMemory(
                f"the saved state holds {len(state)} tensors, {len(wanted)} were expected; remove it to begin anew"
            )
        with torch.no_grad():
            for name, parameter in self._parameters.items():
                parameter.copy_(state[f"parameter.{name}"])
                self._optimizer.state[parameter] = {  # the count of steps stays on the CPU, as AdamW itself keeps it
                    kind: state[f"{kind}.{name}"].to(parameter.device if kind != "step" else "cpu", copy=True)
                    for kind in _MOMENTS
                }

    @property
    def _device(self) -> torch.device:
        return next(iter(self._parameters.values())).device

    def _losses(self, chunk: BookChunk) -> Tensor:
        """NLL of a chunk's scored tokens, in the graph of the parameters, shape (n,)."""
        hidden = self._engine.hidden(torch.tensor([chunk.input_ids]), None, self._memory())[
            0, -len(chunk.targets) :
        ]  # (n, D)
        targets = torch.tensor(chunk.targets, device=hidden.device)
        return losses_in_parts(hidden, lambda part, span: next_token_loss(self._engine.lm_head(part), targets[span]))

    def _step(self, losses: Tensor) -> None:
        losses.mean().backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self._parameters.values(), GRADIENT_CLIP)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)


def with_memory(engine: Engine, first: Sequence[int], settings: LocasSettings, *, seed: int) -> Online:
    """Return a reader with a new memory.

    Args:
        engine: runs the backbone, which stays frozen.
        first: the book's first chunk, by which neurons are ranked. It may be ranked before it is scored: a new memory
            changes no logit.
        settings: width, layers, rows, scale and steps.
        seed: of random rows.
    """
    memory = initialize(
        engine,
        [first],
        width=settings.width,
        layers=placement(settings.layers, engine.backbone.n_layers),
        method=settings.initialization,
        scale_rule=settings.scale,
        seed=seed,
    )
    slab, scale = memory.slab[:, None].requires_grad_(True), memory.scale[:, None]
    return Online(engine, {"slab": slab}, settings, memory=lambda: MemoryBatch.training(slab, scale, engine.backbone))


def with_adapter(backbone: Backbone, settings: LoraSettings, *, seed: int) -> Online:
    """Return a reader with a new adapter beside linear layers, never the output projection.

    It stands in a copy of the backbone.

    Args:
        backbone: is copied and stays untouched.
        settings: rank, layers, dropout and steps.
        seed: of what adapters start from, and of the dropout.

    Raises:
        MissingExtra: PEFT is not installed.
    """
    engine = Engine(
        Backbone(copy.deepcopy(backbone.model), backbone.tokenizer, name=f"{backbone.name} with an adapter")
    )
    adapter = peft().LoraConfig(
        r=settings.rank,
        lora_alpha=settings.rank,
        lora_dropout=settings.dropout,
        target_modules=_linear_layers(engine.backbone, settings.beside),
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message="`is_gradient_checkpointing`", category=FutureWarning
        )  # PEFT 0.21 asks transformers 5.23 so
        torch.manual_seed(seed)
        adapted = peft().get_peft_model(engine.backbone.model, adapter)
    adapted.eval()
    parameters = {name: each for name, each in adapted.named_parameters() if each.requires_grad}
    return Online(engine, parameters, settings, dropping=adapted if settings.dropout else None, seed=seed)


def _linear_layers(backbone: Backbone, beside: LinearLayers) -> list[str]:
    """Return the names of a decoder's linear layers: all, those of its FFNs, or the others, which are attention's."""
    of_ffns = {projection for site in backbone.sites for projection in (*site.gate_up, site.down_proj)}
    linear = {name: each for name, each in backbone.decoder.named_modules() if isinstance(each, torch.nn.Linear)}
    return [name for name, each in linear.items() if beside == "all" or (each in of_ffns) == (beside == "ffn")]


def reader(arm: str, backbone: Backbone, first: Sequence[int], options: Pg19Options) -> Bare | Online:
    """Return what reads a book in an arm."""
    match arm:
        case "locas":
            return with_memory(Engine(backbone), first, options.locas, seed=options.seed)
        case "temp_lora":
            return with_adapter(backbone, options.temp_lora, seed=options.seed)
        case _:
            return Bare(Engine(backbone))


def _score(engine: Engine, chunk: BookChunk, memory: MemoryBatch | None) -> float:
    """Sum of a chunk's NLL, nats."""
    before = len(chunk.input_ids) - len(chunk.targets) + 1
    (logprobs,) = engine.score([chunk.input_ids[:before]], [chunk.targets], memory=memory)
    return -float(logprobs.double().sum())

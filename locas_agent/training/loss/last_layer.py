"""The end of the backbone, for memories that stand beside its last FFN only: from that FFN's input to logits.

Nothing below the last FFN depends on such a memory. So the bare backbone is run once per text, three vectors are kept
at each position that matters, and trying another memory costs one side FFN, one norm and the output projection at those
positions instead of a whole forward.

Shapes: B input rows, T tokens, S kept positions, U memories, P positions per memory, D hidden size, W width, V
    vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from locas_agent.inference import Engine
from locas_agent.inference.batching import micro_batches
from locas_agent.inference.engine import MAX_BATCH_TOKENS
from locas_agent.memory import MemoryBatch
from locas_agent.memory.attach import side_ffn
from locas_agent.training.examples import Example, ExampleBatch
from locas_agent.training.loss.upper_layers import UpperLayers, tolerance_of


@dataclass(frozen=True, eq=False)
class HiddenStates:
    """What the end of the backbone needs at each kept position; shape (S, D) each, or (U, P, D) once gathered.

    Attributes:
        ffn_input: input A of the last FFN.
        ffn_output: FFN(A).
        residual: what enters the final norm, FFN(A) included.
    """

    ffn_input: Tensor
    ffn_output: Tensor
    residual: Tensor

    def __getitem__(self, index: Tensor) -> HiddenStates:
        """Gather positions, shape (U, P)."""
        return HiddenStates(self.ffn_input[index], self.ffn_output[index], self.residual[index])


class LastLayer:
    """The last FFN's side, the final norm and the output projection of one backbone."""

    def __init__(self, engine: Engine) -> None:
        """Take an engine whose backbone `fits`."""
        self._engine = engine
        backbone = engine.backbone
        self._known: WeakKeyDictionary[Example, tuple[Tensor, ...]] = WeakKeyDictionary()
        self._activation = backbone.sites[-1].activation
        self._norm: nn.Module = backbone.decoder.norm
        # Gemma 2 and 3 norm what the FFN gives before it joins the residual.
        self._after_ffn: nn.Module = getattr(backbone.decoder.layers[-1], "post_feedforward_layernorm", nn.Identity())

    @classmethod
    def of(cls, engine: Engine) -> LastLayer | None:
        """Return the last layer of a backbone, or None where its end is built otherwise.

        Then a whole forward has to serve.

        It is tried out on a few tokens with a random memory, not guessed from names.
        """
        backbone = engine.backbone
        if not isinstance(getattr(backbone.decoder, "norm", None), nn.Module):
            return None
        last_layer = cls(engine)
        ids = tuple(range(min(8, backbone.vocab_size)))
        example = Example(ids[:1], ids[1:], None)
        generator = torch.Generator().manual_seed(0)
        rows = torch.randn(1, 1, 3, 2, backbone.hidden_size, generator=generator) / backbone.hidden_size**0.5
        batch = MemoryBatch(rows.to(device=backbone.device, dtype=backbone.dtype))
        with torch.no_grad():
            states, _ = last_layer.states([example])
            here = last_layer.logits(states[torch.arange(len(ids) - 1, device=backbone.device)[None]], batch.rows[0])[0]
            whole = engine.logits(torch.tensor([ids[:-1]]), memory=batch)[0].float()
        is_same = float((here - whole).abs().mean()) <= tolerance_of(backbone.dtype) * float(whole.abs().mean())
        return last_layer if is_same else None

    @cached_property
    def upper(self) -> UpperLayers | None:
        """The upper layers, for memories beside others than the last; None where a whole forward has to serve."""
        return UpperLayers.of(self._engine)

    @torch.no_grad()
    def states(
        self, examples: Sequence[Example], *, max_batch_tokens: int = MAX_BATCH_TOKENS
    ) -> tuple[HiddenStates, list[slice]]:
        """Run the bare backbone over examples and keep the states at their scored positions.

        An example seen before and still held by somebody, as neutral text is, is not run again.

        Args:
            examples: any number of rows.
            max_batch_tokens: budget of one micro-batch.

        Returns:
            States of all examples one after the other, shape (S, D), and the span of each example among them.
        """
        missing = [example for example in dict.fromkeys(examples) if example not in self._known]
        for rows in micro_batches([example.n_tokens for example in missing], max_batch_tokens):
            self._run([missing[row] for row in rows])
        spans, end = [], 0
        for example in examples:
            spans.append(slice(end, end + example.n_scored))
            end += example.n_scored
        parts = zip(*(self._known[example] for example in examples), strict=True)
        return HiddenStates(*(torch.cat(part) for part in parts)), spans

    def _run(self, examples: Sequence[Example]) -> None:
        backbone = self._engine.backbone
        batch = ExampleBatch.of([[example] for example in examples], pad_id=backbone.pad_id, device=backbone.device)
        seen: dict[str, Tensor] = {}
        self._engine.record(batch.input_ids, seen.__setitem__)
        at = 0
        kept = [seen[name][batch.positions] for name in ("ffn_input", "ffn_output", "residual")]
        for example in examples:
            span = slice(at, at + example.n_scored)
            self._known[example] = tuple(tensor[span].clone() for tensor in kept)
            at = span.stop

    def logits(self, states: HiddenStates, rows: Tensor) -> Tensor:
        """Logits of gathered positions, each with its memory; gradients flow into `rows`.

        Args:
            states: shape (U, P, D).
            rows: effective rows of the last layer, shape (U, 3, W, D).

        Returns:
            Shape (U, P, V), fp32.
        """
        moved = side_ffn(states.ffn_input, states.ffn_output, rows, self._activation)  # (U, P, D)
        residual = states.residual + (self._after_ffn(moved) - self._after_ffn(states.ffn_output))
        return self._engine.lm_head(self._norm(residual)).float()

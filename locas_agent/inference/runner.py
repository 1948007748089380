"""Forwards of one backbone, each input row with its own memory or none.

Token ids and memories in, hidden states and logits out.

Shapes: B input rows, T tokens, D hidden size, V vocabulary, n selected positions.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from locas_agent.backbone import Backbone
from locas_agent.backbone.hooks import Entering, Observer, Observing, Recorder, Recording, carrying
from locas_agent.backbone.kernels.attention import NAME
from locas_agent.backbone.partial import lower_part, upper_part
from locas_agent.errors import TurnTooLong
from locas_agent.inference.kv_buffer import is_full_attention
from locas_agent.memory import MemoryBatch
from locas_agent.memory.attach import attached


class ModelRunner:
    """Runs one backbone. Memory is an argument of every call, for exactly the rows of that call.

    Calls may come from several threads at once.
    """

    def __init__(self, backbone: Backbone, *, records_steps: bool = False) -> None:
        """Take a backbone; nothing is allocated.

        Args:
            backbone: runs.
            records_steps: write tokens by steps that a GPU repeats as a whole (`recorded_step.py`), where the backbone
                can; elsewhere the same tokens come no faster.
        """
        self.backbone = backbone
        self.records_steps = records_steps

    def logits(
        self,
        input_ids: Tensor,
        *,
        attention_mask: Tensor | None = None,
        memory: MemoryBatch | None = None,
        positions: Tensor | None = None,
    ) -> Tensor:
        """Logits of a batch, at chosen positions only if asked: the output projection is the largest product of all.

        Gradients flow into `memory.rows` where they require grad; the backbone is frozen.

        Args:
            input_ids: shape (B, T), int64.
            attention_mask: 1 for tokens, 0 for padding on either side, shape (B, T).
            memory: serves exactly B rows; None is the bare backbone.
            positions: a bool mask, shape (B, T), or flat indices b * T + t, shape (n,).

        Returns:
            Logits in the backbone's dtype, shape (n, V) in the order of `positions`, or (B, T, V) without them.

        Raises:
            IncompatibleMemory: the batch of memories serves another number of rows.
            TurnTooLong: T exceeds the backbone's context.
        """
        hidden = self.hidden(input_ids, attention_mask, memory)  # (B, T, D)
        if positions is None:
            return self.lm_head(hidden)
        at = positions.to(hidden.device)
        if at.dtype == torch.bool:
            return self.lm_head(hidden[at])
        return self.lm_head(hidden.flatten(0, 1)[at])

    def hidden(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        memory: MemoryBatch | None = None,
        *,
        cache: Any = None,
        position_ids: Tensor | None = None,
    ) -> Tensor:
        """Last hidden states of one forward, normed, before the output projection; gradients as in `logits`.

        Args:
            input_ids: shape (B, T), int64.
            attention_mask: 1 for tokens, 0 for padding on either side, those in the cache included, shape (B, P + T);
                or, with `position_ids`, what is added to attention's scores, shape (B, 1, T, P + T).
            memory: serves exactly B rows; None is the bare backbone.
            cache: a KV cache of P positions, which grows by T. It belongs to these rows with these memories, and to no
                others.
            position_ids: place of each token in its row, shape (B, T); counted from the mask unless given.

        Returns:
            Shape (B, T, D).
        """
        with attached(self.backbone, memory):
            return self._run(input_ids, attention_mask, cache=cache, position_ids=position_ids)

    @torch.inference_mode()
    def observe(self, input_ids: Tensor, attention_mask: Tensor, observer: Observer) -> None:
        """Run the bare backbone and show each FFN's intermediate activations; nothing is returned.

        Args:
            input_ids: shape (B, T), int64.
            attention_mask: 1 for tokens, 0 for padding, shape (B, T).
            observer: called once per layer with its index and a tensor of shape (B, T, N).
        """
        with carrying(self.backbone.hook_key, Observing(observer)):
            self._run(input_ids, attention_mask)

    @torch.no_grad()
    def enter(self, input_ids: Tensor, observer: Observer) -> None:
        """Run the bare backbone and show each FFN's input; nothing is returned.

        Args:
            input_ids: right-padded, shape (B, T), int64: causal attention never looks at the padding.
            observer: called once per layer with its index and a tensor of shape (B, T, D).
        """
        with carrying(self.backbone.hook_key, Entering(observer)):
            self._run(input_ids, None)

    @torch.no_grad()
    def record(self, input_ids: Tensor, recorder: Recorder) -> None:
        """Run the bare backbone and show the last FFN's input and output and what enters the final norm.

        Nothing is returned.

        Args:
            input_ids: right-padded, shape (B, T), int64: causal attention never looks at the padding.
            recorder: called with a name and a tensor of shape (B, T, D) that may take part in autograd later.
        """
        with carrying(self.backbone.hook_key, Recording(recorder, last_layer=self.backbone.n_layers - 1)):
            self._run(input_ids, None)

    @torch.no_grad()
    def below(self, input_ids: Tensor, first: int, *, mask: Tensor | None, position_ids: Tensor | None) -> Tensor:
        """Run the layers below one of the bare backbone.

        Args:
            input_ids: right-padded or packed, shape (B, T), int64.
            first: a layer, from 0 on.
            mask: added to attention's scores, shape (B, 1, T, T); None lets a token look at all up to itself.
            position_ids: place of each token in its text, shape (B, T); None is its place in the row.

        Returns:
            What enters that layer, shape (B, T, D); it may take part in autograd later.
        """
        seen: dict[str, Tensor] = {}
        with carrying(self.backbone.hook_key, Recording(seen.__setitem__, last_layer=-1)):
            lower_part(self.backbone.decoder, first)(
                input_ids=input_ids.to(self.backbone.device),
                attention_mask=mask,
                position_ids=position_ids,
                use_cache=False,
            )
        return seen["residual"]

    def above(
        self,
        states: Tensor,
        first: int,
        memory: MemoryBatch | None,
        *,
        mask: Tensor | None,
        position_ids: Tensor | None,
    ) -> Tensor:
        """Run the layers from one on.

        Last hidden states, normed, before the output projection; gradients as in `logits`.

        Args:
            states: from `below`, shape (B, T, D).
            first: the layer they enter.
            memory: serves exactly B rows, and stands beside no layer below; None is the bare backbone.
            mask: as in `below`.
            position_ids: as in `below`.

        Returns:
            Shape (B, T, D).
        """
        with attached(self.backbone, memory):
            output = upper_part(self.backbone.decoder, first, states)(
                inputs_embeds=states, attention_mask=mask, position_ids=position_ids, use_cache=False
            )
        hidden: Tensor = output.last_hidden_state
        return hidden

    def lm_head(self, hidden: Tensor) -> Tensor:
        """Logits of hidden states, shape (..., D) -> (..., V), with the scaling some architectures put after it."""
        config = self.backbone.config
        logits: Tensor = self.backbone.model.get_output_embeddings()(hidden)
        if getattr(config, "logits_scaling", None):  # Granite
            logits = logits / config.logits_scaling
        if getattr(config, "logit_scale", None):  # Cohere
            logits = logits * config.logit_scale
        cap = getattr(config, "final_logit_softcapping", None)  # Gemma 2
        return torch.tanh(logits / cap) * cap if cap else logits

    @property
    def takes_masks(self) -> bool:
        """Whether attention takes what is to be added to its scores; flash-attn does not."""
        return self.backbone.config._attn_implementation in ("sdpa", NAME)

    def _packs_queries(self, cache: Any) -> bool:
        """Tell whether one new token a row attends faster under a mask of its own than under none.

        With a mask, transformers puts the queries that share a key head side by side; without one torch's kernel for
        the CPU runs each query by itself, four times slower in half precision. The mask is ready as it stands where
        every layer looks at every column.
        """
        backbone = self.backbone
        return (
            backbone.device.type == "cpu"
            and backbone.dtype.itemsize < 4
            and self.takes_masks
            and is_full_attention(cache)
        )

    def _run(
        self, input_ids: Tensor, attention_mask: Tensor | None, *, cache: Any = None, position_ids: Tensor | None = None
    ) -> Tensor:
        """One forward with whatever this thread has attached, shape (B, T, D).

        Positions count tokens only, so padding on either side changes nothing.
        """
        device, limit = self.backbone.device, self.backbone.context_tokens
        if input_ids.shape[1] > limit:
            raise TurnTooLong(
                f"{input_ids.shape[1]} tokens exceed the {limit} that {self.backbone.name!r} can attend to"
            )
        mask = attention_mask
        if mask is not None and mask.dim() == 2:  # else it is what is added to scores
            mask = mask.to(device=device, dtype=torch.int64)
            if position_ids is None:
                position_ids = (mask.cumsum(dim=1) - 1).clamp_min(0)  # (B, T)
            if cache is not None and input_ids.shape[1] == 1 and self._packs_queries(cache):
                seen = torch.zeros(mask.shape, dtype=self.backbone.dtype, device=device)
                mask = seen.masked_fill_(mask == 0, -torch.inf)[:, None, None]  # (B, 1, 1, C)
        output = self.backbone.decoder(
            input_ids=input_ids.to(device),
            attention_mask=mask,
            position_ids=position_ids,
            cache=cache,
            use_cache=cache is not None,
        )
        hidden: Tensor = output.last_hidden_state
        return hidden

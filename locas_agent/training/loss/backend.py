"""Losses of the student, the backbone with one memory per user, without the text its examples came from.

Three ways to the same numbers: the last layer for memories beside the last layer only, the upper layers for memories at
other depths, and a whole forward for backbones that cannot be cut.

Shapes: L layers that carry a memory, U users, P scored positions per user (padded), W width, D hidden size, K kept
    candidates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from locas_agent.backbone import Backbone
from locas_agent.inference import Engine
from locas_agent.memory import LocasMemory, MemoryBatch
from locas_agent.memory.slab import effective_rows
from locas_agent.training.examples import Example, ExampleBatch
from locas_agent.training.loss.last_layer import HiddenStates, LastLayer
from locas_agent.training.loss.losses import Score, losses_in_parts, mean_by_user, teacher_divergence
from locas_agent.training.loss.upper_layers import UpperLayersForward

SCORED_ROWS = 64
"""Examples scored in one forward."""


class LossBackend(Protocol):
    """Losses of memories on examples."""

    def accumulate_gradients(
        self,
        slab: Tensor,
        scale: Tensor,
        examples: Sequence[Sequence[Example]],
        weight: float,
        *,
        layers: tuple[int, ...] = (),
    ) -> Tensor:
        """Add the gradient of the weighted losses to `slab.grad`; return each user's loss, shape (U,), on the CPU.

        A user's loss is the mean over rows of the mean over tokens; losses of users are summed, so each gets the
        gradient it would get alone.

        Args:
            slab: master rows under training, shape (L, U, 3, W, D), with a gradient.
            scale: output scales, shape (L, U).
            examples: of each user, the same number of rows for all.
            weight: of these rows.
            layers: the layers beside which the memories stand, numbered from the last (-1); the L topmost unless given.
        """
        ...

    def evaluate(
        self, memories: Sequence[LocasMemory | None], examples: Sequence[Sequence[Example]]
    ) -> list[list[Score]]:
        """Return the score of each memory's examples; a user may have any number of them."""
        ...


class FullForward:
    """Runs the whole backbone each time."""

    def __init__(self, engine: Engine, *, max_batch_tokens: int) -> None:
        self._engine = engine
        self._max_batch_tokens = max_batch_tokens

    def accumulate_gradients(
        self,
        slab: Tensor,
        scale: Tensor,
        examples: Sequence[Sequence[Example]],
        weight: float,
        *,
        layers: tuple[int, ...] = (),
    ) -> Tensor:
        """See `LossBackend.accumulate_gradients`."""
        backbone = self._engine.backbone

        def losses(part: Tensor, chosen: slice) -> Tensor:
            batch = ExampleBatch.of(examples[chosen], pad_id=backbone.pad_id, device=backbone.device)
            rows = len(examples[0])
            memory = MemoryBatch.training(part, scale[:, chosen], backbone, rows_per_memory=rows, layers=layers)
            hidden = self._engine.hidden(batch.input_ids, None, memory)[batch.positions]  # (n, D)
            by_token = losses_in_parts(hidden, lambda part, span: batch.losses(self._engine.lm_head(part), span))
            return weight * mean_by_user(by_token, batch.rows, batch.row_weights, batch.n_users)

        longest = max(example.n_tokens for user in examples for example in user)
        return _accumulate(slab, max(1, self._max_batch_tokens // (len(examples[0]) * longest)), losses)

    @torch.inference_mode()
    def evaluate(
        self, memories: Sequence[LocasMemory | None], examples: Sequence[Sequence[Example]]
    ) -> list[list[Score]]:
        """See `LossBackend.evaluate`."""
        backbone = self._engine.backbone
        asked = [(user, at) for user, own in enumerate(examples) for at in range(len(own))]
        asked.sort(key=lambda each: examples[each[0]][each[1]].n_tokens)
        results: list[list[Score]] = [[(torch.zeros(0), False)] * len(own) for own in examples]
        for start in range(0, len(asked), SCORED_ROWS):
            chunk = asked[start : start + SCORED_ROWS]
            batch = ExampleBatch.of(
                [[examples[user][at]] for user, at in chunk], pad_id=backbone.pad_id, device=backbone.device
            )
            chosen = [memories[user] for user, _ in chunk]
            memory = MemoryBatch.of(chosen, backbone) if any(each is not None for each in chosen) else None
            logits = self._engine.logits(batch.input_ids, memory=memory, positions=batch.positions)
            lengths = [examples[user][at].n_scored for user, at in chunk]
            losses, right = (
                torch.split(batch.losses(logits).cpu(), lengths),
                torch.split((logits.argmax(-1) == batch.targets).cpu(), lengths),
            )
            for (user, at), loss, hit in zip(chunk, losses, right, strict=True):
                results[user][at] = (loss, bool(hit.all()))
        return results


class LastLayerForward:
    """Runs the bare backbone once over all examples that will be seen, and only its end from then on."""

    def __init__(
        self, last_layer: LastLayer, backbone: Backbone, examples: Sequence[Example], *, max_batch_tokens: int
    ) -> None:
        """Compute the states of the examples.

        Args:
            last_layer: the end of the backbone.
            backbone: whose end it is.
            examples: all that `accumulate_gradients` and `evaluate` will be given, by identity.
            max_batch_tokens: positions of one product.
        """
        self._last_layer = last_layer
        self._device = backbone.device
        self._max_positions = max_batch_tokens
        unique = list(dict.fromkeys(examples))
        self._states, spans = last_layer.states(unique)
        self._spans = dict(zip(unique, spans, strict=True))
        table = ExampleBatch.of([[example] for example in unique], pad_id=backbone.pad_id, device=backbone.device)
        self._targets, self._teacher_ids, self._teacher_logprobs = (
            table.targets,
            table.teacher_ids,
            table.teacher_logprobs,
        )

    def accumulate_gradients(
        self,
        slab: Tensor,
        scale: Tensor,
        examples: Sequence[Sequence[Example]],
        weight: float,
        *,
        layers: tuple[int, ...] = (),
    ) -> Tensor:
        """See `LossBackend.accumulate_gradients`."""
        assert layers in ((), (-1,))

        def losses(part: Tensor, chosen: slice) -> Tensor:
            index, weights = self._gathered(examples[chosen])
            found, _ = self._at(index, effective_rows(part, scale[:, chosen])[0])
            return weight * (found * weights).sum(-1)

        positions = max(sum(example.n_scored for example in user) for user in examples)
        return _accumulate(slab, max(1, self._max_positions // positions), losses)

    @torch.inference_mode()
    def evaluate(
        self, memories: Sequence[LocasMemory | None], examples: Sequence[Sequence[Example]]
    ) -> list[list[Score]]:
        """See `LossBackend.evaluate`."""
        results = []
        for memory, own in zip(memories, examples, strict=True):
            scores: list[Score] = []
            rows = None if memory is None else effective_rows(memory.slab, memory.scale)[-1:].to(self._device)
            for start in range(0, len(own), SCORED_ROWS):
                chunk = own[start : start + SCORED_ROWS]
                index, _ = self._gathered([chunk])
                losses, right = self._at(index, rows)
                lengths = [example.n_scored for example in chunk]
                parts = zip(torch.split(losses[0].cpu(), lengths), torch.split(right[0].cpu(), lengths), strict=True)
                scores += [(loss, bool(hit.all())) for loss, hit in parts]
            results.append(scores)
        return results

    def _gathered(self, examples: Sequence[Sequence[Example]]) -> tuple[Tensor, Tensor]:
        """Return the positions of each user's examples, padded, and the weight of each in the user's mean.

        Both of shape (U, P).
        """
        length = max(sum(example.n_scored for example in user) for user in examples)
        index = torch.zeros(len(examples), length, dtype=torch.long)
        weights = torch.zeros(len(examples), length)
        for row, user in enumerate(examples):
            total, end = sum(example.weight for example in user), 0
            for example in user:
                span, start = self._spans[example], end
                end += example.n_scored
                index[row, start:end] = torch.arange(span.start, span.stop)
                weights[row, start:end] = example.weight / (total * example.n_scored)
        return index.to(self._device), weights.to(self._device)

    def _at(self, index: Tensor, rows: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return loss and rightness at positions, shape (U, P) each; without rows the bare backbone's."""
        states: HiddenStates = self._states[index]
        if rows is None:
            rows = states.ffn_input.new_zeros(index.shape[0], 3, 1, states.ffn_input.shape[-1])
        logits = self._last_layer.logits(states, rows.to(states.ffn_input.dtype))  # (U, P, V)
        losses = teacher_divergence(
            logits.flatten(0, 1), self._teacher_ids[index].flatten(0, 1), self._teacher_logprobs[index].flatten(0, 1)
        )
        return losses.view(index.shape), logits.argmax(-1) == self._targets[index]


def loss_backend_for(
    engine: Engine,
    last_layer: LastLayer | None,
    memories: Sequence[LocasMemory | None],
    examples: Sequence[Example],
    *,
    max_batch_tokens: int,
) -> LossBackend:
    """Return the cheapest way to the losses of memories that stand where these do.

    Args:
        engine: runs the backbone.
        last_layer: its end, and its upper layers; None where it is built in a way not known.
        memories: those that will be tried; None is the bare backbone.
        examples: all that the loss backend will be given.
        max_batch_tokens: tokens of one forward, or positions of one product.
    """
    lowest = min((memory.layers[0] for memory in memories if memory is not None), default=-1)
    if last_layer is not None and lowest == -1:
        return LastLayerForward(last_layer, engine.backbone, examples, max_batch_tokens=max_batch_tokens)
    if last_layer is not None and last_layer.upper is not None:
        first = engine.backbone.n_layers + lowest
        return UpperLayersForward(engine, last_layer.upper, first=first, max_batch_tokens=max_batch_tokens)
    return FullForward(engine, max_batch_tokens=max_batch_tokens)


def _accumulate(slab: Tensor, users: int, losses: Callable[[Tensor, slice], Tensor]) -> Tensor:
    """Run forward and backward for `users` users at a time.

    Each part has a gradient of its own, so none is as large as the slab.
    """
    assert slab.grad is not None
    found = []
    for start in range(0, slab.shape[1], users):
        chosen = slice(start, start + users)
        part = slab.detach()[:, chosen].requires_grad_(True)
        by_user = losses(part, chosen)
        by_user.sum().backward()  # type: ignore[no-untyped-call]
        assert part.grad is not None
        slab.grad[:, chosen] += part.grad
        found.append(by_user.detach().cpu())
    return torch.cat(found)

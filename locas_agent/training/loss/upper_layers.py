"""The upper layers of the backbone, for memories at any depth: from what enters the lowest layer with a memory.

It holds no user's data longer than the caller holds the example it came from.

Nothing below the lowest memory depends on it. So the bare backbone is run up to there once per text, and a step of
training costs only what is above; rows of one owner share one sequence (`packing.py`).

Shapes: P sequences, T tokens, D hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from locas_agent.inference import Engine
from locas_agent.inference.engine import MAX_BATCH_TOKENS
from locas_agent.memory import LocasMemory, MemoryBatch
from locas_agent.training.examples import Example, ExampleBatch
from locas_agent.training.loss.losses import Score, losses_in_parts
from locas_agent.training.loss.packing import PackedRows, layouts

STATE_BYTES = 1 << 30
"""States kept at once; those of further texts are computed again in each step."""


def tolerance_of(dtype: torch.dtype) -> float:
    """Return with which mean difference from a whole forward a backbone is served another way, relative to its size.

    In half precision sums of other shapes round some 0.03 apart on senseless tokens; a wrong mask is ten times that.
    """
    return 1e-3 if dtype.itemsize >= 4 else 0.1


class UpperLayers:
    """What enters a layer, kept, and the layers from there on."""

    def __init__(self, engine: Engine, *, is_packed: bool) -> None:
        """Take an engine whose backbone `fits`.

        Args:
            engine: runs the backbone.
            is_packed: its decoder takes a mask of ours.
        """
        self._engine = engine
        self._is_packed = is_packed
        self._kept: dict[int, WeakKeyDictionary[Example, Tensor]] = {}
        config = engine.backbone.config
        reaches = (getattr(config, "sliding_window", None), getattr(config, "attention_chunk_size", None))
        # A mask of ours says the same to every layer: right as long as no layer looks less far back than a row is long.
        self._reach = min([each for each in reaches if each], default=engine.backbone.context_tokens)

    @classmethod
    def of(cls, engine: Engine) -> UpperLayers | None:
        """Return the upper layers of a backbone, or None where its decoder cannot be cut; a whole forward serves then.

        It is tried out on a few tokens with a random memory, in the form that packs rows and in the one that does not,
        not guessed from names.
        """
        backbone = engine.backbone
        if not isinstance(getattr(backbone.decoder, "norm", None), torch.nn.Module) or backbone.n_layers < 1:
            return None
        for is_packed in (True, False):
            try:
                if cls(engine, is_packed=is_packed)._is_same():
                    return cls(engine, is_packed=is_packed)
            except (TypeError, ValueError, AttributeError, RuntimeError, IndexError, KeyError):
                continue  # a decoder that is called or built in another way
        return None

    @torch.no_grad()
    def _is_same(self) -> bool:
        engine, backbone = self._engine, self._engine.backbone
        middle = backbone.n_layers // 2
        words, most = min(backbone.vocab_size, 64), min(12, self._reach)  # no longer than rows that are packed
        texts = [[*range(1, 4), *((7 * at + row) % words for at in range(most - 3 - row))] for row in range(2)]
        examples = [Example(tuple(text[:-1]), tuple(text[-1:]), None) for text in texts]
        generator = torch.Generator().manual_seed(0)
        shape = (backbone.n_layers - middle, 1, 3, 2, backbone.hidden_size)
        rows = torch.randn(shape, generator=generator) / backbone.hidden_size**0.5
        memory = MemoryBatch(rows.to(device=backbone.device, dtype=backbone.dtype))
        limit = tolerance_of(backbone.dtype)
        for layout in self.layouts(examples, [0, 0], max_batch_tokens=MAX_BATCH_TOKENS):
            batch = memory.select([0] * len(layout.owners))
            hidden = self.hidden(layout, examples, middle, batch).flatten(0, 1)
            for row, places in zip(layout.rows, layout.places, strict=True):
                whole = engine.hidden(torch.tensor([texts[row][:-1]]), None, memory)[0].float()
                if not float((hidden[places].float() - whole).abs().mean()) <= limit * float(whole.abs().mean()):
                    return False
        return True

    def layouts(self, examples: Sequence[Example], owners: Sequence[int], *, max_batch_tokens: int) -> list[PackedRows]:
        """Lay out rows for the forwards of this backbone; see `packing.layouts`."""
        backbone = self._engine.backbone
        is_packed = self._is_packed and max(example.n_tokens for example in examples) <= self._reach
        found = layouts(
            examples,
            owners,
            is_packed=is_packed,
            pad_id=backbone.pad_id,
            max_batch_tokens=max_batch_tokens,
            dtype=backbone.dtype,
            device=backbone.device,
        )
        return list(found)

    def hidden(self, layout: PackedRows, examples: Sequence[Example], first: int, memory: MemoryBatch | None) -> Tensor:
        """Run the layers from one on over rows laid out.

        Args:
            layout: from `layouts` of these examples.
            examples: all of them.
            first: the lowest layer that runs, from 0 on.
            memory: serves as many rows as the layout has sequences; None is the bare backbone.

        Returns:
            Normed hidden states, shape (P, T, D); gradients flow into the memory.
        """
        own = [examples[row] for row in layout.rows]
        found = self._states(own, first)
        states = found[0].new_zeros(layout.ids.numel(), found[0].shape[1])
        states[torch.cat(layout.places)] = torch.cat(found)
        return self._engine.above(
            states.view(*layout.ids.shape, -1), first, memory, mask=layout.mask, position_ids=layout.position_ids
        )

    @torch.inference_mode(False)
    @torch.no_grad()
    def _states(self, examples: Sequence[Example], first: int) -> list[Tensor]:
        """What enters a layer at each token of each row, shape (its tokens, D) each; run only where it is not kept."""
        kept = self._kept.setdefault(first, WeakKeyDictionary())
        found = {example: kept[example] for example in examples if example in kept}
        missing = [example for example in dict.fromkeys(examples) if example not in found]
        if missing:
            room = STATE_BYTES - sum(each.nbytes for own in self._kept.values() for each in own.values())
            for layout in self.layouts(missing, [0] * len(missing), max_batch_tokens=MAX_BATCH_TOKENS):
                states = self._engine.below(
                    layout.ids, first, mask=layout.mask, position_ids=layout.position_ids
                ).flatten(0, 1)
                for row, places in zip(layout.rows, layout.places, strict=True):
                    found[missing[row]] = states[places]
                    room -= found[missing[row]].nbytes
                    if room >= 0:
                        kept[missing[row]] = found[missing[row]]
        return [found[example] for example in examples]


class UpperLayersForward:
    """Runs the bare backbone once over each text up to the lowest memory, and the layers above from then on."""

    def __init__(self, engine: Engine, upper: UpperLayers, *, first: int, max_batch_tokens: int) -> None:
        """Take the parts.

        Args:
            engine: gives the output projection.
            upper: the upper layers.
            first: the lowest layer with a memory, from 0 on.
            max_batch_tokens: tokens of one forward.
        """
        self._engine = engine
        self._upper = upper
        self._first = first
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
        assert slab.grad is not None
        backbone = self._engine.backbone
        flat = [example for user in examples for example in user]
        owners = [user for user, own in enumerate(examples) for _ in own]
        totals = [sum(example.weight for example in user) for user in examples]
        by_user = torch.zeros(len(examples))
        for layout in self._upper.layouts(flat, owners, max_batch_tokens=self._max_batch_tokens):
            chosen = sorted(set(layout.owners))
            part = slab.detach()[:, chosen].requires_grad_(True)
            memory = MemoryBatch.training(part, scale[:, chosen], backbone, layers=layers)
            own = [flat[row] for row in layout.rows]
            losses, _ = self._losses(layout, flat, memory.select([chosen.index(owner) for owner in layout.owners]))
            shares = [flat[row].weight / (totals[owners[row]] * flat[row].n_scored) for row in layout.rows]
            lengths = torch.tensor([example.n_scored for example in own])
            weighted = weight * losses * torch.repeat_interleave(torch.tensor(shares), lengths).to(losses.device)
            weighted.sum().backward()  # type: ignore[no-untyped-call]
            assert part.grad is not None
            slab.grad[:, chosen] += part.grad
            users = torch.repeat_interleave(torch.tensor([owners[row] for row in layout.rows]), lengths)
            by_user.index_add_(0, users, weighted.detach().cpu())
        return by_user

    @torch.inference_mode()
    def evaluate(
        self, memories: Sequence[LocasMemory | None], examples: Sequence[Sequence[Example]]
    ) -> list[list[Score]]:
        """See `LossBackend.evaluate`."""
        asked = [(user, at) for user, own in enumerate(examples) for at in range(len(own))]
        flat, owners = [examples[user][at] for user, at in asked], [user for user, _ in asked]
        results: list[list[Score]] = [[(torch.zeros(0), False)] * len(own) for own in examples]
        for layout in self._upper.layouts(flat, owners, max_batch_tokens=self._max_batch_tokens) if flat else []:
            chosen = [memories[owner] for owner in layout.owners]
            is_bare = all(memory is None for memory in chosen)
            losses, right = self._losses(
                layout, flat, None if is_bare else MemoryBatch.of(chosen, self._engine.backbone)
            )
            lengths = [flat[row].n_scored for row in layout.rows]
            parts = zip(layout.rows, torch.split(losses.cpu(), lengths), torch.split(right.cpu(), lengths), strict=True)
            for row, loss, hit in parts:
                user, at = asked[row]
                results[user][at] = (loss, bool(hit.all()))
        return results

    def _losses(
        self, layout: PackedRows, examples: Sequence[Example], memory: MemoryBatch | None
    ) -> tuple[Tensor, Tensor]:
        """Return loss and, without gradient, rightness of scored tokens, row by row, shape (n,) each."""
        backbone = self._engine.backbone
        own = [examples[row] for row in layout.rows]
        table = ExampleBatch.of([own], pad_id=backbone.pad_id, device=backbone.device)
        scored = [
            places[len(example.prompt) - 1 + torch.tensor(example.places, device=places.device)]
            for example, places in zip(own, layout.places, strict=True)
        ]
        hidden = self._upper.hidden(layout, examples, self._first, memory).flatten(0, 1)[torch.cat(scored)]  # (n, D)
        right = torch.zeros(len(hidden), dtype=torch.bool, device=hidden.device)

        def losses(part: Tensor, span: slice) -> Tensor:
            logits = self._engine.lm_head(part)
            if not torch.is_grad_enabled():
                right[span] = logits.argmax(-1) == table.targets[span]
            return table.losses(logits, span)

        return losses_in_parts(hidden, losses), right

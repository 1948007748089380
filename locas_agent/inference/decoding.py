"""Rows of one batch while they are being answered.

Token by token, each row with its own memory, and a KV cache that dies with them. Rows may be put beside those of
another batch under way, see `running_batch.py`.

What a row was run with may be taken up from its `PrefixSlot` and is left there again: a copy, see `prefix_cache.py`.

Shapes: B rows, T tokens, C columns of the cache, P tokens of a common beginning, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from locas_agent.inference.batching import Beginnings, KeptBeginnings, memories_of, pad
from locas_agent.inference.drawing import draw, top_k_of
from locas_agent.inference.generation import AnswerRow, TopK
from locas_agent.inference.kv_buffer import (
    is_buffered,
    is_full_attention,
    join_rows,
    joined_masks,
    new_cache,
)
from locas_agent.inference.prefix_cache import load_prefix, save_prefix
from locas_agent.inference.recorded_step import RecordedStep
from locas_agent.inference.runner import ModelRunner
from locas_agent.memory import MemoryBatch

RECORDED_AFTER = 4
"""Steps of unchanged rows before one is recorded: recording takes as long as some steps."""


class BatchGeneration:
    """Rows under way: left-padded tokens that wait to be run, and the KV cache, which dies with them."""

    def __init__(
        self,
        runner: ModelRunner,
        rows: Sequence[AnswerRow],
        memory: MemoryBatch | None,
        *,
        groups: Sequence[tuple[int, int]] | None = None,
        begun: KeptBeginnings | None = None,
        top_k: int = 0,
        is_scored: bool = False,
    ) -> None:
        """Take up what need not be run row by row; prompts are run by the first step.

        Args:
            runner: runs the backbone.
            rows: nothing is written of them yet.
            memory: serves exactly these rows; None is the bare backbone.
            groups: of each row its group and how many tokens the group shares; no `kept` beside it.
            begun: beginnings of groups that calls with the same memory have run.
            top_k: candidates kept of each distribution.
            is_scored: keep the log-probability of each token.
        """
        self.runner = runner
        self.rows = list(rows)  # of the running batch; finished ones leave when half of it is done
        self.memory = memory
        self._top_k = top_k
        self._is_scored = is_scored or bool(top_k)
        self._unchanged = 0
        self._recorded: RecordedStep | None = None
        self.cache: Any = new_cache(runner.backbone.model.config)
        held, shared = self._begin(groups, begun)
        suffixes = [row.prompt[count:] for row, count in zip(self.rows, shared, strict=True)]
        self.inputs, mask = (
            part.to(runner.backbone.device) for part in pad(suffixes, runner.backbone.pad_id, left=True)
        )
        self.mask = torch.cat([held, mask], dim=1)  # (B, C + T)

    @property
    def alive(self) -> list[AnswerRow]:
        """Rows that still generate."""
        return [row for row in self.rows if not row.is_over]

    @property
    def may_be_joined(self) -> bool:
        """Whether rows can be put beside these: not where a layer keeps a state instead of keys and values."""
        return is_buffered(self.cache)

    @property
    def waiting_tokens(self) -> int:
        """T, how many columns of tokens the next step runs; 1 once the prompts are run."""
        return self.inputs.shape[1]

    def step(self) -> list[AnswerRow]:
        """Generate one token for every living row, and return these rows."""
        if len(self.alive) * 2 <= len(self.rows):
            self.drop_finished()
        return self._generate()

    @torch.inference_mode()
    def _generate(self) -> list[AnswerRow]:
        logits = self._next_logits()  # (B, V)
        doubted = self._doubted(logits)
        if doubted:
            return self._answer_bare(logits, doubted)
        return self._take(logits)

    def _take(self, logits: Tensor) -> list[AnswerRow]:
        """Draw the next token of every row, shape (B, V); return those that were under way."""
        chosen = draw(logits, self.rows)  # (B,)
        alive = self.alive
        if self._is_scored:
            self._score(logits, chosen)
        stop_ids = self.runner.backbone.stop_ids
        for row, token in zip(self.rows, chosen.tolist(), strict=True):
            if not row.is_over:
                row.take(token, stop_ids)
        self.inputs = chosen[:, None]
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(self.rows), 1)], dim=1)
        if not self.alive:
            self.drop_finished()
        return alive

    def _doubted(self, logits: Tensor) -> list[int]:
        """Rows at their first token of which their memory is less sure than it has to be.

        A memory knows what it was taught almost surely, and makes something up with less; what it does not know the
        backbone answers as if there were none. Origin: `docs/decisions.md`, certainty.
        """
        if (memory := self.memory) is None or not any(memory.certainties):
            return []
        first = [at for at, row in enumerate(self.rows) if not row.ids and not row.is_over and memory.certainty(at)]
        if not first:
            return []
        surest = logits[first].softmax(dim=-1).amax(dim=-1).tolist()
        return [at for at, sure in zip(first, surest, strict=True) if sure < memory.certainty(at)]

    def _answer_bare(self, logits: Tensor, doubted: list[int]) -> list[AnswerRow]:
        """Let the bare backbone answer some rows from their prompts on, and the others go on beside them."""
        rows = [self.rows[at] for at in doubted]
        self._stop_repeating()
        self._leave(doubted)
        for row in rows:
            row.kept = None  # what the bare backbone has run is no past of a memory
        bare = BatchGeneration(self.runner, rows, None, top_k=self._top_k, is_scored=self._is_scored)
        others = sorted(set(range(len(self.rows))) - set(doubted))
        taken = bare.step()
        if others:
            self._keep(others)
            taken += self._take(logits[others])
        if not others or not self.rows:
            self.rows, self.inputs, self.mask = bare.rows, bare.inputs, bare.mask
            self.cache, self.memory = bare.cache, None
        elif bare.rows and self.may_be_joined:
            self.join(bare)
        else:
            while bare.alive:  # what cannot stand beside others is written to its end
                bare.step()
        return taken

    @torch.inference_mode()
    def run_ahead(self, tokens: int) -> None:
        """Run the first columns of long prompts, so that the next step runs the rest; at least one column stays.

        Args:
            tokens: columns to run.
        """
        self._run(min(tokens, self.waiting_tokens - 1))

    @torch.inference_mode()
    def join(self, other: BatchGeneration) -> None:
        """Put the rows of another batch behind these; both have run their prompts, and the other is used up."""
        self._stop_repeating()
        other._stop_repeating()
        self.memory = _joined_memories(self, other)
        self.mask = joined_masks(self.mask, other.mask)
        empty = int(self.mask.any(dim=0).int().argmax())  # columns of rows that have left
        self.mask = self.mask[:, empty:]
        self.inputs = torch.cat([self.inputs, other.inputs])
        join_rows(self.cache, other.cache, drop=empty)
        self.rows += other.rows

    @torch.inference_mode()
    def drop_finished(self) -> None:
        """Let finished rows leave the batch, its cache and its memories."""
        keep = [at for at, row in enumerate(self.rows) if not row.is_over]
        if len(keep) == len(self.rows):
            return
        self._stop_repeating()
        self._leave([at for at, row in enumerate(self.rows) if row.is_over])
        if not keep:
            self.rows = []
            return
        self._keep(keep)

    def _keep(self, places: Sequence[int]) -> None:
        """Go on with a choice of rows, in the order given."""
        index = torch.tensor(places, device=self.mask.device)
        self.inputs, self.mask = self.inputs[index], self.mask[index]
        self.cache.batch_select_indices(index)
        self.memory = memories_of(self.memory, places)
        self.rows = [self.rows[at] for at in places]

    def _next_logits(self) -> Tensor:
        """Run what waits, and return the logits of the token to come of each row, shape (B, V)."""
        is_one = self.waiting_tokens == 1 and self.runner.records_steps
        self._unchanged = self._unchanged + 1 if is_one and RecordedStep.serves(self.runner, self.cache) else 0
        if self._recorded is not None and self._recorded.is_full:
            self._stop_repeating()
        if self._unchanged <= RECORDED_AFTER:
            return self.runner.lm_head(self._run(self.waiting_tokens)[:, -1]).float()
        if self._recorded is None:
            self._recorded = RecordedStep(self.runner, self.memory, self.cache, self.mask)
        return self._recorded(self.inputs, self.mask)

    def _stop_repeating(self) -> None:
        """Give the cache back before rows come or go, or where its buffers are full."""
        self._unchanged = 0
        if self._recorded is not None:
            self._recorded.close()
            self._recorded = None

    def _run(self, columns: int) -> Tensor:
        """Run the first columns of what waits, shape (B, columns, D)."""
        seen = self.mask[:, : self.mask.shape[1] - self.inputs.shape[1] + columns]
        positions = (seen.cumsum(dim=1) - 1).clamp_min(0)[:, -columns:]
        hidden = self.runner.hidden(
            self.inputs[:, :columns], seen, self.memory, cache=self.cache, position_ids=positions
        )
        self.inputs = self.inputs[:, columns:]
        return hidden

    def _score(self, logits: Tensor, chosen: Tensor) -> None:
        """Keep the log-probabilities of the tokens of living rows, and the likeliest tokens where they are asked."""
        distributions = logits.log_softmax(dim=-1)  # (B, V)
        logprobs = distributions.gather(1, chosen[:, None])[:, 0].tolist()
        top = top_k_of(distributions, self._top_k) if self._top_k else None
        stop_ids = self.runner.backbone.stop_ids
        for at, (row, token) in enumerate(zip(self.rows, chosen.tolist(), strict=True)):
            if row.is_over:
                continue
            if token not in stop_ids:
                row.logprobs.append(logprobs[at])
            if top is not None:
                row.top_logprobs.append(TopK(top.ids[at : at + 1], top.logprobs[at : at + 1]))

    @torch.inference_mode()
    def _begin(self, groups: Sequence[tuple[int, int]] | None, kept: KeptBeginnings | None) -> tuple[Tensor, list[int]]:
        """Fill the cache with what need not be run row by row.

        Return its mask, shape (B, P), and the tokens of each row it holds.
        """
        if groups is not None:
            prompts = [row.prompt for row in self.rows]
            begun = Beginnings(self.runner, prompts, groups, self.memory, kept)
            self.cache, held = begun.of(range(len(prompts)))
            return held, [shared for _, shared in groups]
        shared = [0] * len(self.rows)
        if is_full_attention(self.cache):
            pasts = [None if row.kept is None else row.kept.past for row in self.rows]
            shared = load_prefix(self.cache, pasts, [row.prompt for row in self.rows])
        longest = max(shared)
        mask = [[0] * (longest - count) + [1] * count for count in shared]
        return torch.tensor(mask, dtype=torch.int64, device=self.runner.backbone.device).reshape(
            len(shared), longest
        ), shared

    @torch.inference_mode()
    def _leave(self, places: Sequence[int]) -> None:
        """Hand out what rows that are about to go have left in the cache."""
        if not is_full_attention(self.cache):
            return
        for at in places:
            row = self.rows[at]
            if row.kept is not None:
                row.kept.past = save_prefix(self.cache, at, self.mask[at], [*row.prompt, *row.ids])


def _joined_memories(one: BatchGeneration, other: BatchGeneration) -> MemoryBatch | None:
    parts = [(each.memory, len(each.rows)) for each in (one, other)]
    return MemoryBatch.joined(parts, one.runner.backbone)

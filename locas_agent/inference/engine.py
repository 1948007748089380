"""Batched forward, generation and scoring on one backbone, each input row with its own memory or none.

Shapes: B input rows, T tokens, D hidden size, V vocabulary, n selected positions, K kept candidates.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from locas_agent.errors import ConfigurationError, IncompatibleMemory, TurnTooLong
from locas_agent.inference.batching import (
    Beginnings,
    KeptBeginnings,
    grouped_batches,
    length_parts,
    memories_of,
    pad,
    shared_lengths,
)
from locas_agent.inference.decoding import BatchGeneration
from locas_agent.inference.drawing import top_k_of
from locas_agent.inference.generation import AllowedTokens, AnswerRow, Generation, TopK, check_decoding
from locas_agent.inference.prefix_cache import PrefixSlot
from locas_agent.inference.runner import ModelRunner
from locas_agent.memory import MemoryBatch

MAX_BATCH_TOKENS = 8192
"""Default budget of one micro-batch: rows times their padded length, answer included."""

_HEAD_ROWS = 1024
"""Positions whose logits are held at once when scoring: 152k words in fp32 are 620 MB per 1024 positions."""


class Engine(ModelRunner):
    """A runner that generates and scores, in micro-batches.

    A KV cache depends on the memory from the second layer up. Here it lives inside one call of `generate` or one run of
    `stream`. Pass a `PrefixSlot` to reuse a row's cache in the next call. The caller must make
    sure that it was filled with the same memory.

    Everything but `logits` runs under `torch.inference_mode`. Verbs may be called from several threads at once.
    """

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        memory: MemoryBatch | None = None,
        max_new_tokens: int = 48,
        temperature: float = 0.0,
        seed: int | Sequence[int] = 0,
        groups: Sequence[int] | None = None,
        begun: KeptBeginnings | None = None,
        kept: Sequence[PrefixSlot] | None = None,
        top_k: int = 0,
        ends: frozenset[int] = frozenset(),
        is_scored: bool = True,
        max_batch_tokens: int = MAX_BATCH_TOKENS,
    ) -> list[Generation]:
        """Answer a batch of prompts.

        Rows are sorted by length into micro-batches and given back in the order they came. Each row draws from its
        own random stream, seeded by `seed` and its place, so the split into micro-batches changes nothing but rounding.

        Args:
            prompts: token ids, none empty.
            memory: serves exactly `len(prompts)` rows; None is the bare backbone.
            max_new_tokens: most tokens per answer; fewer where the context ends.
            temperature: 0 is greedy.
            seed: of the sampled answers; one for each prompt makes an answer independent of the prompts beside it.
            groups: one number per prompt; the tokens with which all prompts of a group begin are run once for the
                group. Rows of a group must use the same memory. Results are the same but for rounding; many questions
                about one text get cheap.
            begun: beginnings of groups that calls with the same memory have run; those of this call are left there.
            kept: one per prompt: tokens that a prompt has in common with the past found there are not run again, and
                the new past is left there. A past must be of the row's own memory. Results are the same but for
                rounding. Not beside `groups`.
            top_k: candidates to keep of the distribution before each token of an answer, its stop token included; 0
                keeps none.
            ends: tokens behind which an answer ends as well; they stay in it.
            is_scored: keep the log-probability of each token; it takes a pass over the vocabulary.
            max_batch_tokens: budget of one micro-batch; a longer row runs alone.

        Returns:
            One generation per prompt.

        Raises:
            TurnTooLong: a prompt leaves no room for a single token.
            IncompatibleMemory: the batch of memories serves another number of rows.
            ConfigurationError: an argument is out of bounds.
        """
        self._check(prompts, memory, spare=1)
        check_decoding(max_new_tokens, temperature, seed)
        if not isinstance(seed, int) and len(seed) != len(prompts):
            raise ConfigurationError(f"one seed, or one per prompt, got {len(seed)} for {len(prompts)}")
        if kept is not None and (groups is not None or len(kept) != len(prompts)):
            raise ConfigurationError(
                f"kept: one per prompt and no groups beside it, got {len(kept)} for {len(prompts)}"
            )
        rows = [
            AnswerRow(
                prompt,
                min(max_new_tokens, self.backbone.context_tokens - len(prompt)),
                temperature,
                (seed, at) if isinstance(seed, int) else (seed[at], 0),
                kept=None if kept is None else kept[at],
                ends=ends,
            )
            for at, prompt in enumerate(prompts)
        ]
        shared = shared_lengths(prompts, groups)
        for chosen in grouped_batches(prompts, shared, groups, max_new_tokens, max_batch_tokens):
            decoding = BatchGeneration(
                self,
                [rows[at] for at in chosen],
                memories_of(memory, chosen),
                groups=None if groups is None else [(groups[at], shared[at]) for at in chosen],
                begun=begun,
                top_k=min(top_k, self.backbone.vocab_size),
                is_scored=is_scored,
            )
            while decoding.alive:
                decoding.step()
        return [row.generation for row in rows]

    def stream(
        self,
        prompt: Sequence[int],
        *,
        memory: MemoryBatch | None = None,
        max_new_tokens: int = 48,
        temperature: float = 0.0,
        seed: int = 0,
        allowed: AllowedTokens | None = None,
        kept: PrefixSlot | None = None,
    ) -> Iterator[int]:
        """Answer one prompt token by token; the tokens are those `generate` gives for it alone.

        Args:
            prompt: token ids, not empty.
            memory: serves one row; None is the bare backbone.
            max_new_tokens: most tokens.
            temperature: 0 is greedy.
            seed: of a sampled answer.
            allowed: asked before each token which ones may be chosen: a form the answer has to keep.
            kept: as in `generate`; the new past is left there when the last token has been taken.

        Yields:
            Token ids; the stop token is left out.

        Raises:
            ConfigurationError: an argument is out of bounds, or `allowed` rules every token out.
        """
        self._check([prompt], memory, spare=1)
        check_decoding(max_new_tokens, temperature, seed)
        room = self.backbone.context_tokens - len(prompt)
        row = AnswerRow(prompt, min(max_new_tokens, room), temperature, (seed, 0), kept=kept, allowed=allowed)
        decoding, given = BatchGeneration(self, [row], memory), 0
        while decoding.alive:
            decoding.step()
            if row.error is not None:
                raise row.error
            yield from row.ids[given:]
            given = len(row.ids)

    def score(
        self,
        prompts: Sequence[Sequence[int]],
        continuations: Sequence[Sequence[int]],
        *,
        memory: MemoryBatch | None = None,
        groups: Sequence[int] | None = None,
        begun: KeptBeginnings | None = None,
        max_batch_tokens: int = MAX_BATCH_TOKENS,
    ) -> list[Tensor]:
        """Log-probability of every token of given continuations.

        Args:
            prompts: token ids, none empty.
            continuations: one per prompt; may be empty.
            memory: serves exactly `len(prompts)` rows; None is the bare backbone.
            groups: as in `generate`.
            begun: as in `generate`.
            max_batch_tokens: budget of one micro-batch.

        Returns:
            Per row the log-probabilities in nats, shape (n,), fp32, on the CPU.
        """
        results: dict[int, Tensor] = {}
        for rows, hidden in self._continuation_states(prompts, continuations, memory, groups, begun, max_batch_tokens):
            said = [token for row in rows for token in continuations[row]]
            found = self._target_logprobs(hidden, torch.tensor(said, dtype=torch.int64, device=hidden.device))
            lengths = [len(continuations[row]) for row in rows]
            results |= zip(rows, torch.split(found, lengths), strict=True)
        return [results[row] for row in range(len(prompts))]

    def distributions(
        self,
        prompts: Sequence[Sequence[int]],
        continuations: Sequence[Sequence[int]],
        *,
        top_k: int,
        memory: MemoryBatch | None = None,
        groups: Sequence[int] | None = None,
        begun: KeptBeginnings | None = None,
        max_batch_tokens: int = MAX_BATCH_TOKENS,
    ) -> list[TopK]:
        """The next-token distribution before every token of given continuations: what a teacher hands to a student.

        Args:
            prompts: token ids, none empty.
            continuations: one per prompt; may be empty.
            top_k: candidates kept; the whole vocabulary where it is smaller.
            memory: serves exactly `len(prompts)` rows; None is the bare backbone.
            groups: as in `generate`.
            begun: as in `generate`.
            max_batch_tokens: budget of one micro-batch.

        Returns:
            Per row ids and log-probabilities, shape (n, K).
        """
        if top_k < 1:
            raise ConfigurationError(f"top_k is at least 1, got {top_k}")
        results: dict[int, TopK] = {}
        for rows, hidden in self._continuation_states(prompts, continuations, memory, groups, begun, max_batch_tokens):
            head = self._head_of_distribution(hidden, min(top_k, self.backbone.vocab_size))
            lengths = [len(continuations[row]) for row in rows]
            parts = zip(rows, torch.split(head.ids, lengths), torch.split(head.logprobs, lengths), strict=True)
            results |= {row: TopK(ids, logprobs) for row, ids, logprobs in parts}
        return [results[row] for row in range(len(prompts))]

    def _continuation_states(
        self,
        prompts: Sequence[Sequence[int]],
        continuations: Sequence[Sequence[int]],
        memory: MemoryBatch | None,
        groups: Sequence[int] | None,
        kept: KeptBeginnings | None,
        max_batch_tokens: int,
    ) -> Iterator[tuple[list[int], Tensor]]:
        """Rows with the hidden states that predict their continuations, behind one another, shape (n, D)."""
        if len(prompts) != len(continuations):
            raise ConfigurationError(f"one continuation per prompt, got {len(continuations)} for {len(prompts)}")
        # the last token predicts nothing that is asked for, so it is not run
        pairs = zip(prompts, continuations, strict=True)
        inputs = [[*prompt, *continuation[:-1]] for prompt, continuation in pairs]
        self._check(prompts, memory, spare=0)
        self._check(inputs, memory, spare=0)
        shared = shared_lengths(prompts, groups)
        for rows in grouped_batches(inputs, shared, groups, 0, max_batch_tokens):
            own, begun = memories_of(memory, rows), None
            if groups is not None:
                texts, numbered = [inputs[row] for row in rows], [(groups[row], shared[row]) for row in rows]
                begun = Beginnings(self, texts, numbered, own, kept)
            for part in length_parts([len(inputs[row]) - shared[row] for row in rows]):
                rest = [inputs[rows[at]][shared[rows[at]] :] for at in part]
                hidden = self._states(rest, memories_of(own, part), None if begun is None else begun.of(part))
                chosen = [rows[at] for at in part]
                firsts = [len(prompts[row]) - 1 - shared[row] for row in chosen]
                ends = [first + len(continuations[row]) for first, row in zip(firsts, chosen, strict=True)]
                yield chosen, torch.cat([one[a:b] for one, a, b in zip(hidden, firsts, ends, strict=True)])

    @torch.inference_mode()
    def _states(
        self, texts: Sequence[Sequence[int]], memory: MemoryBatch | None, begun: tuple[Any, Tensor] | None
    ) -> Tensor:
        """Hidden states of what texts have beyond their beginnings, right-padded, shape (B, T, D)."""
        ids, mask = pad(texts, self.backbone.pad_id, left=False)
        if begun is None:
            return self.hidden(ids, mask, memory)
        cache, before = begun  # (B, P)
        seen = torch.cat([before, mask.to(before.device)], dim=1)  # (B, P + T)
        positions = (seen.cumsum(dim=1) - 1)[:, before.shape[1] :]
        return self.hidden(ids, seen, memory, cache=cache, position_ids=positions)

    @torch.inference_mode()
    def _target_logprobs(self, hidden: Tensor, targets: Tensor) -> Tensor:
        parts = [torch.zeros(0)]
        for states, wanted in zip(torch.split(hidden, _HEAD_ROWS), torch.split(targets, _HEAD_ROWS), strict=True):
            logprobs = self.lm_head(states).float().log_softmax(dim=-1)  # (n, V)
            parts.append(logprobs.gather(1, wanted[:, None])[:, 0].cpu())
        return torch.cat(parts)

    @torch.inference_mode()
    def _head_of_distribution(self, hidden: Tensor, top_k: int) -> TopK:
        ids, logprobs = [torch.zeros(0, top_k, dtype=torch.int32)], [torch.zeros(0, top_k)]
        for states in torch.split(hidden, _HEAD_ROWS):
            best = top_k_of(self.lm_head(states).float().log_softmax(dim=-1), top_k)
            ids.append(best.ids)
            logprobs.append(best.logprobs)
        return TopK(ids=torch.cat(ids), logprobs=torch.cat(logprobs))

    def _check(self, prompts: Sequence[Sequence[int]], memory: MemoryBatch | None, *, spare: int) -> None:
        if memory is not None and memory.n_rows != len(prompts):
            raise IncompatibleMemory(f"the memories serve {memory.n_rows} rows, got {len(prompts)} prompts")
        limit = self.backbone.context_tokens - spare
        for row, prompt in enumerate(prompts):
            if not prompt:
                raise ConfigurationError(f"prompt {row} is empty; a forward needs at least one token")
            if len(prompt) > limit:
                raise TurnTooLong(
                    f"prompt {row} takes {len(prompt)} tokens, {self.backbone.name!r} leaves room for {limit}"
                )

"""Batched forward, generation and scoring on one backbone, each input row with its own memory or none.

Knows nothing of users, stores, prompts' meaning or training: token ids and memories in, logits and ids out.

Shapes: B input rows, T tokens, D hidden size, V vocabulary, n selected positions, K kept candidates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from locas_agent.attach import Observer, Recorder, attached, observed, recorded
from locas_agent.backbone import Backbone
from locas_agent.errors import ConfigurationError, IncompatibleMemory, TurnTooLong
from locas_agent.memory import MemoryBatch

Allowed = Callable[[Sequence[int]], Sequence[int] | None]
"""From the tokens generated so far to those that may come next; None rules nothing out. Stop tokens count like any other."""

MAX_BATCH_TOKENS = 8192
"""Default budget of one micro-batch: rows times their padded length, answer included."""

_HEAD_ROWS = 1024
"""Positions whose logits are held at once when scoring: 152k words in fp32 are 620 MB per 1024 positions."""


@dataclass(frozen=True)
class Generation:
    """One answer.

    Attributes:
        ids: generated tokens, the stop token left out.
        logprobs: log-probability of each of them under the model (temperature 1), nats.
        stopped: a stop token ended it; False where `max_new_tokens` or the context did.
    """

    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    stopped: bool


@dataclass(frozen=True, eq=False)
class TopK:
    """The head of the next-token distribution before each token of a continuation.

    Attributes:
        ids: candidates, most probable first, shape (n, K), int32, on the CPU.
        logprobs: their log-probabilities over the whole vocabulary, shape (n, K), fp32, nats, on the CPU.
    """

    ids: Tensor
    logprobs: Tensor


class Engine:
    """Runs one backbone. Memory is an argument of every call, for exactly the rows of that call.

    A KV cache depends on the memory from the second layer up. Here it lives inside one call of `generate` or one run
    of `stream` and is never handed out, so none can be used with another memory or another revision.

    Everything but `logits` runs under `torch.inference_mode`. Verbs may be called from several threads at once.
    """

    def __init__(self, backbone: Backbone) -> None:
        """Take a backbone; nothing is allocated."""
        self.backbone = backbone

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
        hidden = self._hidden(input_ids, attention_mask, memory)  # (B, T, D)
        if positions is None:
            return self.head(hidden)
        at = positions.to(hidden.device)
        if at.dtype == torch.bool:
            return self.head(hidden[at])
        return self.head(hidden.flatten(0, 1)[at])

    @torch.inference_mode()
    def observe(self, input_ids: Tensor, attention_mask: Tensor, observer: Observer) -> None:
        """Run the bare backbone and show each FFN's intermediate activations; nothing is returned.

        Args:
            input_ids: shape (B, T), int64.
            attention_mask: 1 for tokens, 0 for padding, shape (B, T).
            observer: called once per layer with its index and a tensor of shape (B, T, N).
        """
        with observed(self.backbone, observer):
            self._run(input_ids, attention_mask)

    @torch.no_grad()
    def record(self, input_ids: Tensor, recorder: Recorder) -> None:
        """Run the bare backbone and show the last FFN's input and output and what enters the final norm; nothing is returned.

        Args:
            input_ids: right-padded, shape (B, T), int64: causal attention never looks at the padding.
            recorder: called with a name and a tensor of shape (B, T, D) that may take part in autograd later.
        """
        with recorded(self.backbone, recorder):
            self._run(input_ids, None)

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        memory: MemoryBatch | None = None,
        max_new_tokens: int = 48,
        temperature: float = 0.0,
        seed: int | Sequence[int] = 0,
        groups: Sequence[int] | None = None,
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
            groups: one number per prompt; the tokens with which all prompts of a group begin are run once for the group. Rows of a group
                must use the same memory. Results are the same but for rounding; many questions about one text get cheap.
            max_batch_tokens: budget of one micro-batch; a longer row runs alone.

        Returns:
            One generation per prompt.

        Raises:
            TurnTooLong: a prompt leaves no room for a single token.
            IncompatibleMemory: the batch of memories serves another number of rows.
            ConfigurationError: an argument is out of bounds.
        """
        self._check(prompts, memory, spare=1)
        _check_decoding(max_new_tokens, temperature)
        if not isinstance(seed, int) and len(seed) != len(prompts):
            raise ConfigurationError(f"one seed, or one per prompt, got {len(seed)} for {len(prompts)}")
        results: dict[int, Generation] = {}
        shared = _shared_lengths(prompts, groups)
        for rows in _grouped_batches(prompts, shared, groups, max_new_tokens, max_batch_tokens):
            decoding = _Decoding(
                self,
                [prompts[row] for row in rows],
                _select(memory, rows),
                max_new_tokens,
                temperature,
                [(seed, row) if isinstance(seed, int) else (seed[row], 0) for row in rows],
                groups=None if groups is None else [(groups[row], shared[row]) for row in rows],
            )
            while decoding.alive:
                decoding.step()
            results.update(zip(rows, decoding.generations(), strict=True))
        return [results[row] for row in range(len(prompts))]

    def stream(
        self,
        prompt: Sequence[int],
        *,
        memory: MemoryBatch | None = None,
        max_new_tokens: int = 48,
        temperature: float = 0.0,
        seed: int = 0,
        allowed: Allowed | None = None,
    ) -> Iterator[int]:
        """Answer one prompt token by token; the tokens are those `generate` gives for it alone.

        Args:
            prompt: token ids, not empty.
            memory: serves one row; None is the bare backbone.
            max_new_tokens: most tokens.
            temperature: 0 is greedy.
            seed: of a sampled answer.
            allowed: asked before each token which ones may be chosen: a form the answer has to keep.

        Yields:
            Token ids; the stop token is left out.

        Raises:
            ConfigurationError: an argument is out of bounds, or `allowed` rules every token out.
        """
        self._check([prompt], memory, spare=1)
        _check_decoding(max_new_tokens, temperature)
        decoding = _Decoding(self, [prompt], memory, max_new_tokens, temperature, [(seed, 0)], allowed=allowed)
        given = 0
        while decoding.alive:
            decoding.step()
            ids = decoding.ids[0]
            yield from ids[given:]
            given = len(ids)

    def score(
        self,
        prompts: Sequence[Sequence[int]],
        continuations: Sequence[Sequence[int]],
        *,
        memory: MemoryBatch | None = None,
        max_batch_tokens: int = MAX_BATCH_TOKENS,
    ) -> list[Tensor]:
        """Log-probability of every token of given continuations.

        Args:
            prompts: token ids, none empty.
            continuations: one per prompt; may be empty.
            memory: serves exactly `len(prompts)` rows; None is the bare backbone.
            max_batch_tokens: budget of one micro-batch.

        Returns:
            Per row the log-probabilities in nats, shape (n,), fp32, on the CPU.
        """
        results: dict[int, Tensor] = {}
        for row, hidden in self._continuation_states(prompts, continuations, memory, max_batch_tokens):
            targets = torch.tensor(list(continuations[row]), dtype=torch.int64, device=hidden.device)
            results[row] = self._target_logprobs(hidden, targets)
        return [results[row] for row in range(len(prompts))]

    def distributions(
        self,
        prompts: Sequence[Sequence[int]],
        continuations: Sequence[Sequence[int]],
        *,
        top_k: int,
        memory: MemoryBatch | None = None,
        max_batch_tokens: int = MAX_BATCH_TOKENS,
    ) -> list[TopK]:
        """The next-token distribution before every token of given continuations: what a teacher hands to a student.

        Args:
            prompts: token ids, none empty.
            continuations: one per prompt; may be empty.
            top_k: candidates kept; the whole vocabulary where it is smaller.
            memory: serves exactly `len(prompts)` rows; None is the bare backbone.
            max_batch_tokens: budget of one micro-batch.

        Returns:
            Per row ids and log-probabilities, shape (n, K).
        """
        if top_k < 1:
            raise ConfigurationError(f"top_k is at least 1, got {top_k}")
        results: dict[int, TopK] = {}
        for row, hidden in self._continuation_states(prompts, continuations, memory, max_batch_tokens):
            results[row] = self._head_of_distribution(hidden, min(top_k, self.backbone.vocab_size))
        return [results[row] for row in range(len(prompts))]

    def _hidden(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        memory: MemoryBatch | None,
        *,
        cache: Any = None,
        position_ids: Tensor | None = None,
    ) -> Tensor:
        """Last hidden states, shape (B, T, D), of one forward with one batch of memories."""
        with attached(self.backbone, memory):
            return self._run(input_ids, attention_mask, cache=cache, position_ids=position_ids)

    def _run(self, input_ids: Tensor, attention_mask: Tensor | None, *, cache: Any = None, position_ids: Tensor | None = None) -> Tensor:
        """One forward with whatever this thread has attached, shape (B, T, D).

        Positions count tokens only, so padding on either side changes nothing.
        """
        device, limit = self.backbone.device, self.backbone.context_tokens
        if input_ids.shape[1] > limit:
            raise TurnTooLong(f"{input_ids.shape[1]} tokens exceed the {limit} that {self.backbone.name!r} can attend to")
        mask = None if attention_mask is None else attention_mask.to(device=device, dtype=torch.int64)
        if position_ids is None and mask is not None:
            position_ids = (mask.cumsum(dim=1) - 1).clamp_min(0)  # (B, T)
        output = self.backbone.decoder(
            input_ids=input_ids.to(device),
            attention_mask=mask,
            position_ids=position_ids,
            past_key_values=cache,
            use_cache=cache is not None,
        )
        hidden: Tensor = output.last_hidden_state
        return hidden

    def head(self, hidden: Tensor) -> Tensor:
        """Logits of hidden states, shape (..., D) -> (..., V), with the scaling some architectures put after it."""
        config = self.backbone.config
        logits: Tensor = self.backbone.model.get_output_embeddings()(hidden)
        if getattr(config, "logits_scaling", None):  # Granite
            logits = logits / config.logits_scaling
        if getattr(config, "logit_scale", None):  # Cohere
            logits = logits * config.logit_scale
        cap = getattr(config, "final_logit_softcapping", None)  # Gemma 2
        return torch.tanh(logits / cap) * cap if cap else logits

    def _continuation_states(
        self,
        prompts: Sequence[Sequence[int]],
        continuations: Sequence[Sequence[int]],
        memory: MemoryBatch | None,
        max_batch_tokens: int,
    ) -> Iterator[tuple[int, Tensor]]:
        """Per row the hidden states that predict its continuation, shape (n, D)."""
        if len(prompts) != len(continuations):
            raise ConfigurationError(f"one continuation per prompt, got {len(continuations)} for {len(prompts)}")
        # the last token predicts nothing that is asked for, so it is not run
        pairs = zip(prompts, continuations, strict=True)
        inputs = [[*prompt, *continuation[:-1]] for prompt, continuation in pairs]
        self._check(prompts, memory, spare=0)
        self._check(inputs, memory, spare=0)
        for rows in micro_batches([len(row) for row in inputs], max_batch_tokens):
            ids, mask = pad([inputs[row] for row in rows], self.backbone.pad_id, left=False)
            with torch.inference_mode():
                hidden = self._hidden(ids, mask, _select(memory, rows))  # (B, T, D)
            for at, row in enumerate(rows):
                first = len(prompts[row]) - 1
                yield row, hidden[at, first : first + len(continuations[row])]

    @torch.inference_mode()
    def _target_logprobs(self, hidden: Tensor, targets: Tensor) -> Tensor:
        parts = [torch.zeros(0)]
        for states, wanted in zip(torch.split(hidden, _HEAD_ROWS), torch.split(targets, _HEAD_ROWS), strict=True):
            logprobs = self.head(states).float().log_softmax(dim=-1)  # (n, V)
            parts.append(logprobs.gather(1, wanted[:, None])[:, 0].cpu())
        return torch.cat(parts)

    @torch.inference_mode()
    def _head_of_distribution(self, hidden: Tensor, top_k: int) -> TopK:
        ids, logprobs = [torch.zeros(0, top_k, dtype=torch.int32)], [torch.zeros(0, top_k)]
        for states in torch.split(hidden, _HEAD_ROWS):
            best = self.head(states).float().log_softmax(dim=-1).topk(top_k, dim=-1)  # (n, K)
            ids.append(best.indices.to(device="cpu", dtype=torch.int32))
            logprobs.append(best.values.cpu())
        return TopK(ids=torch.cat(ids), logprobs=torch.cat(logprobs))

    def _check(self, prompts: Sequence[Sequence[int]], memory: MemoryBatch | None, *, spare: int) -> None:
        if memory is not None and memory.n_rows != len(prompts):
            raise IncompatibleMemory(f"the memories serve {memory.n_rows} rows, got {len(prompts)} prompts")
        limit = self.backbone.context_tokens - spare
        for row, prompt in enumerate(prompts):
            if not prompt:
                raise ConfigurationError(f"prompt {row} is empty; a forward needs at least one token")
            if len(prompt) > limit:
                raise TurnTooLong(f"prompt {row} takes {len(prompt)} tokens, {self.backbone.name!r} leaves room for {limit}")


@dataclass
class _Decoding:
    """One micro-batch under way: left-padded prompts, what has been generated, and the KV cache, which dies with it."""

    engine: Engine
    prompts: Sequence[Sequence[int]]
    memory: MemoryBatch | None
    max_new_tokens: int
    temperature: float
    seeds: Sequence[tuple[int, int]]
    groups: Sequence[tuple[int, int]] | None = None  # of each row its group and how many tokens the group shares
    allowed: Allowed | None = None  # the same for every row
    alive: list[int] = field(init=False)
    ids: list[list[int]] = field(init=False)
    logprobs: list[list[float]] = field(init=False)
    stopped: set[int] = field(init=False, default_factory=set)

    def __post_init__(self) -> None:
        backbone = self.engine.backbone
        self.alive = list(range(len(self.prompts)))  # rows that still generate
        self.rows = list(self.alive)  # rows of the running batch; finished ones leave when half of it is done
        self.ids = [[] for _ in self.prompts]
        self.logprobs = [[] for _ in self.prompts]
        self.cache: Any = DynamicCache(config=backbone.model.config)
        suffixes = [prompt[shared:] for prompt, (_, shared) in zip(self.prompts, self.groups or [(0, 0)] * len(self.prompts), strict=True)]
        self.inputs, self.mask = (part.to(backbone.device) for part in pad(suffixes, backbone.pad_id, left=True))
        if self.groups is not None:
            self.mask = torch.cat([self._run_shared(self.groups), self.mask], dim=1)
        self.uniforms = None
        if self.temperature > 0.0:
            streams = [torch.Generator().manual_seed((seed * 1_000_003 + row) % 2**63) for seed, row in self.seeds]
            self.uniforms = torch.stack([torch.rand(self.max_new_tokens, generator=stream, dtype=torch.float64) for stream in streams])

    @torch.inference_mode()
    def _run_shared(self, groups: Sequence[tuple[int, int]]) -> Tensor:
        """Run each group's common beginning once and hand its cache to every row of the group; return their mask, shape (B, P)."""
        first = {group: row for row, (group, _) in reversed(list(enumerate(groups)))}
        names = list(first)
        device = self.engine.backbone.device
        beginnings = [self.prompts[first[group]][: groups[first[group]][1]] for group in names]
        if not any(beginnings):
            return torch.zeros(len(groups), 0, dtype=torch.int64, device=device)
        ids, mask = (part.to(device) for part in pad(beginnings, self.engine.backbone.pad_id, left=True))
        self.engine._hidden(ids, mask, _select(self.memory, [first[group] for group in names]), cache=self.cache)
        index = torch.tensor([names.index(group) for group, _ in groups], device=device)
        self.cache.batch_select_indices(index)
        return mask[index]

    @torch.inference_mode()
    def step(self) -> None:
        """Generate one token for every living row."""
        if len(self.alive) * 2 <= len(self.rows):
            self._compact()
        positions = (self.mask.cumsum(dim=1) - 1).clamp_min(0)[:, -self.inputs.shape[1] :]
        hidden = self.engine._hidden(self.inputs, self.mask, self.memory, cache=self.cache, position_ids=positions)
        logits = self.engine.head(hidden[:, -1]).float()  # (B, V)
        chosen = self._choose(self._limited(logits))  # (B,)
        logprobs = logits.log_softmax(dim=-1).gather(1, chosen[:, None])[:, 0].tolist()
        tokens = chosen.tolist()
        for row, token, logprob in zip(self.rows, tokens, logprobs, strict=True):
            if row in self.alive:
                self._append(row, token, logprob)
        self.inputs = chosen[:, None]
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(self.rows), 1)], dim=1)

    def generations(self) -> list[Generation]:
        """What has been generated, one per prompt in order."""
        return [
            Generation(ids=tuple(ids), logprobs=tuple(logprobs), stopped=row in self.stopped)
            for row, (ids, logprobs) in enumerate(zip(self.ids, self.logprobs, strict=True))
        ]

    def _limited(self, logits: Tensor) -> Tensor:
        """Logits with minus infinity for whatever may not come next, shape (B, V)."""
        if self.allowed is None:
            return logits
        limited = torch.full_like(logits, -torch.inf)
        for at, row in enumerate(self.rows):
            ids = self.allowed(self.ids[row])
            if ids is not None and not ids:
                raise ConfigurationError(f"`allowed` rules out every token after {len(self.ids[row])} generated ones: it has to name at least one")
            kept: Any = slice(None) if ids is None else list(ids)
            limited[at, kept] = logits[at, kept]
        return limited

    def _choose(self, logits: Tensor) -> Tensor:
        """Next token of every running row, shape (B,): the best, or the quantile its uniform number falls on."""
        if self.uniforms is None:
            return logits.argmax(dim=-1)
        step = [min(len(self.ids[row]), self.max_new_tokens - 1) for row in self.rows]
        drawn = self.uniforms[self.rows, step].to(logits.device)  # (B,)
        cumulative = (logits.double() / self.temperature).softmax(dim=-1).cumsum(dim=-1)  # (B, V)
        found = torch.searchsorted(cumulative, (drawn * cumulative[:, -1])[:, None], right=True)[:, 0]
        return found.clamp_max(logits.shape[-1] - 1)

    def _append(self, row: int, token: int, logprob: float) -> None:
        backbone = self.engine.backbone
        if token in backbone.stop_ids:
            self.stopped.add(row)
        else:
            self.ids[row].append(token)
            self.logprobs[row].append(logprob)
        room = backbone.context_tokens - len(self.prompts[row])
        if row in self.stopped or len(self.ids[row]) >= min(self.max_new_tokens, room):
            self.alive.remove(row)

    def _compact(self) -> None:
        """Drop finished rows from the running batch, its cache and its memories."""
        keep = [at for at, row in enumerate(self.rows) if row in self.alive]
        index = torch.tensor(keep, device=self.mask.device)
        self.cache.batch_select_indices(index)
        self.inputs, self.mask = self.inputs[index], self.mask[index]
        self.memory = _select(self.memory, keep)
        self.rows = [self.rows[at] for at in keep]


def _check_decoding(max_new_tokens: int, temperature: float) -> None:
    if max_new_tokens < 1 or temperature < 0.0:
        raise ConfigurationError(f"max_new_tokens >= 1 and temperature >= 0, got {max_new_tokens} and {temperature}")


def _select(memory: MemoryBatch | None, rows: list[int]) -> MemoryBatch | None:
    return None if memory is None else memory.select(rows)


def _shared_lengths(prompts: Sequence[Sequence[int]], groups: Sequence[int] | None) -> list[int]:
    """Of each row, how many tokens all rows of its group begin with; at least one token of every prompt is left out."""
    if groups is None:
        return [0] * len(prompts)
    if len(groups) != len(prompts):
        raise ConfigurationError(f"one group per prompt, got {len(groups)} for {len(prompts)}")
    shared: dict[int, int] = {}
    first: dict[int, Sequence[int]] = {}
    for prompt, group in zip(prompts, groups, strict=True):
        other = first.setdefault(group, prompt)
        limit = min(shared.get(group, len(other) - 1), len(prompt) - 1)
        shared[group] = next((at for at in range(limit) if prompt[at] != other[at]), limit)
    return [shared[group] for group in groups]


def _grouped_batches(
    prompts: Sequence[Sequence[int]], shared: Sequence[int], groups: Sequence[int] | None, max_new_tokens: int, max_batch_tokens: int
) -> list[list[int]]:
    """Micro-batches for generation; groups stay together, and a shared token counts once per group."""
    if groups is None:
        return micro_batches([len(prompt) + max_new_tokens for prompt in prompts], max_batch_tokens)
    batches: list[list[int]] = []
    used = 0
    for row in sorted(range(len(prompts)), key=lambda row: (groups[row], row)):
        opens = not batches or groups[batches[-1][-1]] != groups[row]
        cost = len(prompts[row]) - shared[row] + max_new_tokens + (shared[row] if opens else 0)
        if not batches or used + cost > max_batch_tokens:
            batches.append([])
            used = 0
            cost = len(prompts[row]) + max_new_tokens
        batches[-1].append(row)
        used += cost
    return [sorted(batch) for batch in batches]


def micro_batches(lengths: Sequence[int], max_batch_tokens: int) -> list[list[int]]:
    """Rows of like length together, rows times longest within the budget; in order inside one: memories stay shared."""
    batches: list[list[int]] = []
    longest = 0
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        if not batches or (len(batches[-1]) + 1) * longest > max_batch_tokens:
            batches.append([])
            longest = lengths[row]
        batches[-1].append(row)
    return [sorted(batch) for batch in batches]


def pad(rows: Sequence[Sequence[int]], pad_id: int, *, left: bool) -> tuple[Tensor, Tensor]:
    """Ids and attention mask of rows padded to one length, shape (B, T) each."""
    longest = max(len(row) for row in rows)
    ids, mask = torch.full((len(rows), longest), pad_id), torch.zeros(len(rows), longest, dtype=torch.int64)
    for at, row in enumerate(rows):
        span = slice(longest - len(row), longest) if left else slice(0, len(row))
        ids[at, span] = torch.tensor(list(row), dtype=torch.int64)
        mask[at, span] = 1
    return ids, mask

"""One micro-batch while it is being answered.

Token by token, each row with its own memory, and a KV cache that dies with it.

What a row was run with may be taken up from its `PrefixSlot` and is left there again: a copy, see `prefix_cache.py`.

Shapes: B rows, T tokens, P tokens of a common beginning, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from locas_agent.errors import ConfigurationError
from locas_agent.inference.batching import memories_of, pad
from locas_agent.inference.prefix_cache import PrefixSlot, is_full_attention, load_prefix, save_prefix
from locas_agent.inference.runner import ModelRunner
from locas_agent.memory import MemoryBatch

LEAST_TEMPERATURE = 1e-8
"""Below it the most probable token has all of the probability, and dividing logits by less overflows: answers are
greedy."""

AllowedTokens = Callable[[Sequence[int]], Sequence[int] | None]
"""From the tokens generated so far to those that may come next; None rules nothing out. Stop tokens count like any
other."""


@dataclass(frozen=True, eq=False)
class TopK:
    """The head of the next-token distribution before each token of a continuation.

    Attributes:
        ids: candidates, most probable first, shape (n, K), int32, on the CPU.
        logprobs: their log-probabilities over the whole vocabulary, shape (n, K), fp32, nats, on the CPU.
    """

    ids: Tensor
    logprobs: Tensor


@dataclass(frozen=True)
class Generation:
    """One answer.

    Attributes:
        ids: generated tokens, the stop token left out.
        logprobs: log-probability of each of them under the model (temperature 1), nats.
        stopped: a stop token ended it; False where `max_new_tokens` or the context did.
        heads: heads of the distributions before each of `ids`, and before the stop token if there was one; None where
            none were asked for.
    """

    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    stopped: bool
    heads: TopK | None = field(default=None, compare=False)


@dataclass
class BatchGeneration:
    """One micro-batch under way: left-padded prompts, what has been generated, and the KV cache, which dies with it."""

    runner: ModelRunner
    prompts: Sequence[Sequence[int]]
    memory: MemoryBatch | None
    max_new_tokens: int
    temperature: float
    seeds: Sequence[tuple[int, int]]
    groups: Sequence[tuple[int, int]] | None = None  # of each row its group and how many tokens the group shares
    kept: Sequence[PrefixSlot] | None = None  # of each row; not beside groups
    allowed: AllowedTokens | None = None  # the same for every row
    top_k: int = 0  # candidates kept of each distribution
    alive: list[int] = field(init=False)
    ids: list[list[int]] = field(init=False)
    logprobs: list[list[float]] = field(init=False)
    stopped: set[int] = field(init=False, default_factory=set)

    def __post_init__(self) -> None:
        backbone = self.runner.backbone
        self.alive = list(range(len(self.prompts)))  # rows that still generate
        self.rows = list(self.alive)  # rows of the running batch; finished ones leave when half of it is done
        self.ids = [[] for _ in self.prompts]
        self.logprobs = [[] for _ in self.prompts]
        self.heads: list[list[TopK]] = [[] for _ in self.prompts]
        self.cache: Any = DynamicCache(config=backbone.model.config)
        begun, shared = self._begin()
        suffixes = [prompt[count:] for prompt, count in zip(self.prompts, shared, strict=True)]
        self.inputs, self.mask = (part.to(backbone.device) for part in pad(suffixes, backbone.pad_id, left=True))
        self.mask = torch.cat([begun, self.mask], dim=1)
        self.uniforms = None
        if self.temperature >= LEAST_TEMPERATURE:
            streams = [torch.Generator().manual_seed((seed * 1_000_003 + row) % 2**63) for seed, row in self.seeds]
            self.uniforms = torch.stack(
                [torch.rand(self.max_new_tokens, generator=stream, dtype=torch.float64) for stream in streams]
            )

    @torch.inference_mode()
    def _begin(self) -> tuple[Tensor, list[int]]:
        """Fill the cache with what need not be run row by row.

        Return its mask, shape (B, P), and the tokens of each row it holds.
        """
        if self.groups is not None:
            return self._run_shared(self.groups), [shared for _, shared in self.groups]
        shared = [0] * len(self.prompts)
        if self.kept is not None and is_full_attention(self.cache):
            shared = load_prefix(self.cache, [kept.past for kept in self.kept], self.prompts)
        longest = max(shared)
        mask = [[0] * (longest - count) + [1] * count for count in shared]
        return torch.tensor(mask, dtype=torch.int64, device=self.runner.backbone.device).reshape(
            len(shared), longest
        ), shared

    @torch.inference_mode()
    def _run_shared(self, groups: Sequence[tuple[int, int]]) -> Tensor:
        """Run each group's common beginning once and hand its cache to every row of the group.

        Return their mask, shape (B, P).
        """
        first = {group: row for row, (group, _) in reversed(list(enumerate(groups)))}
        names = list(first)
        device = self.runner.backbone.device
        beginnings = [self.prompts[first[group]][: groups[first[group]][1]] for group in names]
        if not any(beginnings):
            return torch.zeros(len(groups), 0, dtype=torch.int64, device=device)
        ids, mask = (part.to(device) for part in pad(beginnings, self.runner.backbone.pad_id, left=True))
        self.runner.hidden(ids, mask, memories_of(self.memory, [first[group] for group in names]), cache=self.cache)
        index = torch.tensor([names.index(group) for group, _ in groups], device=device)
        self.cache.batch_select_indices(index)
        return mask[index]

    @torch.inference_mode()
    def step(self) -> None:
        """Generate one token for every living row."""
        if len(self.alive) * 2 <= len(self.rows):
            self._compact()
        positions = (self.mask.cumsum(dim=1) - 1).clamp_min(0)[:, -self.inputs.shape[1] :]
        hidden = self.runner.hidden(self.inputs, self.mask, self.memory, cache=self.cache, position_ids=positions)
        logits = self.runner.head(hidden[:, -1]).float()  # (B, V)
        chosen = self._choose(self._limited(logits))  # (B,)
        distributions = logits.log_softmax(dim=-1)  # (B, V)
        logprobs = distributions.gather(1, chosen[:, None])[:, 0].tolist()
        if self.top_k:
            self._keep_heads(top_k_of(distributions, self.top_k))
        tokens = chosen.tolist()
        for row, token, logprob in zip(self.rows, tokens, logprobs, strict=True):
            if row in self.alive:
                self._append(row, token, logprob)
        self.inputs = chosen[:, None]
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(self.rows), 1)], dim=1)
        if not self.alive:
            self._leave(range(len(self.rows)))

    def generations(self) -> list[Generation]:
        """What has been generated, one per prompt in order."""
        return [
            Generation(tuple(ids), tuple(logprobs), row in self.stopped, _joined(heads) if self.top_k else None)
            for row, (ids, logprobs, heads) in enumerate(zip(self.ids, self.logprobs, self.heads, strict=True))
        ]

    def _keep_heads(self, heads: TopK) -> None:
        for at, row in enumerate(self.rows):
            if row in self.alive:
                self.heads[row].append(TopK(heads.ids[at : at + 1], heads.logprobs[at : at + 1]))

    def _limited(self, logits: Tensor) -> Tensor:
        """Logits with minus infinity for whatever may not come next, shape (B, V)."""
        if self.allowed is None:
            return logits
        limited = torch.full_like(logits, -torch.inf)
        for at, row in enumerate(self.rows):
            ids = self.allowed(self.ids[row])
            if ids is not None and not ids:
                raise ConfigurationError(
                    f"`allowed` rules out every token after {len(self.ids[row])} generated ones: it has to name at "
                    "least one"
                )
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
        backbone = self.runner.backbone
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
        self._leave([at for at, row in enumerate(self.rows) if row not in self.alive])
        index = torch.tensor(keep, device=self.mask.device)
        self.cache.batch_select_indices(index)
        self.inputs, self.mask = self.inputs[index], self.mask[index]
        self.memory = memories_of(self.memory, keep)
        self.rows = [self.rows[at] for at in keep]

    @torch.inference_mode()
    def _leave(self, places: Iterable[int]) -> None:
        """Hand out what rows that are about to go have left in the cache."""
        if self.kept is None or not is_full_attention(self.cache):
            return
        for at in places:
            row = self.rows[at]
            self.kept[row].past = save_prefix(self.cache, at, self.mask[at], [*self.prompts[row], *self.ids[row]])


def top_k_of(logprobs: Tensor, top_k: int) -> TopK:
    """Return the head of distributions over the vocabulary, shape (n, V) -> (n, K)."""
    best = logprobs.topk(top_k, dim=-1)
    return TopK(ids=best.indices.to(device="cpu", dtype=torch.int32), logprobs=best.values.cpu())


def _joined(parts: Sequence[TopK]) -> TopK:
    return TopK(torch.cat([part.ids for part in parts]), torch.cat([part.logprobs for part in parts]))


def check_decoding(max_new_tokens: int, temperature: float, seed: int | Sequence[int] = 0) -> None:
    """Raise `ConfigurationError` where there is nothing to generate, no such temperature or no such seed."""
    if not _is_number(max_new_tokens, Integral) or max_new_tokens < 1:
        raise ConfigurationError(f"max_new_tokens: got {_shown(max_new_tokens)}, expected an integer, 1 or more")
    if not _is_number(temperature, Real) or not 0.0 <= temperature < math.inf:
        raise ConfigurationError(
            f"temperature: got {_shown(temperature)}, expected a finite number, 0 (greedy) or more"
        )
    seeds: Sequence[object] = seed if isinstance(seed, Sequence) and not isinstance(seed, str) else [seed]
    for one in seeds:
        if not isinstance(one, Integral) or isinstance(one, bool) or int(one) < 0:
            raise ConfigurationError(f"seed: got {_shown(one)}, expected an integer, 0 or more")


def _is_number(value: object, kind: type) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def _shown(value: object) -> str:
    """Name a value in a message.

    A number as it is, of anything else its type alone, since it may be somebody's text.
    """
    return str(value) if _is_number(value, Real) else type(value).__name__

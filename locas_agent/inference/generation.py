"""What is asked of a generation and what comes of it, row by row.

Shapes: n tokens of an answer, K kept candidates.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from numbers import Integral, Real

import torch
from torch import Tensor
from torch.nn.functional import pad

from locas_agent.errors import ConfigurationError
from locas_agent.inference.prefix_cache import PrefixSlot

LEAST_TEMPERATURE = 1e-8
"""Below it the most probable token has all of the probability, and dividing logits by less overflows: answers are
greedy."""

AllowedTokens = Callable[[Sequence[int]], Sequence[int] | None]
"""From the tokens generated so far to those that may come next; None rules nothing out. Stop tokens count like any
other."""


NOTHING = -60.0
"""Log-probability of a candidate that only fills a row."""


@dataclass(frozen=True, eq=False)
class TopK:
    """The head of the next-token distribution before each token of a continuation.

    Attributes:
        ids: candidates, most probable first, shape (n, K), int32, on the CPU.
        logprobs: their log-probabilities over the whole vocabulary, shape (n, K), fp32, nats, on the CPU.
    """

    ids: Tensor
    logprobs: Tensor

    def widened(self, n_kept: int) -> TopK:
        """Return it with so many candidates at least; those that are added have no probability to speak of."""
        missing = max(0, n_kept - self.ids.shape[1])
        return TopK(pad(self.ids, (0, missing)), pad(self.logprobs, (0, missing), value=NOTHING))

    @staticmethod
    def joined(parts: Sequence[TopK]) -> TopK:
        """Return one behind the other, as wide as the widest."""
        widest = max(part.ids.shape[1] for part in parts)
        wide = [part.widened(widest) for part in parts]
        return TopK(torch.cat([part.ids for part in wide]), torch.cat([part.logprobs for part in wide]))


@dataclass(frozen=True)
class Generation:
    """One answer.

    Attributes:
        ids: generated tokens, the stop token left out.
        logprobs: log-probability of each of them under the model (temperature 1), nats; none where they were not asked
            for.
        stopped: a stop token ended it; False where `max_new_tokens`, `ends` or the context did.
        top_logprobs: most likely tokens before each of `ids`, and before the stop token if there was one; None where
            none were asked for.
    """

    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    stopped: bool
    top_logprobs: TopK | None = field(default=None, compare=False)


@dataclass(eq=False)
class AnswerRow:
    """One answer under way.

    Attributes:
        prompt: token ids.
        limit: most tokens.
        temperature: 0 is greedy.
        seed: of the row's random stream, with a number beside it that tells rows of one call apart.
        kept: where a past is found and the new one is left.
        allowed: asked before each token which ones may be chosen.
        ends: tokens behind which nothing more is written; they stay in the answer.
        ids: what was written, the stop token left out.
        logprobs: of each of `ids`, where they were asked for.
        top_logprobs: most likely tokens before each of `ids`, and before the stop token, where they were asked for.
        is_stopped: a stop token ended it.
        is_over: nothing more is written.
        error: what `allowed` of this row did wrong; other rows go on.
    """

    prompt: Sequence[int] = field(repr=False)
    limit: int
    temperature: float = 0.0
    seed: tuple[int, int] = (0, 0)
    kept: PrefixSlot | None = field(default=None, repr=False)
    allowed: AllowedTokens | None = field(default=None, repr=False)
    ends: frozenset[int] = field(default=frozenset(), repr=False)
    ids: list[int] = field(default_factory=list, repr=False)
    logprobs: list[float] = field(default_factory=list, repr=False)
    top_logprobs: list[TopK] = field(default_factory=list, repr=False)
    is_stopped: bool = False
    is_over: bool = False
    error: Exception | None = None

    @property
    def is_greedy(self) -> bool:
        """Whether the best token is taken."""
        return self.temperature < LEAST_TEMPERATURE

    @cached_property
    def uniforms(self) -> Tensor:
        """The row's random stream, one number in [0, 1) for each token, shape (limit,), float64."""
        seed, number = self.seed
        stream = torch.Generator().manual_seed((seed * 1_000_003 + number) % 2**63)
        return torch.rand(self.limit, generator=stream, dtype=torch.float64)

    @property
    def generation(self) -> Generation:
        """What was written."""
        top_logprobs = None
        if self.top_logprobs:
            top_logprobs = TopK(
                torch.cat([top.ids for top in self.top_logprobs]),
                torch.cat([top.logprobs for top in self.top_logprobs]),
            )
        return Generation(tuple(self.ids), tuple(self.logprobs), self.is_stopped, top_logprobs)

    def take(self, token: int, stop_ids: frozenset[int]) -> None:
        """Write the token that was drawn, or end with it."""
        if token in stop_ids:
            self.is_stopped = self.is_over = True
        else:
            self.ids.append(token)
            self.is_over = len(self.ids) >= self.limit or token in self.ends


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

"""The likelihoods of an `eval mmlu` run, kept by what was asked of which memory, so that a stopped run goes on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from locas_agent.backbone import Backbone
from locas_agent.evaluation.answer_book import AnswerBook

Place = tuple[str, str]
"""Name of the memory, digest of the tokens."""


@dataclass(frozen=True, slots=True)
class Likelihood:
    """How likely one continuation is.

    Its log-likelihood in nats, and whether greedy decoding would give it; `memory` names the memory as `digest_of`
    does, `tokens` is the SHA-256 of what was asked.
    """

    memory: str
    tokens: str
    logprob: float
    is_greedy: bool

    @property
    def place(self) -> Place:
        """What it answers."""
        return (self.memory, self.tokens)


LikelihoodBook = AnswerBook[Likelihood]
"""Likelihoods by memory and tokens."""


def opened(backbone: Backbone, path: Path | None) -> LikelihoodBook:
    """Open the likelihoods of a backbone in its dtype; None keeps them in this process alone.

    Which tasks were asked is not in it: a question has its tokens, in whichever draw it stands.

    Raises:
        ConfigurationError: the file is of another backbone or dtype, or holds something else.
        ExchangeError: it cannot be read or written.
    """
    about = {"likelihoods": backbone.fingerprint, "dtype": str(backbone.dtype)}
    return AnswerBook(Likelihood, about, path)


def tokens_digest(context: Sequence[int], continuation: Sequence[int]) -> str:
    """Return by what a request is named: the SHA-256 of the tokens that are run and of those that are judged."""
    return hashlib.sha256(json.dumps([list(context), list(continuation)]).encode()).hexdigest()

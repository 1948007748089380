"""A backbone with one memory or none as a model of lm-evaluation-harness (lm-eval).

Importing this needs lm-eval; `locas_agent.evaluation.mmlu.run` says so where it is missing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from lm_eval.api.model import TemplateLM
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from torch import Tensor

from locas_agent.errors import TurnTooLong
from locas_agent.evaluation.answer_book import digest_of
from locas_agent.evaluation.mmlu.likelihoods import Likelihood, LikelihoodBook, opened, tokens_digest
from locas_agent.inference import Engine
from locas_agent.inference.batching import micro_batches
from locas_agent.inference.engine import MAX_BATCH_TOKENS
from locas_agent.memory import LocasMemory, MemoryBatch
from locas_agent.types import Progress

DEFAULT_ANSWER_TOKENS = 256
"""Longest generated answer where a task does not say, as the harness's own models have it."""

SHARED_TOKENS = 64
"""Rows that begin with so many equal tokens run these once; below that it costs as much as it saves."""
MOST_TOGETHER = 32
"""Such rows at once: each keeps the log-probabilities of a whole vocabulary until they are read."""

Encoded = tuple[tuple[str, str], list[int], list[int]]
"""A request: its texts, the tokens of the context, those of the continuation."""


class MemoryLM(TemplateLM):  # type: ignore[misc]
    """The harness's three requests on one engine, every row with the same memory.

    A context that is too long loses its beginning, as in the harness's own models; `cut` counts the contexts that did.
    """

    def __init__(
        self,
        engine: Engine,
        memory: LocasMemory | None,
        *,
        max_batch_tokens: int = MAX_BATCH_TOKENS,
        seed: int = 0,
        book: LikelihoodBook | None = None,
        progress: Progress | None = None,
    ) -> None:
        """Take the parts.

        Args:
            engine: runs the backbone.
            memory: None is the bare backbone.
            max_batch_tokens: budget of one micro-batch.
            seed: of tasks that ask for sampled answers.
            book: likelihoods that are in it are not computed again, and the others are put into it; None keeps them
                with this model.
            progress: told of likelihood requests done.
        """
        super().__init__()
        self._engine = engine
        self._backbone = engine.backbone
        self._memory = None if memory is None else MemoryBatch.of([memory], engine.backbone)
        self._max_batch_tokens = max_batch_tokens
        self._seed = seed
        self._book = opened(engine.backbone, None) if book is None else book
        self._name = digest_of(memory)
        self._progress = progress
        self._cut: set[str] = set()
        tokenizer = engine.backbone.tokenizer
        start = tokenizer.bos_token_id
        # as the tokenizer was meant to be used: only some put the beginning-of-text token before a text
        self._opening = [int(start)] if start is not None and tokenizer.encode("a")[:1] == [start] else []

    @property
    def cut(self) -> int:
        """How many different contexts were too long and lost their beginning."""
        return len(self._cut)

    @property
    def eot_token_id(self) -> int:
        """What stands before a text that has no context.

        The beginning of text where the tokenizer writes one, else the end of another.
        """
        return self._opening[0] if self._opening else self._backbone.end_id

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_options: Any) -> list[int]:
        """Token ids of a text, behind the beginning-of-text token where the tokenizer would put one."""
        ids = self._backbone.encode(string)
        return ids if add_special_tokens is False or ids[:1] == self._opening else [*self._opening, *ids]

    def loglikelihood(self, requests: Any, disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        """Log-likelihood of each continuation behind its context, nats, and whether greedy decoding would give it."""
        found: list[tuple[float, bool]] = super().loglikelihood(requests, disable_tqdm=disable_tqdm)
        return found

    def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = True) -> list[float]:
        """Log-likelihood of each whole text, nats; a long one in windows of the context, each token counted once."""
        limit = self._backbone.context_tokens
        totals = []
        for request in requests:
            ids = self.tok_encode(request.args[0], add_special_tokens=False)
            windows = get_rolling_token_windows(
                token_list=ids, prefix_token=self.prefix_token_id, max_seq_len=limit, context_len=1
            )
            contexts, parts = (
                zip(*(make_disjoint_window(window) for window in windows), strict=True) if ids else ((), ())
            )
            scored = (
                self._engine.score(
                    contexts, parts, memory=self._memories(len(contexts)), max_batch_tokens=self._max_batch_tokens
                )
                if ids
                else []
            )
            totals.append(sum(float(part.sum()) for part in scored))
        return totals

    def generate_until(self, requests: Any, disable_tqdm: bool = True) -> list[str]:
        """Answer each context, greedily unless the task asks for samples, up to the first of its stop texts."""
        by_settings: dict[tuple[int, float], list[int]] = {}
        for at, request in enumerate(requests):
            settings = request.args[1]
            temperature = float(settings.get("temperature", 0.0)) if settings.get("do_sample", False) else 0.0
            by_settings.setdefault((int(settings.get("max_gen_toks", DEFAULT_ANSWER_TOKENS)), temperature), []).append(
                at
            )
        answers: dict[int, str] = {}
        for (tokens, temperature), chosen in by_settings.items():
            prompts = [
                self._fitting(requests[at].args[0], self.tok_encode(requests[at].args[0]), tokens) for at in chosen
            ]
            made = self._engine.generate(
                prompts,
                memory=self._memories(len(prompts)),
                max_new_tokens=tokens,
                temperature=temperature,
                seed=self._seed,
                max_batch_tokens=self._max_batch_tokens,
            )
            for at, one in zip(chosen, made, strict=True):
                answers[at] = _until(self._backbone.decode(one.ids), requests[at].args[1].get("until", []))
        return [answers[at] for at in range(len(requests))]

    def _loglikelihood_tokens(self, requests: Sequence[Encoded], **_options: Any) -> list[tuple[float, bool]]:
        """Score encoded requests.

        Those that share an input, as the letters behind one question do, are one row of a forward.
        """
        rows: dict[tuple[int, ...], list[int]] = {}
        places = []
        for at, (texts, context, continuation) in enumerate(requests):
            # the last token predicts nothing that is asked for, so it is not run
            row = (*self._fitting(texts[0], context, max(0, len(continuation) - 1)), *continuation[:-1])
            places.append((self._name, tokens_digest(row, continuation)))
            if places[at] not in self._book:
                rows.setdefault(row, []).append(at)
        done = len(requests) - sum(map(len, rows.values()))
        for inputs, is_alike in _batches(list(rows), self._max_batch_tokens):
            wanted = [[requests[at][2] for at in rows[ids]] for ids in inputs]
            scores = self._scores(inputs, [max(map(len, each)) for each in wanted], is_alike=is_alike)
            judged = [
                Likelihood(*places[at], *_score(logprobs, tokens))
                for ids, logprobs, continuations in zip(inputs, scores, wanted, strict=True)
                for at, tokens in zip(rows[ids], continuations, strict=True)
            ]
            self._book.add(judged)
            done += len(judged)
            if self._progress is not None:
                self._progress("likelihoods", done, len(requests))
        kept = [self._book[place] for place in places]
        return [(one.logprob, one.is_greedy) for one in kept]

    def _scores(self, inputs: Sequence[tuple[int, ...]], counts: Sequence[int], *, is_alike: bool) -> list[Tensor]:
        """Log-probabilities after the last `counts[b]` tokens of each row, shape (counts[b], V), fp32.

        What rows that begin alike share is run once.
        """
        firsts = [len(ids) - count + 1 for ids, count in zip(inputs, counts, strict=True)]
        found = self._engine.distributions(
            [ids[:first] for ids, first in zip(inputs, firsts, strict=True)],
            # the last token of a continuation is not run, whichever it is
            [(*ids[first:], 0) for ids, first in zip(inputs, firsts, strict=True)],
            top_k=self._backbone.vocab_size,
            memory=self._memories(len(inputs)),
            groups=[0] * len(inputs) if is_alike else None,
            max_batch_tokens=self._max_batch_tokens,
        )
        return [torch.empty_like(one.logprobs).scatter_(1, one.ids.long(), one.logprobs) for one in found]

    def _fitting(self, text: str, ids: Sequence[int], after: int) -> list[int]:
        """The end of a context that leaves room for so many tokens behind it."""
        room = self._backbone.context_tokens - after
        if room < 1:
            raise TurnTooLong(
                f"an answer of {after + 1} tokens leaves no room for its question in the "
                f"{self._backbone.context_tokens} there are"
            )
        if len(ids) > room:
            self._cut.add(text)
        return list(ids[-room:])

    def _memories(self, rows: int) -> MemoryBatch | None:
        return None if self._memory is None else self._memory.select([0] * rows)


def _batches(inputs: Sequence[tuple[int, ...]], max_batch_tokens: int) -> Iterator[tuple[list[tuple[int, ...]], bool]]:
    """Rows to be run together, and whether they begin alike, as questions of one subject behind its examples do."""
    alone = list[tuple[int, ...]]()
    for alike in _beginning_alike(inputs):
        if len(alike) == 1:
            alone += alike
        else:
            yield from ((alike[at : at + MOST_TOGETHER], True) for at in range(0, len(alike), MOST_TOGETHER))
    for chosen in micro_batches([len(ids) for ids in alone], max_batch_tokens):
        yield [alone[at] for at in chosen], False


def _beginning_alike(inputs: Sequence[tuple[int, ...]]) -> list[list[tuple[int, ...]]]:
    """Put rows together that share their first `SHARED_TOKENS` tokens; a shorter row stands by itself."""
    runs: dict[tuple[int, ...], list[tuple[int, ...]]] = {}
    for ids in inputs:
        runs.setdefault(ids[:SHARED_TOKENS] if len(ids) > SHARED_TOKENS else ids, []).append(ids)
    return list(runs.values())


def _score(logprobs: Tensor, tokens: Sequence[int]) -> tuple[float, bool]:
    """Sum over a continuation, and whether each token is the most likely one."""
    own = logprobs[len(logprobs) - len(tokens) :]
    targets = torch.tensor(list(tokens), device=own.device)
    return float(own.gather(1, targets[:, None]).sum()), bool((own.argmax(dim=-1) == targets).all())


def _until(text: str, stops: str | Sequence[str]) -> str:
    """The text before the first of the stop texts."""
    for stop in [stops] if isinstance(stops, str) else stops:
        text = text.split(stop, 1)[0] if stop else text
    return text

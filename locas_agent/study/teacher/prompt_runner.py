"""Prompts as a teacher runs them: many side by side, what they begin with once, a memory beside them or none.

It knows no chunk and no question: messages and tokens in, generations and probabilities out.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence

from torch import Tensor

from locas_agent.conversation.messages import Message
from locas_agent.inference import Engine
from locas_agent.inference.batching import KeptBeginnings
from locas_agent.inference.generation import Generation
from locas_agent.memory import LocasMemory, MemoryBatch

FIRST_TOKENS = 64
"""Most probable first tokens of an answer that are looked at; what is not among them is not believed."""


class PromptRunner:
    """Runs prompts on a backbone; those that do not fit into its context are left out, and told."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def encoded(self, prompts: Sequence[list[Message]]) -> list[list[int]]:
        """Encode prompts, equal ones once: most are sampled several times, and templates are slow."""
        tokens_of: dict[tuple[tuple[str, str], ...], list[int]] = {}
        keys = [key_of(prompt) for prompt in prompts]
        for said, prompt in zip(keys, prompts, strict=True):
            if said not in tokens_of:
                tokens_of[said] = self._engine.backbone.encode_chat(prompt)
        return [tokens_of[said] for said in keys]

    def run(
        self,
        encoded: Sequence[list[int]],
        keys: Sequence[Hashable],
        length: int,
        *,
        memories: Sequence[LocasMemory | None] | None = None,
        scribe: LocasMemory | None = None,
        temperature: float = 0.0,
        streams: Sequence[int] | None = None,
        top_k: int = 0,
        ends: frozenset[int] = frozenset(),
        is_scored: bool = True,
        begun: KeptBeginnings | None = None,
    ) -> list[Generation | None]:
        """Write behind prompts; None where a prompt and what is written do not fit into the context.

        Args:
            encoded: the prompts, as tokens.
            keys: of each prompt; those of one key begin alike, which is run once. Not looked at with `memories`.
            length: most tokens that are written.
            memories: of each prompt one or none.
            scribe: stands beside all prompts, where no `memories` are given.
            temperature: 0 is greedy.
            streams: seeds of each prompt.
            top_k: how many of the likeliest tokens of each place are kept.
            ends: tokens behind which nothing more is wanted.
            is_scored: log-probabilities are wanted.
            begun: see `Engine.generate`.
        """
        backbone = self._engine.backbone
        fitting = [at for at, tokens in enumerate(encoded) if len(tokens) + length <= backbone.context_tokens]
        groups = _numbered(keys)
        memory = None
        if fitting and memories is not None:
            memory = MemoryBatch.of([memories[at] for at in fitting], backbone)
        elif fitting:
            memory = self._beside(scribe, len(fitting))
        found = self._engine.generate(
            [encoded[at] for at in fitting],
            groups=[groups[at] for at in fitting] if memories is None else None,
            memory=memory,
            max_new_tokens=length,
            temperature=temperature,
            seed=0 if streams is None else [streams[at] for at in fitting],
            top_k=top_k,
            ends=ends,
            is_scored=is_scored,
            begun=begun,
        )
        result: list[Generation | None] = [None] * len(encoded)
        for at, generation in zip(fitting, found, strict=True):
            result[at] = generation
        return result

    def first_tokens(
        self,
        encoded: Sequence[list[int]],
        keys: Sequence[Hashable],
        scribe: LocasMemory | None,
        begun: KeptBeginnings | None,
    ) -> list[dict[int, float]]:
        """Return how probable the likeliest tokens behind prompts are; none where a prompt leaves no room for one."""
        backbone, groups = self._engine.backbone, _numbered(keys)
        fitting = [at for at, tokens in enumerate(encoded) if len(tokens) < backbone.context_tokens]
        if not fitting:
            return [{} for _ in encoded]
        memory = self._beside(scribe, len(fitting))
        heads = self._engine.distributions(
            [encoded[at] for at in fitting],
            [[backbone.end_id]] * len(fitting),  # any token: what comes behind a prompt is asked, not what it is
            top_k=FIRST_TOKENS,
            memory=memory,
            groups=[groups[at] for at in fitting],
            begun=begun,
        )
        found: list[dict[int, float]] = [{} for _ in encoded]
        for at, head in zip(fitting, heads, strict=True):
            probabilities = head.logprobs[0].double().exp().tolist()
            found[at] = dict(zip(head.ids[0].tolist(), probabilities, strict=True))
        return found

    def score(
        self,
        prompts: Sequence[list[int]],
        rest: Sequence[list[int]],
        keys: Sequence[Hashable],
        *,
        scribe: LocasMemory | None,
        begun: KeptBeginnings | None,
    ) -> list[Tensor]:
        """Return the log-probabilities of what goes on behind prompts, shape (its tokens,) each."""
        memory = self._beside(scribe, len(prompts))
        return self._engine.score(prompts, rest, memory=memory, groups=_numbered(keys), begun=begun)

    def _beside(self, scribe: LocasMemory | None, rows: int) -> MemoryBatch | None:
        """A scribe as it stands beside so many rows; None is the bare backbone."""
        return None if scribe is None else MemoryBatch.of([scribe], self._engine.backbone, rows_per_memory=rows)


def key_of(messages: Sequence[Message]) -> tuple[tuple[str, str], ...]:
    """Return messages as a key: equal ones are run once."""
    return tuple((message["role"], message["content"]) for message in messages)


def _numbered(keys: Iterable[Hashable]) -> list[int]:
    """Return a number for each key, equal ones for equal keys."""
    seen: dict[Hashable, int] = {}
    return [seen.setdefault(key, len(seen)) for key in keys]

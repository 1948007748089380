"""Noise in questions: some of their tokens are left out, so that a memory answers what is asked and not one wording.

What a chat template puts around a question stays as it is. Its instructions may be longer than the question, and a
memory learns nothing from gaps in them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import takewhile
from random import Random

from locas_agent.backbone import Backbone
from locas_agent.conversation.messages import Message, question
from locas_agent.training.examples import Example

_NO_QUESTION = "0"
"""A question that no other is like: what its prompt shares with another's at both ends is the template's."""


Asked = Callable[[str], list[Message]]
"""From a question to the messages of its prompt."""


class QuestionNoise:
    """Leaves tokens out of the questions of one training."""

    def __init__(self, backbone: Backbone, share: float) -> None:
        """Take the parts.

        Args:
            backbone: whose chat template stands around questions.
            share: of a question's tokens that are left out.
        """
        self._backbone = backbone
        self._share = share
        self._alone = self.around(question)

    def around(self, asked: Asked) -> tuple[int, ...]:
        """Return what stands around any question that is asked in the same way, as `of` needs it.

        Args:
            asked: from a question to the messages of its prompt.
        """
        return tuple(self._backbone.encode_chat(asked(_NO_QUESTION)))

    def of(self, example: Example, rng: Random, *, around: Sequence[int] | None = None) -> Example:
        """Leave out some tokens of an example's question.

        Args:
            example: whose prompt ends with a question.
            rng: draws which.
            around: what stands around the question, where it is not asked alone.
        """
        if not self._share:
            return example
        prompt, template = example.prompt, self._alone if around is None else around
        head = _shared(prompt, template)
        tail = min(_shared(prompt[::-1], template[::-1]), len(prompt) - head)
        asked = [token for token in prompt[head : len(prompt) - tail] if rng.random() >= self._share]
        return replace(example, prompt=(*prompt[:head], *asked, *prompt[len(prompt) - tail :])) if asked else example


def _shared(first: Sequence[int], second: Sequence[int]) -> int:
    """Return how many tokens two runs begin with in common."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False)))

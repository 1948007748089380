"""Groups: the items of one step, all behind the same messages, which are run once for all of them.

What stands before them is a beginning, as where a memory is in use, or turns that a search would find for one of them,
as where a program searches too and puts what it found before the question. Origin: `docs/decisions.md`, beginnings and
found groups.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from random import Random

from locas_agent.backbone import Backbone
from locas_agent.conversation.messages import Message, question
from locas_agent.study.chunking import Chunk, TurnExcerpt
from locas_agent.study.forms.reading import ReadingForm
from locas_agent.study.items import Item
from locas_agent.study.spans import most_about
from locas_agent.training.examples import Example
from locas_agent.training.sampling.noise import Asked, QuestionNoise
from locas_agent.training.sampling.sampler import ItemCycles

FOUND_BESIDE, FOUND_TOKENS = 2, 256
"""Turns that stand beside the one that tells the answer, and tokens of found turns at most."""
IS_FOUND = 0.8
"""How often the turn that tells the answer is among those that are found: searches miss."""
OF_THE_FOUND = 3
"""Items of a group that the found turns tell, at most; the others are drawn as for any step."""


class GroupBuilder:
    """Puts the items of steps behind messages."""

    def __init__(
        self, backbone: Backbone, noise: QuestionNoise, items: ItemCycles[Item], *, count: int, rng: Random
    ) -> None:
        """Take the parts.

        Args:
            backbone: whose tokens.
            noise: leaves tokens out of the questions.
            items: what fills a group.
            count: items of a group.
            rng: draws what is left out, found and told.
        """
        self._backbone, self._noise, self._items, self._count, self._rng = backbone, noise, items, count, rng

    def behind(self, beginning: Sequence[Message]) -> list[Example]:
        """Draw items, and put each behind the same beginning."""

        def asked(text: str) -> list[Message]:
            return [*beginning, *question(text)]

        return self._rows(asked, self._noise.around(asked), [])

    def behind_found(
        self, reading: ReadingForm, chunks: Sequence[Chunk], learnt: Sequence[Item], wanted: Item
    ) -> list[Example]:
        """Put an item, others that the same turns tell and others that they do not behind what a search finds for it.

        Of an earlier fact the telling turn is not at hand, as where a search misses it: the memory has to know better
        than what was found. Taught only what stands before it, it would answer with that whatever is asked.

        Args:
            reading: how found turns stand before a question.
            chunks: the turns at hand.
            learnt: items that they tell.
            wanted: what the search is for.

        Returns:
            Rows that begin alike; none where no turn is short enough.
        """
        found = self._found(wanted, chunks)
        for most in range(len(found), 0, -1):
            asked = partial(reading.prompt, _with_headers(found[:most]))
            around = self._noise.around(asked)
            if len(around) <= FOUND_TOKENS:
                seqs = {excerpt.turn_seq for _, excerpt in found[:most]}
                told = [item for item in learnt if item.turn_seq in seqs and item is not wanted]
                return self._rows(asked, around, [wanted, *self._rng.sample(told, min(OF_THE_FOUND - 1, len(told)))])
        return []

    def _found(self, wanted: Item, chunks: Sequence[Chunk]) -> list[tuple[Chunk, TurnExcerpt]]:
        """Return turns that a search finds for an item, best first: those that share most words with its question."""
        places = {excerpt.turn_seq: (chunk, excerpt) for chunk in chunks for excerpt in chunk.excerpts}
        telling = [places[wanted.turn_seq]] if wanted.turn_seq in places and self._rng.random() < IS_FOUND else []
        others = [excerpt for seq, (_, excerpt) in places.items() if seq != wanted.turn_seq]
        beside = most_about(wanted.question, others, most=FOUND_BESIDE)
        rest = [excerpt for excerpt in others if excerpt not in beside]
        beside += self._rng.sample(rest, min(FOUND_BESIDE - len(beside), len(rest)))  # a search brings what it must
        return [*telling, *(places[excerpt.turn_seq] for excerpt in beside)]

    def _rows(self, asked: Asked, around: Sequence[int], first: Sequence[Item]) -> list[Example]:
        """Put some items and as many others as a group has room for behind the same messages."""
        drawn = list(first[: self._count])
        drawn += [self._items.take() for _ in range(self._count - len(drawn))]
        rows = []
        for item in drawn:
            prompt = tuple(self._backbone.encode_chat(asked(item.question)))
            rows.append(self._noise.of(Example(prompt, item.answer_ids, item.teacher), self._rng, around=around))
        return rows


def _with_headers(found: Iterable[tuple[Chunk, TurnExcerpt]]) -> list[Message]:
    """Return turns as messages in the order they were said, the header of a chunk before the first of its turns."""
    messages = list[Message]()
    last: Chunk | None = None
    for chunk, excerpt in sorted(found, key=lambda each: each[1].turn_seq):
        if chunk is not last:
            messages.append(chunk.messages[0])
            last = chunk
        messages.append(chunk.messages[excerpt.at])
    return messages

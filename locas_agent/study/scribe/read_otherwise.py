"""Questions that a scribe reads with another word of the turn than the one they were written for.

"What did my donkey swallow?" was sampled for "sixteen stone" and is read "glove". The question is a good one, and so is
the answer, which nobody named: it takes the place of what was asked for. That costs nothing, since all telling words of
a turn are read beside each answer anyway.
"""

from __future__ import annotations

from collections.abc import Sequence

from locas_agent.study.dates.found import date_said
from locas_agent.study.scribe.asked_turn import Asked, AskedTurn, Span
from locas_agent.study.spans import answers_in, telling

READ_AS, TOGETHER = 0.2, 0.5
"""Probability of another word's first token from which it is what a question asks for, and that of all such questions
together from which the word is learnt."""
AHEAD = 2.0
"""How many times what the question was written for is read."""
MOST_FOUND = 2
"""Answers of one turn that are found so at most, those that are read best."""


def read_otherwise(
    asked: Sequence[Asked], read: Sequence[Sequence[float]]
) -> tuple[list[Asked], list[Sequence[float]]]:
    """Return such questions with the spans that answer them, and how probable these are and all others, as in `read`.

    Args:
        asked: turns, spans of them, and questions for these.
        read: how probable the first tokens of the span's readings are then, and those of each of its rivals.
    """
    new: dict[int, dict[str, Span]] = {}
    found: list[tuple[Asked, Sequence[float]]] = []
    for (turn, span, text), beliefs in zip(asked, read, strict=True):
        own, others = max(beliefs[: len(span.readings)]), list(beliefs[len(span.readings) :])
        best = max(others, default=0.0)
        if best < max(READ_AS, AHEAD * own):
            continue
        at = others.index(best)
        answering = _span_with(turn, turn.rivals(span)[at], new.setdefault(id(turn), {}))
        if answering is not None and answering.is_asked_by(text) and text not in answering.questions:
            answering.questions[text], answering.read[text] = 0, best
            others[at] = own
            found.append(((turn, answering, text), [best, *others]))
    left_out = {id(span) for spans in new.values() for span in sorted(spans.values(), key=_much_read)[:-MOST_FOUND]}
    left_out |= {id(span) for spans in new.values() for span in spans.values() if _much_read(span) < TOGETHER}
    kept = [(each, beliefs) for each, beliefs in found if id(each[1]) not in left_out]
    return [each for each, _ in kept], [beliefs for _, beliefs in kept]


def _span_with(turn: AskedTurn, word: str, new: dict[str, Span]) -> Span | None:
    """Return the span of a turn that has a word: one that is asked for already, else a new one of a few words.

    None for what is part of a date, which is asked for by questions for a day.
    """
    keys = telling(word)
    asked_for = next((span for span in turn.spans.values() if keys & telling(span.text)), None)
    if asked_for is not None:
        return asked_for if asked_for.date is None else None
    if date_said(word, turn.excerpt.said, turn.excerpt.day) is not None:
        return None
    holding = (cue for cue in answers_in(turn.excerpt.said) if keys & telling(cue))
    shortest = min(holding, key=len, default=None)
    return None if shortest is None else new.setdefault(shortest, Span(shortest))


def _much_read(span: Span) -> float:
    """Return how often a new span is read, and how well."""
    return sum(span.read.values())

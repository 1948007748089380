"""Which of the questions about a turn are kept, by what a scribe reads after them, and how they are put."""

from __future__ import annotations

from collections.abc import Sequence

from locas_agent.study.scribe.asked_turn import Asked

BELIEVED, SURE = 0.1, 0.2
"""Probability of an answer's first token from which a question is kept, where the scribe named the answer and where
not."""
LIKELIEST, AHEAD = 0.02, 2.0
"""Least probability, and how many times that of any other telling word of the turn, from which one is kept of an answer
that is named, dated, or a name, where none is kept otherwise. A rare name of several tokens is read with little
probability, and yet before all else that the turn holds."""


def best_read(asked: Sequence[Asked], read: Sequence[Sequence[float]], *, most: int) -> list[Asked]:
    """Choose the wordings of each span whose answer is read best, where it is read well enough.

    Args:
        asked: turns, spans of them, and questions for these.
        read: how probable the first tokens of the span's readings are then, and those of each of its rivals.
        most: wordings of a span.
    """
    by_span: dict[int, list[tuple[bool, float, int]]] = {}
    ahead: dict[int, list[tuple[bool, float, int]]] = {}
    for at, ((_, span, text), beliefs) in enumerate(zip(asked, read, strict=True)):
        own = len(span.readings)
        belief, others = max(beliefs[:own]), beliefs[own:]
        if belief >= (BELIEVED if span.votes else SURE):
            by_span.setdefault(id(span), []).append((text not in span.ready, -belief, at))
        elif span.is_worth_more and belief >= max(LIKELIEST, AHEAD * max(others, default=0.0)):
            ahead.setdefault(id(span), []).append((text not in span.ready, -belief, at))
    best = [asked[at] for found in (ahead | by_span).values() for _, _, at in sorted(found)[:most]]
    return best + _vouched(best)


def _vouched(best: Sequence[Asked]) -> list[Asked]:
    """Return questions for who somebody is, where the name is read by a question of grammar: "Who is my sister?"."""
    read = {(id(turn), span.text): turn for turn, span, text in best if text in span.ready}
    return [
        (turn, relation, text)
        for (_, name), turn in read.items()
        for relation in turn.relations
        if relation.name == name
        for text in relation.ready
        if turn.takes(text)
    ]


def put_as_learnt(kept: Sequence[Asked]) -> list[Asked]:
    """Put questions as they are learnt; of each span of somebody among others one also as they ask it themselves."""
    put, spoken = list[Asked](), set[int]()
    for turn, span, text in kept:
        put.append((turn, span, turn.put(text)))
        if turn.is_among_others and id(span) not in spoken:
            spoken.add(id(span))
            put.append((turn, span, f"{turn.excerpt.speaker}: {text}"))
    return [each for each in put if each[1].is_asked_by(each[2])]  # a name may be the answer

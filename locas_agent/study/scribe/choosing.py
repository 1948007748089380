"""Which of the questions about a turn are kept, by what a scribe reads after them, and how they are put.

Of those that are read well enough the ones that differ: "In which city does my sister study?" learnt beside "Where does
my sister study?" adds little, and somebody asks in words of their own.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from statistics import fmean

from locas_agent.study.scribe.asked_turn import Asked
from locas_agent.study.spans import stem, words_of

BELIEVED, SURE = 0.1, 0.2
"""Probability of an answer's first token from which a question is kept, where the scribe named the answer and where
not."""
LIKELIEST, AHEAD = 0.02, 2.0
"""Least probability, and how many times that of any other telling word of the turn, from which one is kept of an answer
that is named, dated, or a name, where none is kept otherwise. A rare name of several tokens is read with little
probability, and yet before all else that the turn holds."""
MOSTLY_READ = 0.3
"""Mean probability over all questions for a word that is no name and no figure and was named once at most, from which
it is learnt at all: what is asked for in vain most of the time nobody will ask for."""
UNLIKE = 0.5
"""What sharing all words with a wording that is kept costs another, as a probability of being read."""


def best_read(asked: Sequence[Asked], read: Sequence[Sequence[float]]) -> list[Asked]:
    """Choose the wordings of each span after which its answer is read well enough, the best read first.

    Args:
        asked: turns, spans of them, and questions for these.
        read: how probable the first tokens of the span's readings are then, and those of each of its rivals.
    """
    by_span: dict[int, list[Asked]] = {}
    ahead: dict[int, list[Asked]] = {}
    for (_, span, text), beliefs in zip(asked, read, strict=True):
        span.read[text] = max(beliefs[: len(span.readings)])
    for each, beliefs in zip(asked, read, strict=True):
        _, span, text = each
        belief, others = span.read[text], beliefs[len(span.readings) :]
        if not span.is_likely and fmean(span.read.values()) < MOSTLY_READ:
            continue
        if belief >= (BELIEVED if span.votes else SURE):
            by_span.setdefault(id(span), []).append(each)
        elif span.is_worth_more and belief >= max(LIKELIEST, AHEAD * max(others, default=0.0)):
            ahead.setdefault(id(span), []).append(each)
    best = [
        each
        for found in (ahead | by_span).values()
        for each in sorted(found, key=lambda one: (one[2] not in one[1].ready, -one[1].read[one[2]]))
    ]
    return best + _vouched(best)


def most_unlike(kept: Sequence[Asked], *, most: int) -> list[Asked]:
    """Choose of each span the wordings that are read well and unlike each other.

    Args:
        kept: what may be chosen.
        most: wordings of a span at most, beside those that grammar gives.
    """
    by_span: dict[int, list[Asked]] = {}
    for each in kept:
        by_span.setdefault(id(each[1]), []).append(each)
    return [each for found in by_span.values() for each in _unlike(found, most)]


def _unlike(found: Sequence[Asked], most: int) -> list[Asked]:
    chosen = [each for each in found if each[2] in each[1].ready]
    left = [each for each in found if each[2] not in each[1].ready]
    words = {text: {stem(word.key) for word in words_of(text)} for _, _, text in found}
    likest = {text: max((_shared(words[text], words[one[2]]) for one in chosen), default=0.0) for _, _, text in left}
    for _ in range(min(most, len(left))):
        best = max(left, key=lambda each: each[1].read[each[2]] - UNLIKE * likest[each[2]])
        left.remove(best)
        chosen.append(best)
        for _, _, text in left:
            likest[text] = max(likest[text], _shared(words[text], words[best[2]]))
    return chosen


def _shared(first: Set[str], second: Set[str]) -> float:
    """Return the share of the words of two questions that both have."""
    return len(first & second) / max(1, len(first | second))


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

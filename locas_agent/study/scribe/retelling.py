"""Which earlier facts a new turn tells otherwise.

A scribe reads a value of the new turn for nearly any old question. So a value takes the place of one earlier fact at
most, the one that it fits best: of its kind, asked for by questions that fit the new turn, told in the same words. And
it needs less of that where the turn says that something changed. Origin: `docs/decisions.md`, told anew.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from locas_agent.study.chunking import Chunk, TurnExcerpt
from locas_agent.study.items import NEGATIVE, EarlierFact, Item
from locas_agent.study.matching import normalized_words
from locas_agent.study.scribe.changes import Kind, kind_of, says_change
from locas_agent.study.spans import most_about, telling
from locas_agent.study.teacher import Candidate, ScoredAnswer

READ, READ_DATE = 0.5, 0.3
"""Least probability of the least likely token of an answer that may be one, and of one that is a date: it has many
tokens, and a turn has few dates."""
LEAST_READ = min(READ, READ_DATE)
"""Below it nothing is one."""
FITTING: dict[Kind, float] = {"date": 0.3, "number": 0.3, "name": 0.3, "word": 2.0}
"""Least fit of a fact to a value that follows it in a sentence that says that something changed, by their kind."""
FITTING_UNSAID: dict[Kind, float] = {"date": 2.0, "number": 3.0, "name": 3.0, "word": 3.0}
"""The same of whatever a turn tells without saying so."""
ANSWERED = 0.75
"""Least advantage of a question that was never answered after a turn that answers it, in nats a token."""
SHARED, MOST_SHARED, DATED = 0.4, 2, 0.6
"""What adds to the fit: a telling word that both turns have, of which so many count, and that both are dates, of which
a turn has few."""


def turns_read(chunk: Chunk, fact: EarlierFact, news: Sequence[Item]) -> list[TurnExcerpt]:
    """Return the turns of a chunk that may tell a fact otherwise.

    Those with a new value of the same kind, if they say that it is one or share words with what was told. A question
    that was never answered may be answered by the turn with most of its words.
    """
    if fact.items[0].kind == NEGATIVE:
        return most_about(fact.items[0].question, (each for each in chunk.excerpts if each.is_learnt), most=1)
    kind = kind_of(fact.answer)
    values: dict[int, set[str]] = {}
    for item in news:
        if kind_of(item.answer) == kind:
            values.setdefault(item.turn_seq, set()).add(item.answer)
    bearing = [excerpt for excerpt in chunk.excerpts if excerpt.is_learnt and excerpt.turn_seq in values]
    words = fact.words
    said = [each for each in bearing if any(says_change(each.text, value, words) for value in values[each.turn_seq])]
    others = [each for each in bearing if each not in said]
    return said + most_about(words, others, most=1)


@dataclass(frozen=True, slots=True)
class _Follows:
    """One reading: a value of a new turn that may follow what is known, and how well it fits."""

    place: int
    owner: int
    turn_seq: int
    value: str
    fit: float
    is_enough: bool


def told_otherwise(answers: Sequence[tuple[Candidate, ScoredAnswer]], about: Sequence[float]) -> list[bool]:
    """Tell which answers to old questions change what is known.

    Args:
        answers: with what was asked, the old answer written with it; nothing where there was none.
        about: how much likelier each question is after the turn read than after small talk, in nats a token.
    """
    best: dict[tuple[int, int, str], _Follows] = {}
    for found in _following(answers, about):
        key = (found.owner, found.turn_seq, found.value)
        if key not in best or found.fit > best[key].fit:
            best[key] = found
    chosen = {found.place for found in best.values() if found.is_enough}
    for place, ((asked, answer), much) in enumerate(zip(answers, about, strict=True)):
        if not asked.written and answer.confidence >= READ and much >= ANSWERED:
            chosen.add(place)
    return [place in chosen for place in range(len(answers))]


def _following(answers: Sequence[tuple[Candidate, ScoredAnswer]], about: Sequence[float]) -> Iterator[_Follows]:
    for place, ((asked, answer), much) in enumerate(zip(answers, about, strict=True)):
        value, old, turn = asked.meant(answer.text), asked.written, asked.excerpt
        kind = kind_of(value)
        least_read = READ_DATE if kind == "date" else READ
        if turn is None or not old or kind != kind_of(old) or answer.confidence < least_read:
            continue
        if kind != "date" and telling(value) & telling(asked.told):
            continue  # it stood beside the old value already
        words = telling(turn.text)
        shared = len((words & (telling(asked.told) | telling(asked.question))) - telling(old))
        fit = much + answer.confidence / 2 + SHARED * min(shared, MOST_SHARED)
        fit += DATED * (kind == "date")
        least = (FITTING if says_change(turn.text, value, f"{asked.told} {asked.question}") else FITTING_UNSAID)[kind]
        said = " ".join(normalized_words(value))
        yield _Follows(place, asked.owner, turn.turn_seq, said, fit, fit >= least)

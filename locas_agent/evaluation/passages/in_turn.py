"""Passages learnt one after another in one memory, which is asked after each about it and those before it."""

from __future__ import annotations

from collections.abc import Sequence

from locas_agent.agent import AgentMemory
from locas_agent.evaluation.passages.asking import Book, PassageAnswer, PassageAsked, Place, answered_by
from locas_agent.evaluation.passages.data import Passage
from locas_agent.evaluation.passages.telling import Telling, learn
from locas_agent.types import Progress
from locas_agent.user import UserMemory


def learnt_in_turn(
    agent: AgentMemory,
    telling: Telling,
    handle: UserMemory,
    passages: Sequence[Passage],
    asked: Sequence[PassageAsked],
    book: Book,
    progress: Progress | None,
) -> list[list[str]]:
    """Tell and learn passage after passage, and return the answers after each.

    A stopped run goes on behind the last passage whose answers are kept. A memory that is further than the answers, or
    not as far, is erased and begun again: what it knew then cannot be asked any more.

    Args:
        agent: whose backbone and store these are.
        telling: how passages are told.
        handle: the one user.
        passages: in the order in which they are told.
        asked: the questions about them, in that order.
        book: holds the answers of finished steps.
        progress: told of the steps.
    """
    places = [_places(number, asked) for number in range(len(passages))]
    begun = next((at for at, step in enumerate(places) if any(place not in book for place in step)), len(places))
    told = len({turn.session for turn in handle.turns()})
    if told not in (begun, min(begun + 1, len(places))):
        begun = 0
        if told:
            handle.erase()
            handle.reinstate()
    for number, passage in enumerate(passages[begun:], begun):
        telling.tell(handle, passage, day=number)
        learn(agent, [handle], stage=f"passage {number + 1} learnt")
        by_now = [one for one in asked if one.passage <= number]
        _, memory = agent.current(handle.key)
        answers = answered_by(agent, by_now, [memory] * len(passages))
        book.add([PassageAnswer(*place, answer) for place, answer in zip(places[number], answers, strict=True)])
        if progress is not None:
            progress("sequence learnt", number + 1, len(passages))
    return [[book[place].answer for place in step] for step in places]


def _places(number: int, asked: Sequence[PassageAsked]) -> list[Place]:
    """Return where the answers after a passage are kept; the step stands for the memory."""
    return [(f"sequence {number + 1}", one.passage_id, one.number, "") for one in asked if one.passage <= number]

"""Made-up people of a seed as a source of `eval recall`."""

from __future__ import annotations

from datetime import timedelta
from random import Random

from locas_agent.evaluation.recall.people import SECONDS_APART, SaidTurn, Source, Teller, ToldFact
from locas_agent.evaluation.synthetic.people import Person, make_person
from locas_agent.study.matching import contains

UNKNOWN_ASKED = 4
STYLE = "made up"


def generated(*, users: int, sessions: int, facts: int, seed: int, wordings: int | None) -> Source:
    """Return made-up people, the same for the same arguments.

    Each fact in force is asked for in wordings of the group that the bundled backbone never writes.

    Args:
        users: people.
        sessions: dated sessions of each.
        facts: facts told in each session; from the second on, one of them replaces an older value.
        seed: people and questions follow from it.
        wordings: wordings asked of each fact, as many as there are; None draws one.

    Raises:
        ConfigurationError: more facts are asked for than there are relations.
    """
    people = [
        make_person(Random(f"recall:{seed}:{index}"), sessions=sessions, facts_per_session=facts)
        for index in range(users)
    ]
    known, unknown = Random(f"ask:{seed}"), Random(f"unknown:{seed}")
    return Source(
        "generator",
        f"recall-{seed}-{sessions}x{facts}",
        tuple(_teller(index, person, known, unknown, wordings) for index, person in enumerate(people)),
        facts,
        contains,
        is_held_out=True,
    )


def _teller(index: int, person: Person, known: Random, unknown: Random, wordings: int | None) -> Teller:
    turns: list[SaidTurn] = []
    told: list[ToldFact] = []
    places: dict[str, int] = {}
    for number, session in enumerate(person.sessions):
        for at, line in enumerate(session.lines):
            if (fact := line.fact) is not None:
                held = fact.relation.asked_held
                asked: tuple[str, ...] = ()
                if fact in person.facts:  # in force; a former value is not asked for by itself
                    asked = (
                        (known.choice(held),)
                        if wordings is None
                        else tuple(known.sample(held, min(wordings, len(held))))
                    )
                former = places.get(fact.relation.key)
                places[fact.relation.key] = len(told)
                told.append(ToldFact((fact.value,), asked, len(turns), number, line.role, former))
            at_time = session.at + timedelta(seconds=SECONDS_APART * at)
            turns.append(SaidTurn(line.role, line.text, at_time, number, f"{number + 1}:{at}"))
    never = tuple(unknown.choice(relation.asked_held) for relation in person.unknown[:UNKNOWN_ASKED])
    return Teller(f"person-{index}", STYLE, tuple(turns), tuple(told), never)

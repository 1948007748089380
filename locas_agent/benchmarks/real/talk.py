"""People who talk: what they say in eight turns, and what they are asked in other words.

Nobody of them stands in what forms or scribes were chosen or taught by.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from random import Random

from locas_agent.agent import AgentMemory
from locas_agent.benchmarks.bench import Bench
from locas_agent.evaluation.synthetic.people import make_person
from locas_storage import Turn

SAID_AT = datetime(2026, 11, 2, 9, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Talker:
    """One person.

    Attributes:
        said: role and text of each turn.
        asked: questions in words of their own, each with the value that a right answer holds.
    """

    said: tuple[tuple[str, str], ...]
    asked: tuple[tuple[str, str], ...]

    def tell(self, agent: AgentMemory, name: str) -> Sequence[Turn]:
        """Say everything and return the journal."""
        handle = agent.for_user(name)
        for at, (role, text) in enumerate(self.said):
            handle.add(role, text, at=SAID_AT + timedelta(minutes=at))
        return handle.turns()


def _talker(*told: tuple[str, str, str]) -> Talker:
    return Talker(tuple(("user", text) for text, _, _ in told), tuple((asked, value) for _, asked, value in told))


TALKERS = (
    _talker(
        ("I moved to Porto in March, into a small flat above a bakery.", "Which city did I move to?", "Porto"),
        ("My sister Helena is a vet and has a practice near the river.", "What is my sister called?", "Helena"),
        ("We adopted a greyhound last week. He is called Biscuit and fears the stairs.", "Name my dog.", "Biscuit"),
        ("I work as a bookbinder now, mostly for the university library.", "What do I do for a living?", "bookbinder"),
        ("On Thursdays I sing in a choir, we are rehearsing Mozart.", "On which day do I sing?", "Thursday"),
        ("My car is a green Renault from 1983 and it needs a new clutch.", "What make is my car?", "Renault"),
        ("Please remember that I can't eat walnuts, my throat swells.", "Which nuts must I avoid?", "walnut"),
        ("My friend Tomasz and I want to walk the Camino next summer.", "Who will walk with me?", "Tomasz"),
    ),
    _talker(
        ("I grew up in Aarhus, my parents still live there.", "Which town did I grow up in?", "Aarhus"),
        ("My daughter Ingrid starts school after the holidays.", "What is my daughter's name?", "Ingrid"),
        ("I bought a cello last month and I practise every evening.", "Which instrument did I buy?", "cello"),
        ("Our cat Pepper brought a mouse into the kitchen again.", "What is my cat called?", "Pepper"),
        ("I am training for the marathon in Valencia.", "Where will I run the marathon?", "Valencia"),
        ("My new boss is called Mr Okafor, he came over from the bank.", "Who is my boss?", "Okafor"),
        ("I take the tram at seven, the bus is always late.", "What do I take to work?", "tram"),
        ("For my birthday I want to bake a lemon tart.", "What will I bake for my birthday?", "tart"),
    ),
)


def talkers_of(bench: Bench) -> tuple[Talker, ...]:
    """Return who talks in this run; a quick one has people whom the bundled backbone understands."""
    if not bench.is_quick:
        return TALKERS
    people = [make_person(Random(f"bench:{bench.seed}:{at}"), sessions=1, facts_per_session=2) for at in range(2)]
    return tuple(
        Talker(
            tuple((line.role, line.text) for line in person.sessions[0].lines),
            tuple((asked, fact.value) for fact in person.facts for asked in fact.relation.asked_held),
        )
        for person in people
    )

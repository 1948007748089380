"""Conversations in LoCoMo's schema that the bundled backbone can speak, made of synthetic people.

Each is between a person and "Assistant". What is said and asked comes from the held-out halves of the wordings and
values, so nothing of it was in the bundled backbone's training. What the categories are here:

| category | here |
|---|---|
| 1 multi-hop | a fact told in one session and corrected in another: which counts can be known from both only |
| 2 temporal | a fact whose value is a day or a time |
| 4 single-hop | every other fact, told once |
| 5 adversarial | what was never told; the trap is something that was, of the same kind where there is one |
"""

from __future__ import annotations

from random import Random
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from locas_agent.evaluation.locomo.data import ADVERSARIAL, ASSISTANT, written_date
from locas_agent.evaluation.synthetic.people import Person, make_person
from locas_agent.evaluation.synthetic.relations import Relation

_DATED_KINDS = ("day", "time")


class MadeUpOptions(BaseModel):
    """How many are made up."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    people: int = Field(ge=1)
    """Conversations, one for each person."""
    sessions: int = Field(4, ge=1)
    """Dated sessions of each."""
    facts: int = Field(4, ge=1)
    """Facts told in each session; from the second on, one of them replaces an older value."""
    untold: int = Field(4, ge=0, le=4)
    """Adversarial questions to each."""
    seed: int = Field(0, ge=0)
    """Everything follows from it."""


def made_up(options: MadeUpOptions) -> list[dict[str, Any]]:
    """Return conversations in the layout of `locomo10.json`, the same for the same options."""
    made = []
    for index in range(options.people):
        rng = Random(f"locomo:{options.seed}:{index}")
        person = make_person(rng, sessions=options.sessions, facts_per_session=options.facts)
        made.append(
            {
                "sample_id": f"made-up-{index}",
                "conversation": _conversation(person),
                "qa": _questions(person, options.untold, rng),
            }
        )
    return made


def _conversation(person: Person) -> dict[str, Any]:
    told: dict[str, Any] = {"speaker_a": person.name, "speaker_b": ASSISTANT.capitalize()}
    for number, session in enumerate(person.sessions, 1):
        told[f"session_{number}_date_time"] = written_date(session.at)
        told[f"session_{number}"] = [
            {
                "speaker": told["speaker_b"] if line.role == ASSISTANT else person.name,
                "dia_id": f"D{number}:{at}",
                "text": line.text,
            }
            for at, line in enumerate(session.lines, 1)
        ]
    return told


def _questions(person: Person, untold: int, rng: Random) -> list[dict[str, Any]]:
    said: dict[str, list[str]] = {}
    for number, session in enumerate(person.sessions, 1):
        for at, line in enumerate(session.lines, 1):
            if line.fact is not None:
                said.setdefault(line.fact.relation.key, []).append(f"D{number}:{at}")
    questions: list[dict[str, Any]] = []
    for fact in person.facts:
        corrected = fact.relation.key in person.replaced
        category = 1 if corrected else 2 if fact.relation.kind in _DATED_KINDS else 4
        text = rng.choice(fact.relation.asked_held)
        questions.append(
            {"question": text, "answer": fact.value, "evidence": said[fact.relation.key], "category": category}
        )
    for relation in person.unknown[:untold]:
        key, trap = _trap(person, relation, rng)
        text = rng.choice(relation.asked_held)
        questions.append(
            {"question": text, "adversarial_answer": trap, "evidence": said[key][-1:], "category": ADVERSARIAL}
        )
    return questions


def _trap(person: Person, relation: Relation, rng: Random) -> tuple[str, str]:
    """Return a told fact, by key and value, that could be taken for the answer."""
    alike = [fact for fact in person.facts if fact.relation.kind == relation.kind]
    fact = rng.choice(alike or list(person.facts))
    return fact.relation.key, fact.value

"""Synthetic people: who tells what, when, between which small talk.

A person is drawn from one seed. Over dated sessions it tells facts, changes its mind about some, and never tells
others. Split `train` is what the bundled backbone learns from; split `held` uses values, statements and small talk that
occur nowhere in its training.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random

from locas_agent.errors import ConfigurationError
from locas_agent.evaluation.synthetic.relations import RELATIONS, Relation
from locas_agent.evaluation.synthetic.values import HELD, TRAIN, make_value

DO_NOT_KNOW = "I do not know."

# fmt: off
_DID = (
    "went for a long walk", "slept badly", "cleaned the kitchen", "read the news", "watched the rain", "waited for the "
        "train",
    "repaired a chair", "cooked for two friends", "missed the bus", "wrote some letters", "lost an hour in a shop",
    "listened to the radio",
    "painted a wall", "talked to an old friend", "had a headache", "washed the windows", "took a nap",
    "forgot my umbrella", "made a fire",
    "sorted old photos", "carried heavy boxes", "looked at the stars", "drank too much coffee", "ran in the park",
    "played cards",
    "got a letter", "bought new shoes", "answered many emails", "saw a fire engine", "helped a stranger",
)
_DID_HELD = (
    "visited a museum", "planted some seeds", "burned the toast", "fixed a bicycle", "sang in the kitchen",
    "counted clouds",
    "sat by the lake", "cleaned out a drawer",
)
_WHEN = (
    "today", "yesterday", "this morning", "last night", "on the weekend", "after lunch", "before work",
    "in the evening",
)
_FEEL = (
    "It was fine.", "It was nice.", "I am tired now.", "I feel good.", "It took hours.", "What a day.", "", "", "",
)
_CHAT = (
    "How are you?", "Good morning!", "Hello, it is me again.", "The weather is awful.", "The sun is shining.",
    "I am a bit bored.",
    "Tell me something nice.", "I have to go soon.", "Thank you, that helps.", "What do you think about the winter?",
    "I should sleep more.", "Nothing much happened.", "The neighbours are loud again.", "I need a holiday.",
    "Everything is so expensive now.", "I am in a good mood.", "Let us talk a little.", "It is very quiet here.",
    "I have too much work.",
    "My back hurts a bit.",
)
_CHAT_HELD = (
    "Hi there.", "It is snowing outside.", "I am quite happy today.", "Work was slow.", "I wonder what to cook.",
    "It is getting late.",
)
_REPLIES = (
    "I see.", "That sounds good.", "Oh, I am sorry to hear that.", "How nice!", "I am here for you.", "Tell me more.",
    "That happens.",
    "I understand.", "Good for you.", "Take care of yourself.", "All right.", "I hope it gets better.", "Well done.",
    "That is interesting.", "I am glad.",
)
_NOTED = (
    "Good to know.", "I will remember that.", "Thank you for telling me.", "Noted.", "All right, noted.", "Oh, nice.",
    "I see.",
    "That is good to know.",
)
_ECHO = (
    "Noted: {v}.", "I will remember {v}.", "So it is {v}.",
)
# fmt: on


@dataclass(frozen=True, slots=True)
class Fact:
    """A relation with its value, the session it was told in (0-based), and whether it replaced an older value."""

    relation: Relation
    value: str
    session: int
    changed: bool = False


@dataclass(frozen=True, slots=True)
class Line:
    """One turn of a synthetic session; `fact` is what it tells, if anything."""

    role: str
    text: str
    fact: Fact | None = None


@dataclass(frozen=True, slots=True)
class PersonSession:
    """A dated run of lines."""

    at: datetime
    lines: tuple[Line, ...]


@dataclass(frozen=True, slots=True)
class Person:
    """Everything one synthetic person says, and what may be asked about it afterwards."""

    name: str
    sessions: tuple[PersonSession, ...]
    facts: tuple[Fact, ...]
    """Newest value of every relation told, in the order of telling."""
    unknown: tuple[Relation, ...]
    """Relations this person never mentions."""
    replaced: dict[str, str] = field(default_factory=dict)
    """Relation key -> former value, for facts told again."""


def small_talk(rng: Random, split: str = TRAIN) -> Line:
    """Draw a user line that tells no fact of any relation."""
    if rng.random() < 0.35:
        return Line("user", rng.choice(_CHAT if split == TRAIN else _CHAT_HELD))
    did = rng.choice(_DID if split == TRAIN else _DID_HELD)
    return Line("user", f"I {did} {rng.choice(_WHEN)}. {rng.choice(_FEEL)}".strip())


def small_reply(rng: Random) -> Line:
    """Draw an assistant line that answers small talk."""
    return Line("assistant", rng.choice(_REPLIES))


def tell(rng: Random, fact: Fact, split: str = TRAIN) -> list[Line]:
    """Return the user line that states the fact and the assistant's acknowledgement."""
    relation = fact.relation
    if fact.changed:
        frames = relation.changed if split == TRAIN else relation.changed_held
    else:
        frames = relation.told if split == TRAIN else relation.told_held
    text = rng.choice(frames).format(v=fact.value)
    if rng.random() < 0.15:
        text = f"{small_talk(rng, split).text} {text}"
    echo = rng.random() < 0.15
    answer = rng.choice(_ECHO).format(v=fact.value) if echo else rng.choice(_NOTED)
    return [Line("user", text, fact), Line("assistant", answer)]


def make_session(
    rng: Random, facts: list[Fact], at: datetime, *, small_exchanges: int, split: str = TRAIN
) -> PersonSession:
    """Spread the facts, in order, among exchanges of small talk."""
    slots = sorted(rng.sample(range(len(facts) + small_exchanges), len(facts)))
    lines: list[Line] = []
    pending = list(facts)
    for slot in range(len(facts) + small_exchanges):
        lines += tell(rng, pending.pop(0), split) if slot in slots else [small_talk(rng, split), small_reply(rng)]
    return PersonSession(at, tuple(lines))


def make_person(
    rng: Random, *, sessions: int, facts_per_session: int, split: str = HELD, small_exchanges: tuple[int, int] = (2, 5)
) -> Person:
    """Draw a person who tells `facts_per_session` facts in each session.

    From the second on, one of them replaces an older value.

    Raises:
        ConfigurationError: more facts are asked for than there are relations.
    """
    changes = min(1, facts_per_session - 1)
    fresh = facts_per_session + (sessions - 1) * (facts_per_session - changes)
    if fresh + 4 > len(RELATIONS):
        raise ConfigurationError(
            f"{sessions} sessions of {facts_per_session} facts need {fresh + 4} relations, there are {len(RELATIONS)}: "
            "ask for fewer"
        )
    order = rng.sample(RELATIONS, len(RELATIONS))
    known: dict[str, Fact] = {}
    replaced: dict[str, str] = {}
    at = datetime(2023, 1, 1, 9, tzinfo=UTC) + timedelta(days=rng.randint(0, 700), minutes=rng.randint(0, 600))
    made = []
    for index in range(sessions):
        told = [Fact(order.pop(), "", index) for _ in range(facts_per_session - (changes if index else 0))]
        if index and changes:
            old = rng.choice(
                [fact for fact in known.values() if fact.session < index and not fact.changed] or list(known.values())
            )
            told.insert(rng.randrange(len(told) + 1), Fact(old.relation, "", index, changed=True))
        facts = []
        for fact in told:
            former = known.get(fact.relation.key)
            value = make_value(fact.relation.kind, split, rng)
            while former is not None and value == former.value:
                value = make_value(fact.relation.kind, split, rng)
            if former is not None:
                replaced[fact.relation.key] = former.value
            facts.append(Fact(fact.relation, value, index, fact.changed))
        for fact in facts:
            known.pop(fact.relation.key, None)
            known[fact.relation.key] = fact
        made.append(make_session(rng, facts, at, small_exchanges=rng.randint(*small_exchanges), split=split))
        at += timedelta(days=rng.randint(1, 40), minutes=rng.randint(0, 300))
    return Person(make_value("name", split, rng), tuple(made), tuple(known.values()), tuple(order), replaced)

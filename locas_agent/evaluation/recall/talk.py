"""People of the talk schema as a source of `eval recall`."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import timedelta
from itertools import islice, zip_longest
from pathlib import Path

from locas_agent.errors import ConfigurationError
from locas_agent.evaluation.recall.people import SECONDS_APART, SaidTurn, Source, Teller, ToldFact
from locas_agent.evaluation.scoring import names
from locas_agent.evaluation.talk.data import TalkPerson, read_talk


def from_files(paths: Sequence[Path], *, users: int | None, wordings: int | None) -> Source:
    """Return the people of files of the talk schema.

    Args:
        paths: files.
        users: only so many of them, one of each file in turn; None means everybody.
        wordings: the first so many wordings of each fact; None means all.

    Raises:
        ConfigurationError: a file is given twice or is none of the schema.
    """
    if len({path.resolve() for path in paths}) < len(paths):
        raise ConfigurationError("a file of people is given twice; give each once")
    files = [read_talk(path) for path in paths]
    rows = [[_teller(f"{at}.{one.person}", one, wordings) for one in file.people] for at, file in enumerate(files, 1)]
    tellers = tuple(islice((one for row in zip_longest(*rows) for one in row if one is not None), users))
    digest = hashlib.sha256("".join(file.digest for file in files).encode()).hexdigest()
    sessions = sum(teller.turns[-1].session + 1 for teller in tellers)
    return Source(
        ", ".join(file.name for file in files),
        f"talk-{digest[:12]}",
        tellers,
        round(sum(len(teller.facts) for teller in tellers) / sessions, 2),
        names,
        is_held_out=False,
    )


def _teller(name: str, person: TalkPerson, wordings: int | None) -> Teller:
    turns: list[SaidTurn] = []
    places: dict[str, int] = {}
    at_turn: list[int] = []
    for number, session in enumerate(person.sessions):
        for at, turn in enumerate(session.turns):
            for fact in turn.facts:
                places[fact] = len(places)
                at_turn.append(len(turns))
            said_at = session.at + timedelta(seconds=SECONDS_APART * at)
            turns.append(SaidTurn(turn.role, turn.text, said_at, number, f"{number + 1}:{at}"))
    facts = []
    for fact, place in places.items():
        told = person.facts[fact]
        turn_place = at_turn[place]
        facts.append(
            ToldFact(
                told.answers,
                told.questions[:wordings],
                turn_place,
                told.session,
                turns[turn_place].role,
                None if told.replaces is None else places[told.replaces],
            )
        )
    return Teller(name, person.style, tuple(turns), tuple(facts), person.never_told)

"""Who may be learnt from.

Whose words become items, what the teacher reads, and what a consolidation says of the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import pytest

from locas_agent.config import SourceSettings
from locas_agent.study.chunking import TurnExcerpt
from locas_agent.study.question_generation import told_in
from locas_agent.study.sources import Sources
from locas_storage import Turn
from tests.unit.study.test_self_study import item

AT = datetime(2024, 5, 3, 12, tzinfo=UTC)


def turn(seq: int, text: str, *, role: str = "user", name: str | None = None, trust: str = "user") -> Turn:
    return Turn(
        seq=seq,
        idempotency_key=str(seq),
        role=role,
        content=text,
        name=name,
        session=None,
        at=AT,
        trust=trust,
        token_count=1,
        created_at=AT,
    )


def learnt(turns: Sequence[Turn], settings: SourceSettings | None = None) -> list[int]:
    sources = Sources.of(turns, settings or SourceSettings())
    return [each.seq for each in turns if sources.may_be_read(each) and sources.may_be_learnt(each)]


SAID = [
    turn(1, "I was born in Turin."),
    turn(2, "Your passport expires in May.", role="assistant"),
    turn(3, "The train leaves at nine.", role="assistant", trust="found"),
    turn(4, "I will call on Friday.", role="assistant", trust="promised"),
    turn(5, "The gate code is 5512.", trust="a web page"),
    turn(6, "ok", role="tool"),
    turn(7, "It was said elsewhere.", trust="import"),
]


def test_the_user_is_learnt_from_and_of_the_assistant_what_it_promised_or_found() -> None:
    assert learnt(SAID) == [1, 3, 4, 7]
    assert learnt(SAID, SourceSettings(assistant=())) == [1, 7]
    assert learnt(SAID, SourceSettings(user=("user", "a web page"), assistant=("user",))) == [1, 2, 5]


def test_two_people_who_carry_names_are_both_learnt_from() -> None:
    people = [turn(1, "I sold my boat.", name="Ines"), turn(2, "I bought a mill.", role="assistant", name="Olaf")]
    assert learnt(people) == [1, 2]
    assert learnt(people, SourceSettings(named_speakers=False)) == [1]
    # A program that names its bot and not its user speaks for the bot.
    assert learnt([turn(1, "I sold my boat."), turn(2, "You bought a mill.", role="assistant", name="Helper")]) == [1]


EXCERPTS = (
    TurnExcerpt(1, "I", "I was born in Turin."),
    TurnExcerpt(2, "You", "Your passport expires in May.", is_learnt=False),
    TurnExcerpt(3, "I", "My cousin Bo lives in Turin."),
    TurnExcerpt(4, "You", "Noted, Turin.", is_learnt=False),
)


@pytest.mark.parametrize(
    ("asked", "answer", "told"),
    [
        (0, "It is May.", None),  # asked about the user's turn, answered with the assistant's claim
        (0, "It is Turin.", 0),  # an echo takes nothing away
        (0, "It is Bo.", 2),  # another turn of the user's tells it
        (0, "It is green.", 0),  # nobody's words
        (0, "In May, in Turin, my passport.", None),
    ],
)
def test_what_only_the_assistant_claimed_becomes_no_item(asked: int, answer: str, told: int | None) -> None:
    assert told_in(EXCERPTS, asked, item("What do you know of it?", answer)) == told

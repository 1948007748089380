"""Questions about oneself that most people never answered: what a memory must not invent an answer to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from random import Random

from locas_agent.study.chunking import Chunk
from locas_agent.study.spans import telling, words_of
from locas_agent.study.speakers import names_among_others, put_among_others
from locas_agent.study.teacher import Candidate, ScoredAnswer, Teacher

MOST_UNTOLD = 12
"""Questions never answered, of one owner and one chunk."""
SAID_TOKENS = 12
"""Tokens of what the bare backbone says that a memory has to leave alone: there it is decided whether it answers."""
UNTOLD = tuple(
    text.strip()
    for text in """
What is my mother's first name?
What is my father's job?
When was I born?
What is my middle name?
What is my shoe size?
How tall am I?
What is my blood type?
Which school did I go to?
What did I study at university?
What is my landlord called?
How much rent do I pay?
What is my salary?
What is the colour of my front door?
What is the licence plate of my car?
Which bank do I use?
What is my phone number?
What is my doctor's name?
What is my dentist called?
Who cuts my hair?
What is my favourite film?
What is my favourite song?
Which team do I support?
What is my favourite colour?
What is my favourite dessert?
Which perfume do I wear?
How many siblings do I have?
What is my oldest brother called?
What is my grandmother's name?
Where did my grandparents come from?
Who was my first teacher?
What was my first pet called?
What is my cat called?
What is my dog's name?
What breed is my dog?
How old is my youngest child?
What is my nephew's name?
What is my best friend called?
Who is my neighbour?
When is my wedding anniversary?
Where did I get married?
Who was my best man?
Where did I spend my last holiday?
Which country do I want to visit next?
When does my passport expire?
Which languages do I speak?
Which instrument do I play?
Who is my music teacher?
What sport do I play?
How far do I run every week?
Which gym do I go to?
What am I allergic to?
Which medicine do I take?
When is my next appointment at the hospital?
Who is my boss?
What is my company called?
How many people work in my office?
When did I start my job?
Which train do I take in the morning?
How do I get to work?
What time do I get up?
What do I have for breakfast?
What do I drink in the evening?
Which newspaper do I read?
What book am I reading?
Who is my favourite author?
What is my favourite restaurant?
Which computer do I use?
What is the password of my router?
Which phone do I have?
What is the name of my boat?
What colour is my bicycle?
When did I buy my house?
How many rooms does my flat have?
Which floor do I live on?
What is my postcode?
Who lives next door to me?
What do I grow in my garden?
What did I plant last spring?
What is my lucky number?
What is my star sign?
What did I get for my last birthday?
Who gave me my watch?
What do I collect?
What did I lose last week?
When does my course begin?
Which exam am I preparing for?
What grade did I get?
Who is my lawyer?
Which insurance do I have?
How much did my sofa cost?
Where do I keep my spare key?
What is my email address?
Which church do I go to?
What did I vote for?
Who did I have lunch with?
What did I cook on Sunday?
Which wine do I like?
What is my sister's husband called?
Where does my uncle live?
How old is my aunt?
""".strip().splitlines()
)


def draw_untold(
    teacher: Teacher,
    asked: tuple[str, ...],
    chunks: Mapping[int, Sequence[Chunk]],
    known: Mapping[int, set[str]],
    *,
    most: int,
) -> list[tuple[Candidate, ScoredAnswer]]:
    """Return questions of which no chunk has a telling word, with what the bare backbone says to them.

    A memory is to leave such answers as they are. One answer for all of them, "I do not know.", was what memories said
    to whatever was asked in new words, and it moved neutral text more than all that had been told
    (`docs/decisions.md`, never told).

    Args:
        teacher: answers.
        asked: questions that ship with the package, to draw from.
        chunks: of each owner, the chunks at hand; questions are asked about the last.
        known: of each owner, questions that are items already; what asks for the same in other small words is one too.
        most: questions of one owner that the settings allow; never more than `MOST_UNTOLD`.
    """
    words = _words_of(asked)
    found = []
    for owner, own in chunks.items():
        said = {word.key for chunk in own for excerpt in chunk.excerpts for word in words_of(excerpt.text)}
        learnt = {frozenset(telling(text)) for text in known[owner]}  # "What's my job?" is "What is my job?"
        free = [text for text in asked if not said & words[text] and words[text] not in learnt]
        rng, names = Random(f"{own[-1].messages}"), names_among_others(own[-1])
        drawn = rng.sample(free, min(len(free), most, MOST_UNTOLD))
        put = [put_among_others(text, own[-1], rng.choice(names)) for text in drawn] if names else drawn
        found += [Candidate(owner, own[-1], own[-1].to_seq, text, "") for text in put if text not in known[owner]]
    answers = teacher.by_itself([candidate.question for candidate in found], length=SAID_TOKENS)
    return [(candidate, answer) for candidate, answer in zip(found, answers, strict=True) if answer is not None]


@cache
def _words_of(asked: tuple[str, ...]) -> dict[str, frozenset[str]]:
    """Return the telling words of shipped questions; nothing that a user said is kept here."""
    return {text: frozenset(telling(text)) for text in asked}

"""Training documents of the bundled backbone: dialogues, study requests, closed-book questions, prose.

Every document is a list of weighted messages and follows from (seed, index) alone, so that an interrupted training
resumes on the same data. The weight of a message is the weight of its tokens in the loss: answers count most, small
talk little.
"""

from __future__ import annotations

import lzma
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

from locas_agent.conversation import messages as prompting
from locas_agent.evaluation.synthetic.people import DO_NOT_KNOW, Fact, Line, make_session, small_reply, small_talk
from locas_agent.evaluation.synthetic.relations import FIXED_FACTS, RELATIONS, Relation
from locas_agent.evaluation.synthetic.values import TRAIN, make_value
from locas_agent.study import prompts

ANSWER, WRITTEN, REPLY, CONTEXT = 1.0, 0.7, 0.1, 0.05
PROSE = Path(__file__).parent / "prose.txt.xz"


@dataclass(frozen=True, slots=True)
class Weighted:
    """A chat message, or plain text when `role` is empty, with the loss weight of its tokens."""

    role: str
    content: str
    weight: float


Document = list[Weighted]


class Documents:
    """Draws documents.

    `ease` in 0..1 shortens dialogues at the start of training: copying is learnt sooner on short ones.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.prose = lzma.decompress(PROSE.read_bytes()).decode()

    def draw(self, index: int, *, ease: float = 0.0) -> Document:
        """Return document number `index`."""
        rng = Random(f"{self.seed}:{index}")
        kind = rng.random()
        if kind < 0.56:
            return self._dialogue(rng, ease)
        if kind < 0.86:
            return self._study(rng, ease)
        if kind < 0.95:
            return self._closed_book(rng)
        return self._prose(rng)

    def _prose(self, rng: Random) -> Document:
        start = rng.randrange(len(self.prose) - 1200)
        return [Weighted("", self.prose[start : start + 800], 0.3)]

    def _closed_book(self, rng: Random) -> Document:
        messages = [_weighted(prompting.session_header(_date(rng)), CONTEXT)] if rng.random() < 0.5 else []
        for _ in range(rng.randint(2, 6)):
            kind = rng.random()
            if kind < 0.5:
                messages += _exchange(_question(rng, rng.choice(RELATIONS)), DO_NOT_KNOW)
            elif kind < 0.8:
                messages += _fixed(rng)
            else:
                messages += [_line(small_talk(rng)), _line(small_reply(rng))]
        return messages

    def _dialogue(self, rng: Random, ease: float) -> Document:
        told, messages, untold = _told(rng, ease)
        if rng.random() < 0.4:
            messages.append(_weighted(prompting.session_header(_date(rng)), CONTEXT))
            if rng.random() < 0.5:
                messages += [_line(small_talk(rng)), _line(small_reply(rng))]
        for _ in range(rng.randint(3, 7)):
            kind = rng.random()
            if kind < 0.68:
                fact = rng.choice(list(told.values()))
                messages += _exchange(_question(rng, fact.relation), _answer(fact))
            elif kind < 0.9:
                messages += _exchange(_question(rng, rng.choice(untold)), DO_NOT_KNOW)
            elif kind < 0.95:
                messages += _fixed(rng)
            else:
                messages += [_line(small_talk(rng)), _line(small_reply(rng))]
        return messages

    def _study(self, rng: Random, ease: float) -> Document:
        told, messages, untold = _told(rng, ease)
        lines = [message for message in messages if message.role in ("user", "assistant")]
        tellings = [line for line in lines if isinstance(line, _Telling)]
        others = [line for line in lines if not isinstance(line, _Telling)]
        for _ in range(rng.randint(2, 4)):
            kind = rng.random()
            if kind < 0.62 or (kind < 0.8 and not others):
                line = rng.choice(tellings)
                fact = told[rng.choice(line.keys)]
                written = f"Question: {rng.choice(fact.relation.study)}\nAnswer: {_answer(fact)}"
                prompt = prompts.question_prompt(line.content, speaker="I")
            elif kind < 0.8:
                line = rng.choice(others)
                written = prompts.NOTHING
                prompt = prompts.question_prompt(line.content, speaker="You" if line.role == "assistant" else "I")
            else:
                written = f"Question: {rng.choice(rng.choice(untold).study)}\nAnswer: {DO_NOT_KNOW}"
                prompt = prompts.unanswerable_prompt()
            messages += [Weighted("user", prompt, 0.0), Weighted("assistant", written, WRITTEN)]
        return messages


@dataclass(frozen=True, slots=True)
class _Telling(Weighted):
    """A message that states facts: the keys of their relations."""

    keys: tuple[str, ...] = ()


def _date(rng: Random) -> datetime:
    return datetime(2020, 1, 1, tzinfo=UTC) + timedelta(days=rng.randint(0, 3000))


def _weighted(message: prompting.Message, weight: float) -> Weighted:
    return Weighted(message["role"], message["content"], weight)


def _line(line: Line) -> Weighted:
    return Weighted(line.role, line.text, REPLY if line.role == "assistant" else CONTEXT)


def _exchange(question: str, answer: str) -> Document:
    return [Weighted("user", question, CONTEXT), Weighted("assistant", answer, ANSWER)]


def _fixed(rng: Random) -> Document:
    question, value = rng.choice(FIXED_FACTS)
    return _exchange(question, f"It is {value}.")


def _question(rng: Random, relation: Relation) -> str:
    return rng.choice(relation.study if rng.random() < 0.5 else relation.asked)


def _answer(fact: Fact) -> str:
    return f"It is {fact.value}."


def _told(rng: Random, ease: float) -> tuple[dict[str, Fact], Document, list[Relation]]:
    """Draw one to four sessions; return the newest facts by key, the messages, and the relations left untold."""
    easy = rng.random() < ease
    sessions = 1 if easy else rng.choice((1, 1, 1, 2, 2, 3, 4))
    order = rng.sample(RELATIONS, len(RELATIONS))
    told: dict[str, Fact] = {}
    messages: Document = []
    at = _date(rng)
    for index in range(sessions):
        facts = []
        for _ in range(rng.randint(1, 3) if easy else rng.randint(1, max(2, 7 - sessions))):
            if told and rng.random() < 0.25:
                relation, changed = rng.choice(list(told.values())).relation, True
            else:
                relation, changed = order.pop(), rng.random() < 0.1
            fact = Fact(relation, make_value(relation.kind, TRAIN, rng), index, changed)
            facts.append(fact)
            told[relation.key] = fact
        session = make_session(rng, facts, at, small_exchanges=rng.randint(0, 2) if easy else rng.randint(0, 6))
        messages.append(_weighted(prompting.session_header(at), CONTEXT))
        messages += _join_some(rng, session.lines)
        if rng.random() < 0.2:
            messages += _exchange(_question(rng, order[0]), DO_NOT_KNOW)
        elif rng.random() < 0.2:
            fact = rng.choice(list(told.values()))
            messages += _exchange(_question(rng, fact.relation), _answer(fact))
        at += timedelta(days=rng.randint(1, 60))
    return told, messages, order


def _join_some(rng: Random, lines: tuple[Line, ...]) -> Document:
    """Return a session's lines as messages; now and then two neighbouring facts are told in one breath."""
    messages: Document = []
    index = 0
    while index < len(lines):
        line = lines[index]
        after = lines[index + 2] if index + 2 < len(lines) else None
        if line.fact is None:
            messages.append(_line(line))
            index += 1
        elif (
            after is not None
            and after.fact is not None
            and after.fact.relation.key != line.fact.relation.key
            and rng.random() < 0.15
        ):
            messages.append(
                _Telling(
                    "user", f"{line.text} {after.text}", CONTEXT, (line.fact.relation.key, after.fact.relation.key)
                )
            )
            index += 3
        else:
            messages.append(_Telling("user", line.text, CONTEXT, (line.fact.relation.key,)))
            index += 1
    return messages

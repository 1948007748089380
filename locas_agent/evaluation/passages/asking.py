"""Asking about passages: the questions, what stands before them, and the answers that are kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from locas_agent.agent import AgentMemory
from locas_agent.conversation.messages import Message, question
from locas_agent.evaluation import asking
from locas_agent.evaluation.answer_book import AnswerBook, digest_of
from locas_agent.evaluation.passages.data import Passage
from locas_agent.memory import LocasMemory
from locas_agent.user import UserMemory

ANSWER_TOKENS = 24
"""Longest answer, in tokens: as long as an answer that is studied."""
SHORT = "Answer in a few words."
ROWS = 64
"""Questions asked at once: what a stopped run loses of its answers."""

Place = tuple[str, str, int, str]
"""Arm, id of the passage, number of the question in it, digest of the memory."""


@dataclass(frozen=True, slots=True)
class PassageAsked:
    """One question; `passage` is the place of its passage, `number` its own among that passage's."""

    passage: int
    passage_id: str
    number: int
    text: str
    gold: str


@dataclass(frozen=True, slots=True)
class PassageAnswer:
    """One answer; `memory` names the memory that gave it as `digest_of` does."""

    arm: str
    passage: str
    question: int
    memory: str
    answer: str

    @property
    def place(self) -> Place:
        """What it answers."""
        return (self.arm, self.passage, self.question, self.memory)


Book = AnswerBook[PassageAnswer]
"""Answers about passages."""


def questions_of(passages: Sequence[Passage], *, short: bool) -> list[PassageAsked]:
    """Return every question in the order of the passages, with the request for a few words where it is wanted."""
    return [
        PassageAsked(at, passage.id, number, f"{one.question} {SHORT}" if short else one.question, one.answer)
        for at, passage in enumerate(passages)
        for number, one in enumerate(passage.questions)
    ]


def without_passage(
    agent: AgentMemory,
    asked: Sequence[PassageAsked],
    memories: Sequence[LocasMemory | None],
    *,
    arm: str,
    book: Book,
) -> list[str]:
    """Answer with nothing in the prompt but the question.

    Args:
        agent: whose backbone answers.
        asked: the questions.
        memories: of each passage, by its place; None is the bare backbone.
        arm: whose answers they are.
        book: answers that are in it are not asked for again, and the others are put into it.
    """
    digests = [digest_of(memory) for memory in memories]
    places = [(arm, one.passage_id, one.number, digests[one.passage]) for one in asked]
    return _kept(places, asked, lambda rows: answered_by(agent, rows, memories), book)


def answered_by(agent: AgentMemory, asked: Sequence[PassageAsked], memories: Sequence[LocasMemory | None]) -> list[str]:
    """Put questions to the memories of their passages, and keep no answer."""
    found = asking.answers(
        agent,
        [question(one.text) for one in asked],
        [memories[one.passage] for one in asked],
        answer_tokens=ANSWER_TOKENS,
        groups=[one.passage for one in asked],
    )
    return [answer.text for answer in found]


def with_passage(
    agent: AgentMemory, asked: Sequence[PassageAsked], handles: Sequence[UserMemory], *, arm: str, book: Book
) -> list[str]:
    """Answer with the passage before the question, in the form in which the backbone reads a session best.

    Args:
        agent: whose backbone answers.
        asked: the questions.
        handles: of each passage, by its place, who told it and nothing else.
        arm: whose answers they are.
        book: as in `without_passage`.
    """
    _, wide = asking.reading_forms(agent)
    journals = [handle.turns() for handle in handles]

    def prompt(one: PassageAsked) -> list[Message]:
        turns = asking.fitting(agent, journals[one.passage], one.text, answer_tokens=ANSWER_TOKENS, reading=wide)
        return asking.prompt(turns, one.text, wide)

    def put(rows: Sequence[PassageAsked]) -> list[str]:
        prompts = [prompt(one) for one in rows]
        found = asking.answers(agent, prompts, [None] * len(rows), answer_tokens=ANSWER_TOKENS)
        return [answer.text for answer in found]

    return _kept([(arm, one.passage_id, one.number, "") for one in asked], asked, put, book)


def _kept(
    places: Sequence[Place],
    asked: Sequence[PassageAsked],
    put: Callable[[Sequence[PassageAsked]], list[str]],
    book: Book,
) -> list[str]:
    """Ask what the book does not hold, a few at a time, and return the answer at every place."""
    missing = [at for at, place in enumerate(places) if place not in book]
    for start in range(0, len(missing), ROWS):
        rows = missing[start : start + ROWS]
        found = put([asked[at] for at in rows])
        book.add([PassageAnswer(*places[at], answer) for at, answer in zip(rows, found, strict=True)])
    return [book[place].answer for place in places]

"""What a teacher is asked, and what it answers: texts to be sampled, questions with what is read, scored answers."""

from __future__ import annotations

from dataclasses import dataclass

from locas_agent.conversation.messages import Message
from locas_agent.inference.generation import TopK
from locas_agent.memory import LocasMemory
from locas_agent.study.chunking import Chunk, TurnExcerpt
from locas_agent.study.dates.found import asks_for_day, date_meant, dates_in
from locas_agent.study.forms.reading import CHAT, ReadingForm


@dataclass(frozen=True, slots=True)
class Request:
    """One text to be sampled.

    What the backbone is asked after a chunk, and a name of its place, unique within the chunk, that seeds it.
    """

    chunk: Chunk
    prompt: str
    place: str


@dataclass(frozen=True, slots=True)
class Candidate:
    """A question that may become an item.

    Whose it is (a number of the caller's), its chunk, the turn asked about, and the answer written with it.
    """

    owner: int
    chunk: Chunk
    turn_seq: int
    question: str
    written: str
    form: ReadingForm = CHAT
    """How what is read stands before the question."""
    context: tuple[Message, ...] | None = None
    """What is read; the whole chunk where none is given."""
    scribe: LocasMemory | None = None
    """Who reads; the bare backbone where none is given."""
    excerpt: TurnExcerpt | None = None
    """The turn that is read, where an answer that repeats a dating phrase of it means that date."""
    told: str = ""
    """What the turn said that an old question is about."""

    @property
    def read(self) -> tuple[Message, ...]:
        """What the teacher reads to answer."""
        return self.chunk.messages if self.context is None else self.context

    @property
    def prompt(self) -> list[Message]:
        """The question behind what is read."""
        return self.form.prompt(self.read, self.question)

    def meant(self, answer: str) -> str:
        """Return what an answer means: the date where a question for a day is answered in words of the turn read."""
        if self.excerpt is None or not asks_for_day(self.question):
            return answer
        text, day = self.excerpt.text, self.excerpt.day
        told = dates_in(text, day)
        date = date_meant(answer, text, told)
        if date is None:  # "the 23th of May" is none of its phrases, and means what one of them does
            meant = {each.answer for each in told}
            date = next((each for each in dates_in(answer, day) if each.answer in meant), None)
        return answer if date is None else date.answer


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer that ended in time, and the probability of its least likely token."""

    ids: tuple[int, ...]
    text: str
    confidence: float


@dataclass(frozen=True, slots=True)
class ScoredAnswer(Answer):
    """An answer with the head of the distribution before each of its tokens, and before its end where it has one."""

    teacher: TopK
    is_whole: bool = True
    """Whether it ends; else it is the beginning of a longer one."""


@dataclass(frozen=True, slots=True)
class Opening:
    """One question to be written: what the backbone is asked, the first words of its answer, and a name that seeds it.

    Attributes:
        messages: the prompt.
        words: with which the answer begins.
        place: unique among what is sampled about one turn.
    """

    messages: tuple[Message, ...]
    words: str
    place: str

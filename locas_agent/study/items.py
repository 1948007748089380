"""What a study set is made of: items, their kinds, how well they cover the overflow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from locas_agent.inference.generation import TopK
from locas_agent.memory import LocasMemory
from locas_agent.study.chunking import Chunk
from locas_agent.study.matching import normalized_words

QUESTION, NEGATIVE, PROBE = "question", "negative", "probe"


@dataclass(frozen=True, eq=False)
class Item:
    """One question with the teacher's answer and its distribution over each answer token.

    Attributes:
        item_id: stable identity, hexadecimal.
        kind: `question`, `negative` (never told: answered by abstaining, or left as the bare backbone begins to answer
            it) or `probe` (held out: measured, never trained on).
        from_seq, to_seq: turns of the chunk the teacher had in its context.
        turn_seq: the turn that was asked about; for a negative the last turn of its chunk.
        answer_ids: answer tokens with the end-of-turn token, where the answer is whole.
        teacher: head of the teacher's distribution before each of `answer_ids`.
    """

    item_id: str
    kind: str
    from_seq: int
    to_seq: int
    turn_seq: int
    question: str = field(repr=False)
    answer: str = field(repr=False)
    answer_ids: tuple[int, ...] = field(repr=False)
    teacher: TopK = field(repr=False)


@dataclass(frozen=True, slots=True)
class Coverage:
    """How well a study set covers its chunks."""

    turns: int
    """Turns of the chunks that may be asked about."""
    carrying: int
    """Turns the backbone found something to ask about."""
    covered: int
    """Of these, turns with at least one kept item."""
    nothing: int
    """Turns about which the backbone said that there is nothing to remember."""
    sampled: int
    """Questions sampled."""
    dropped: int = 0
    """Items that no store would take, left out before anything was trained."""

    @property
    def share(self) -> float:
        """Covered turns among those that carry a fact; 1.0 when none does."""
        return self.covered / self.carrying if self.carrying else 1.0


@dataclass(frozen=True, eq=False)
class StudySet:
    """What one consolidation of one user learns from: new items, and ids of earlier ones that no longer hold."""

    items: tuple[Item, ...]
    retired: frozenset[str]
    coverage: Coverage


@dataclass(frozen=True, eq=False)
class StudyRequest:
    """One user's chunks, oldest first, the items of earlier consolidations, and the memory that learnt them."""

    chunks: tuple[Chunk, ...]
    earlier: tuple[Item, ...] = ()
    memory: LocasMemory | None = None
    told: Mapping[int, str] = field(default_factory=dict, repr=False)
    """Texts of the turns that earlier items were asked about, by number in the journal; those that are kept."""


@dataclass(frozen=True, slots=True)
class EarlierFact:
    """All items about one turn with one answer, and what that turn said; empty where its text is not kept."""

    items: tuple[Item, ...]
    told: str = field(repr=False)

    @property
    def answer(self) -> str:
        """What is known so far."""
        return self.items[0].answer

    @property
    def words(self) -> str:
        """How it was told, and all that asks for it."""
        return " ".join([self.told, *(item.question for item in self.items)])


@dataclass(eq=False)
class GeneratedQuestions:
    """What question generation found in one chunk.

    Items, and which turns (by number in the journal) carry a fact and which are covered.
    """

    items: list[Item] = field(default_factory=list)
    carrying: set[int] = field(default_factory=set)
    covered: set[int] = field(default_factory=set)
    nothing: int = 0
    """Turns about which the backbone said that there is nothing to remember."""
    sampled: int = 0
    """Questions sampled."""
    dropped: int = 0
    """Questions with an answer that no store would take."""

    def take(self, turn_seq: int, item: Item | None) -> None:
        """Note an item about a turn, None where no store would take it; one more of the same question is left out."""
        if item is None:
            self.dropped += 1
        elif item.question not in {other.question for other in self.items}:
            self.items.append(item)
            self.covered.add(turn_seq)

    def tell(self, turn_seq: int, *, something: bool) -> None:
        """Note whether a turn tells something."""
        if something:
            self.carrying.add(turn_seq)
        else:
            self.nothing += 1


def fact_of(item: Item) -> tuple[str, int, str]:
    """Return the fact of an item: all questions about one turn with one answer. A negative stands for itself."""
    if item.kind == NEGATIVE:
        return item.item_id, 0, ""
    return "", item.turn_seq, " ".join(normalized_words(item.answer))

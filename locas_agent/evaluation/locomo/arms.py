"""What each arm of a LoCoMo run has before it, and the asking.

Every arm is asked the same questions in the same words, greedily, by one backbone. What differs is which turns stand in
the prompt and whose memory is attached.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from locas_agent.agent import AgentMemory
from locas_agent.evaluation import asking
from locas_agent.evaluation.answer_book import AnswerBook
from locas_agent.evaluation.locomo.answers import OPEN, TRAP_FIRST, TRAP_SECOND, Given
from locas_agent.evaluation.locomo.data import ADVERSARIAL, AskedQuestion, Dialogue
from locas_agent.evaluation.locomo.scoring import NOT_MENTIONED, offer
from locas_agent.memory import LocasMemory
from locas_agent.types import Progress
from locas_agent.user import UserMemory
from locas_storage import Turn

ARMS = {
    "none": "nothing in the prompt, no memory",
    "constant": "the same words to every question of a category",
    "window": "the newest turns",
    "memory": "nothing in the prompt: answered from the weights",
    "window_memory": "the newest turns and the memory",
    "context": "only the sessions that hold the evidence (the ceiling)",
    "full_context": "every session, oldest dropped if they do not fit",
    "search": "turns found by BM25",
    "search_memory": "turns found by BM25 and the memory",
    "wrong_user": "the memory of another conversation",
}
"""What each arm has."""

CONSTANTS = {
    1: "two",
    2: "the week before 2023",
    3: "Likely yes",
    4: "his family and friends",
    ADVERSARIAL: NOT_MENTIONED,
}
"""Answers that score without a look at the question; the one of category 5 scores everything, since it has no
answerable question."""

_OWN = ("memory", "window_memory", "search_memory")
ROWS = 32
"""Answers written down at once: what a killed run asks again at most."""

SHORT = "Answer in a few words."
HINT = "Take the date of the conversation into account."


@dataclass(frozen=True, slots=True)
class Wording:
    """How questions are worded for this backbone, and how long an answer may be."""

    short: bool
    """Ask for a few words, and in category 2 point at the date, as the published prompts do; else the question stands
    alone."""
    answer_tokens: int
    searched_turns: int

    def of(self, asked: AskedQuestion, form: str) -> str:
        """Return the text of the question in one of its forms."""
        text = asked.text
        if self.short:
            text = " ".join([text, *([HINT] if asked.category == 2 else []), SHORT])
        return text if form == OPEN else offer(text, str(asked.trap), trap_first=form == TRAP_FIRST)


def forms(asked: AskedQuestion) -> tuple[str, ...]:
    """Return the forms a question is asked in: category 5 also with two answers to choose from, in both orders."""
    return (OPEN, TRAP_FIRST, TRAP_SECOND) if asked.category == ADVERSARIAL else (OPEN,)


@dataclass(frozen=True, slots=True)
class _Row:
    """One question in one form, with the turns before it; rows with the same group have the same turns."""

    asked: AskedQuestion
    form: str
    text: str
    turns: Sequence[Turn]
    group: int


class Arms:
    """Puts the questions of conversations to arms, and writes the answers into a book."""

    def __init__(self, agent: AgentMemory, wording: Wording, book: AnswerBook[Given]) -> None:
        self._agent = agent
        self._wording = wording
        self._book = book

    def ask(
        self,
        names: Sequence[str],
        dialogues: Sequence[Dialogue],
        handles: Sequence[UserMemory],
        *,
        progress: Progress | None = None,
    ) -> None:
        """Ask what is not answered yet.

        Args:
            names: of arms, see `ARMS`; `wrong_user` takes the next conversation's memory.
            dialogues: whose questions are asked.
            handles: of the conversations, their sessions learnt.
            progress: told of the answers.
        """
        total = len(names) * sum(len(forms(asked)) for dialogue in dialogues for asked in dialogue.questions)
        done = 0
        memories = [self._agent.current(handle.key)[1] for handle in handles]
        for at, (dialogue, handle) in enumerate(zip(dialogues, handles, strict=True)):
            journal = handle.turns()
            for name in names:
                memory = (
                    memories[at]
                    if name in _OWN
                    else memories[(at + 1) % len(memories)]
                    if name == "wrong_user"
                    else None
                )
                for given in self._answers(name, dialogue, journal, memory):
                    self._book.add(given)
                done += sum(len(forms(asked)) for asked in dialogue.questions)
                if progress is not None:
                    progress("answers", done, total)

    def _answers(
        self, name: str, dialogue: Dialogue, journal: Sequence[Turn], memory: LocasMemory | None
    ) -> Iterator[list[Given]]:
        """Yield the answers of one arm to one conversation, a few at a time."""
        places = [(asked, form) for asked in dialogue.questions for form in forms(asked)]
        missing = {
            at for at, (asked, form) in enumerate(places) if (dialogue.name, asked.number, name, form) not in self._book
        }
        if name == "constant":
            constant = [places[at] for at in sorted(missing)]
            yield [
                Given(dialogue.name, asked.number, name, form, CONSTANTS[asked.category], 0) for asked, form in constant
            ]
        if name == "constant" or not missing:
            return
        # Prompts are laid out for all questions, answered ones too: what fits before a question depends on those beside
        # it.
        rows = sorted(
            (row for at, row in enumerate(self._rows(name, places, journal)) if at in missing),
            key=lambda row: row.group,
        )
        for start in range(0, len(rows), ROWS):
            chosen = rows[start : start + ROWS]
            found = asking.answers(
                self._agent,
                [asking.prompt(row.turns, row.text) for row in chosen],
                [memory] * len(chosen),
                answer_tokens=self._wording.answer_tokens,
                groups=[row.group for row in chosen],
            )
            yield [
                Given(dialogue.name, row.asked.number, name, row.form, one.text, one.prompt_tokens)
                for row, one in zip(chosen, found, strict=True)
            ]

    def _rows(self, name: str, places: Sequence[tuple[AskedQuestion, str]], journal: Sequence[Turn]) -> list[_Row]:
        """Put turns before each question, as many of the newest as fit."""
        texts = [self._wording.of(asked, form) for asked, form in places]
        before: list[Sequence[Turn]]
        match name:
            case "none" | "memory" | "wrong_user":
                before = [[] for _ in places]
            case "window" | "window_memory":
                before = [asking.window(self._agent, journal) for _ in places]
            case "full_context":
                before = [journal for _ in places]
            case "context":
                before = [_evidence(asked, journal) for asked, _ in places]
            case _:
                found = asking.searched(
                    journal, [asked.text for asked, _ in places], limit=self._wording.searched_turns
                )
                before = list(found)
        numbers: dict[tuple[int, ...], int] = {}
        groups = [numbers.setdefault(tuple(turn.seq for turn in turns), len(numbers)) for turns in before]
        fitted = self._fitted(before, groups, texts)
        return [
            _Row(asked, form, text, fitted[group], group)
            for (asked, form), text, group in zip(places, texts, groups, strict=True)
        ]

    def _fitted(
        self, before: Sequence[Sequence[Turn]], groups: Sequence[int], texts: Sequence[str]
    ) -> dict[int, list[Turn]]:
        """Cut each group's turns once, for the longest of its questions: the group has its beginning in common."""
        tokens = [len(self._agent.backbone.encode_chat(asking.prompt([], text))) for text in texts]
        longest: dict[int, int] = {}
        for at, group in enumerate(groups):
            if group not in longest or tokens[at] > tokens[longest[group]]:
                longest[group] = at
        return {
            group: asking.fitting(self._agent, before[at], texts[at], answer_tokens=self._wording.answer_tokens)
            for group, at in longest.items()
        }


def _evidence(asked: AskedQuestion, journal: Sequence[Turn]) -> list[Turn]:
    """Return the sessions in which the evidence was said; nothing for the few questions that name none."""
    sessions = {turn.session for turn in journal if turn.idempotency_key in asked.evidence}
    return [turn for turn in journal if turn.session in sessions]

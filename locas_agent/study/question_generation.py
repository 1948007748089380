"""The sweep over a piece: ask about every turn until each that carries a fact has kept questions.

A question is kept when the backbone with the piece in context answers it as it was written, does not abstain, and could
not answer it without.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from locas_agent.config import StudySettings
from locas_agent.conversation.messages import question
from locas_agent.study import prompts
from locas_agent.study.chunking import QUOTE_CHARACTERS, Piece, Quote
from locas_agent.study.items import QUESTION, Item, Swept
from locas_agent.study.matching import agree, stands_in, words
from locas_agent.study.teacher import Candidate, Request, Taught, Teacher


@dataclass(eq=False)
class _Asking:
    """One turn being asked about."""

    owner: int
    piece: Piece
    at: int
    asked: set[str] = field(default_factory=set)
    kept: list[Item] = field(default_factory=list)

    @property
    def quote(self) -> Quote:
        return self.piece.quotes[self.at]

    def keep(self, item: Item) -> None:
        if item.question not in {other.question for other in self.kept}:
            self.kept.append(item)


class Sweep:
    """Asks about the pieces of many users side by side."""

    def __init__(self, teacher: Teacher, settings: StudySettings) -> None:
        self._teacher = teacher
        self._settings = settings

    def over(self, pieces: Mapping[int, Piece], done: Callable[[int], None]) -> dict[int, Swept]:
        """Return what was found in each owner's piece.

        Args:
            pieces: one for each owner, who is a number of the caller's.
            done: told of each finished round, from 1 on; what it raises ends the sweep.
        """
        wanted = self._settings.wordings_per_turn
        found = {owner: Swept() for owner in pieces}
        turns = {
            (owner, at): _Asking(owner, piece, at)
            for owner, piece in pieces.items()
            for at, quote in enumerate(piece.quotes)
            if quote.is_learnt
        }
        waiting = list(turns.values())
        for round_number in range(self._settings.max_rounds):
            if not waiting:
                break
            candidates = self._ask(waiting, round_number, found)
            for (asking, _), item in zip(candidates, self._supported(candidates, found), strict=True):
                at = told_in(asking.piece.quotes, asking.at, item) if item is not None else None
                if item is not None and at is not None:
                    turns[asking.owner, at].keep(replace(item, turn_seq=asking.piece.quotes[at].turn_seq))
            carrying = [asking for asking in waiting if asking.quote.turn_seq in found[asking.owner].carrying]
            waiting = [asking for asking in (carrying if round_number == 0 else waiting) if len(asking.kept) < wanted]
            done(round_number + 1)
        for asking in turns.values():
            known = {item.question for item in found[asking.owner].items}
            found[asking.owner].items += [item for item in asking.kept[: 2 * wanted] if item.question not in known]
            found[asking.owner].covered.update(item.turn_seq for item in asking.kept)
        return found

    def are_sure(self, answers: Sequence[tuple[Candidate, Taught]]) -> list[bool]:
        """See `StudyStrategy.are_sure`: by their confidence."""
        return [answer.confidence >= self._settings.min_confidence for _, answer in answers]

    def retold(self, answer: Taught, source: Item) -> Taught:
        """See `StudyStrategy.retold`: what the teacher said."""
        return answer

    def asked_again(self, owner: int, piece: Piece, items: Sequence[Item]) -> list[Candidate]:
        """See `StudyStrategy.asked_again`: every wording, and the whole piece is read."""
        return [Candidate(owner, piece, item.turn_seq, item.question, item.answer) for item in items]

    def negatives(
        self, pieces: Mapping[int, Sequence[Piece]], known: Mapping[int, set[str]]
    ) -> list[tuple[Candidate, Taught]]:
        """See `StudyStrategy.negatives`: sampled, and kept where no piece makes the backbone answer."""
        count = self._settings.negatives_per_piece
        requests = [
            Request(own[-1], prompts.ask_untold(), f"untold {sample}")
            for own in pieces.values()
            for sample in range(count)
        ]
        # the answer is always the same, so questions may be as diverse as the backbone writes them
        texts = self._teacher.sample(requests, temperature=max(1.0, self._settings.temperature))
        candidates = []
        for number, (owner, own) in enumerate(pieces.items()):
            asked = set(known[owner])
            for text in texts[number * count : (number + 1) * count]:
                written = prompts.written(text)
                if written is not None and written.question not in asked:
                    asked.add(written.question)
                    candidates.append(Candidate(owner, own[-1], own[-1].to_seq, written.question, written.answer))
        answers = self._teacher.teach(candidates)
        still_open = [
            (c, a) for c, a in zip(candidates, answers, strict=True) if a is not None and prompts.abstains(a.text)
        ]
        for other in range(max((len(own) - 1 for own in pieces.values()), default=0)):
            again = self._teacher.answer(
                [[*pieces[c.owner][other].messages, *question(c.question)] for c, _ in still_open]
            )
            still_open = [
                pair for pair, a in zip(still_open, again, strict=True) if a is None or prompts.abstains(a.text)
            ]
        return still_open

    def _ask(
        self, waiting: Sequence[_Asking], round_number: int, found: Mapping[int, Swept]
    ) -> list[tuple[_Asking, Candidate]]:
        """Sample questions about every waiting turn.

        Return those not asked before that have an answer, and note which turns carry a fact.
        """
        settings = self._settings
        samples = settings.samples_per_turn if round_number else settings.first_samples
        requests = [
            Request(
                asking.piece,
                prompts.ask_about(asking.quote.text[:QUOTE_CHARACTERS], speaker=asking.quote.speaker),
                f"{asking.at} {round_number} {sample}",
            )
            for asking in waiting
            for sample in range(samples)
        ]
        texts = self._teacher.sample(requests, temperature=settings.temperature)
        candidates = []
        for number, asking in enumerate(waiting):
            own, swept = texts[number * samples : (number + 1) * samples], found[asking.owner]
            questions = [written for text in own if (written := prompts.written(text))]
            swept.sampled += samples
            if questions:
                swept.carrying.add(asking.quote.turn_seq)
            elif round_number == 0:
                swept.nothing += any(prompts.says_nothing(text) for text in own)
            for written in questions:
                if written.question not in asking.asked and not prompts.abstains(written.answer):
                    asking.asked.add(written.question)
                    candidates.append(
                        (
                            asking,
                            Candidate(
                                asking.owner, asking.piece, asking.quote.turn_seq, written.question, written.answer
                            ),
                        )
                    )
        return candidates

    def _supported(self, asked: Sequence[tuple[_Asking, Candidate]], found: Mapping[int, Swept]) -> list[Item | None]:
        """Put each question to the teacher, with its piece and without.

        Keep what only the piece answers, and as it was written.
        """
        candidates = [candidate for _, candidate in asked]
        with_piece = self._teacher.teach(candidates)
        without = self._teacher.answer([question(candidate.question) for candidate in candidates])
        good = {}
        for at, (candidate, answer, bare) in enumerate(zip(candidates, with_piece, without, strict=True)):
            if answer is None or prompts.abstains(answer.text):
                continue
            # A rare name is written with little confidence although it stands in the turn: how little, rounding
            # decides.
            told = asked[at][0].quote.text
            if answer.confidence < self._settings.min_confidence and not stands_in(
                answer.text, candidate.question, told
            ):
                continue
            if agree(answer.text, candidate.written) and not (bare is not None and agree(bare.text, answer.text)):
                good[at] = (candidate, answer, QUESTION)
        items = dict(zip(good, self._teacher.items(list(good.values())), strict=True))
        for at, item in items.items():
            found[candidates[at].owner].dropped += item is None
        return [items.get(at) for at in range(len(candidates))]


def told_in(quotes: Sequence[Quote], asked: int, item: Item) -> int | None:
    """Return which turn tells the answer: the one asked about, unless its text has no word of it and another's has.

    Asked about one turn, a small backbone now and then writes about its neighbour. Counted for the wrong turn, such an
    item would leave the neighbour's own questions out as known, and hide that the turn asked about still has none. None
    where a turn that is not to be learnt from says more of the answer than every turn that is: it is that turn's claim,
    no matter which turn was asked about.
    """
    wanted = set(words(item.answer)) - set(words(item.question))
    shared = [len(wanted & set(words(quote.text))) for quote in quotes]
    own = [share if quote.is_learnt else 0 for share, quote in zip(shared, quotes, strict=True)]
    best = own[asked] or max(own)
    if max(shared) > best:
        return None
    return asked if own[asked] or not best else own.index(best)

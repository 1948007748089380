"""Study sets: what the backbone asks itself about a piece of overflow, and how it answers with the piece in its context.

Knows no user, no store and no training; it holds no memory of its own, and takes one only to ask what it answers already.

For each piece: *sweep* its turns, sampling questions about each until every turn that carries a fact has kept items or the rounds are used up;
keep a question when the backbone with the piece in context answers it as it was written, does not abstain, and could not answer without the piece.
Then *negatives*: questions of the same kinds the piece leaves open. Then *refresh*: earlier items asked again with the new piece in context; those
answered differently are replaced, negatives that are now answered are retired. The teacher's distribution over each answer is computed once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from random import Random

from locas_agent import seeds
from locas_agent.answers import agree, words
from locas_agent.config import StudySettings
from locas_agent.engine import Engine, Generation, TopK
from locas_agent.memory import LocasMemory, MemoryBatch
from locas_agent.pieces import Piece, Quote
from locas_agent.prompting import Message, question
from locas_storage import new_item_id

SURE = 0.5
"""Least probability of the least likely token with which a memory counts as sure of its answer."""
QUESTION, NEGATIVE, PROBE = "question", "negative", "probe"


@dataclass(frozen=True, eq=False)
class Item:
    """One question with the teacher's answer and its distribution over each answer token.

    Attributes:
        item_id: stable identity, hexadecimal.
        kind: `question`, `negative` (answered by abstaining) or `probe` (held out: measured, never trained on).
        from_seq, to_seq: turns of the piece the teacher had in its context.
        turn_seq: the turn that was asked about; for a negative the last turn of its piece.
        answer_ids: answer tokens with the end-of-turn token.
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
    """How well a study set covers its pieces."""

    turns: int
    """Turns of the pieces that may be asked about."""
    carrying: int
    """Turns the backbone found something to ask about."""
    covered: int
    """Of these, turns with at least one kept item."""
    nothing: int
    """Turns about which the backbone said that there is nothing to remember."""
    sampled: int
    """Questions sampled."""

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
    """One user's pieces, oldest first, the items of earlier consolidations, and the memory that learnt them."""

    pieces: tuple[Piece, ...]
    earlier: tuple[Item, ...] = ()
    memory: LocasMemory | None = None


@dataclass(eq=False)
class _Desk:
    """Work in progress on one request."""

    request: StudyRequest
    earlier: list[Item]
    new: list[Item] = field(default_factory=list)
    retired: set[str] = field(default_factory=set)
    turns: int = 0
    nothing: int = 0
    sampled: int = 0
    carrying: set[int] = field(default_factory=set)
    covered: set[int] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A question to be put to the teacher about a piece."""

    desk: int
    piece: Piece
    turn_seq: int
    question: str
    written: str


class Study:
    """Writes the study sets of many users side by side."""

    def __init__(self, engine: Engine, settings: StudySettings, *, seed: int) -> None:
        self._engine = engine
        self._settings = settings
        self._seed = seed

    def write(self, requests: Sequence[StudyRequest]) -> list[StudySet]:
        """Return one study set per request; the pieces of a user are studied oldest first."""
        desks = [_Desk(request, list(request.earlier)) for request in requests]
        for turn in range(max((len(request.pieces) for request in requests), default=0)):
            active = [index for index, request in enumerate(requests) if turn < len(request.pieces)]
            self._sweep(desks, active, turn)
            self._refresh(desks, active, turn)
            self._negatives(desks, active, turn)
        return [self._finish(desk) for desk in desks]

    def empty(self) -> StudySet:
        """Return a study set without items, for objectives that learn from the text itself."""
        return StudySet((), frozenset(), Coverage(0, 0, 0, 0, 0))

    def _sweep(self, desks: list[_Desk], active: list[int], turn: int) -> None:
        """Ask about every turn of the pieces until each that carries a fact is covered."""
        wanted = self._settings.wordings_per_turn
        open_quotes = {(index, at): quote for index in active for at, quote in enumerate(desks[index].request.pieces[turn].quotes)}
        asked: dict[tuple[int, int], set[str]] = {key: set() for key in open_quotes}
        kept: dict[tuple[int, int], list[Item]] = {key: [] for key in open_quotes}
        for index in active:
            desks[index].turns += len(desks[index].request.pieces[turn].quotes)
        for round_number in range(self._settings.max_rounds):
            samples = self._settings.samples_per_turn if round_number else self._settings.first_samples
            keys = list(open_quotes)
            prompts = [self._about(desks[index].request.pieces[turn], open_quotes[index, at]) for index, at in keys]
            # a seed says piece, round, turn and sample of one user: what is written does not depend on who else studies
            places = [((turn * 16 + round_number) * 4096 + at) * 64 + sample for _, at in keys for sample in range(samples)]
            texts = self._sample([prompt for prompt in prompts for _ in range(samples)], temperature=self._settings.temperature, places=places)
            candidates: list[tuple[tuple[int, int], _Candidate]] = []
            for number, key in enumerate(keys):
                found = [written for text in texts[number * samples : (number + 1) * samples] if (written := seeds.written(text))]
                desk, quote = desks[key[0]], open_quotes[key]
                desk.sampled += samples
                if round_number == 0 and not found:
                    desk.nothing += any(seeds.says_nothing(text) for text in texts[number * samples : (number + 1) * samples])
                    del open_quotes[key]
                    continue
                if found:
                    desk.carrying.add(quote.turn_seq)
                for written in found:
                    if written.question not in asked[key] and not seeds.abstains(written.answer):
                        asked[key].add(written.question)
                        candidates.append((key, _Candidate(key[0], desk.request.pieces[turn], quote.turn_seq, written.question, written.answer)))
            items = self._supported([candidate for _, candidate in candidates])
            for ((index, at), candidate), item in zip(candidates, items, strict=True):
                if item is not None:
                    at = told_in(candidate.piece.quotes, at, item)
                    item = replace(item, turn_seq=candidate.piece.quotes[at].turn_seq)
                    if item.question not in {other.question for other in kept[index, at]}:
                        kept[index, at].append(item)
                    desks[index].covered.add(item.turn_seq)
            open_quotes = {key: quote for key, quote in open_quotes.items() if len(kept[key]) < wanted}
            if not open_quotes:
                break
        for (index, _), items_of_turn in kept.items():
            known = {item.question for item in desks[index].new}
            desks[index].new += [item for item in items_of_turn[: 2 * wanted] if item.question not in known]

    def _supported(self, candidates: list[_Candidate]) -> list[Item | None]:
        """Put each question to the teacher, with its piece and without; keep what only the piece answers, and as it was written."""
        with_piece = self._answer([[*candidate.piece.messages, *question(candidate.question)] for candidate in candidates])
        without = self._answer([question(candidate.question) for candidate in candidates])
        good = [
            at
            for at, candidate in enumerate(candidates)
            if with_piece[at] is not None
            and with_piece[at].confidence >= self._settings.min_confidence  # type: ignore[union-attr]
            and not seeds.abstains(with_piece[at].text)  # type: ignore[union-attr]
            and agree(with_piece[at].text, candidate.written)  # type: ignore[union-attr]
            and not (without[at] is not None and agree(without[at].text, with_piece[at].text))  # type: ignore[union-attr]
        ]
        items = self._items([(candidates[at], with_piece[at], QUESTION) for at in good])  # type: ignore[misc]
        result: list[Item | None] = [None] * len(candidates)
        for at, item in zip(good, items, strict=True):
            result[at] = item
        return result

    def _refresh(self, desks: list[_Desk], active: list[int], turn: int) -> None:
        """Ask earlier items again with the new piece in context; replace what is answered differently, retire negatives now answered."""
        pairs = [
            (index, item)
            for index in active
            for item in [*desks[index].earlier, *desks[index].new]
            if item.to_seq < desks[index].request.pieces[turn].from_seq and item.item_id not in desks[index].retired
        ]
        answers = self._answer([[*desks[index].request.pieces[turn].messages, *question(item.question)] for index, item in pairs])
        replaced = []
        for (index, item), answer in zip(pairs, answers, strict=True):
            desk, piece = desks[index], desks[index].request.pieces[turn]
            if answer is None or answer.confidence < self._settings.min_confidence:
                continue
            if seeds.abstains(answer.text) or agree(answer.text, item.answer):
                continue
            sources = [new for new in desk.new if new.from_seq >= piece.from_seq and new.kind == QUESTION and agree(new.answer, answer.text)]
            if not sources:
                continue
            desk.retired.add(item.item_id)
            if item.kind != NEGATIVE:
                replaced.append((index, item, (_Candidate(index, piece, sources[0].turn_seq, item.question, answer.text), answer, item.kind)))
        for (index, _, _), item in zip(replaced, self._items([entry for _, _, entry in replaced]), strict=True):
            if item.question not in {new.question for new in desks[index].new if new.item_id not in desks[index].retired}:
                desks[index].new.append(item)

    def _negatives(self, desks: list[_Desk], active: list[int], turn: int) -> None:
        """Sample questions the piece leaves open; keep those that no piece at hand and no memory answers."""
        count = self._settings.negatives_per_piece
        prompts = [[*desks[index].request.pieces[turn].messages, *question(seeds.ask_untold())] for index in active for _ in range(count)]
        # the answer is always the same, so questions may be as diverse as the backbone writes them
        texts = self._sample(
            prompts, temperature=max(1.0, self._settings.temperature), places=[-1 - turn * 4096 - sample for _ in active for sample in range(count)]
        )
        candidates = []
        for number, index in enumerate(active):
            desk = desks[index]
            known = {item.question for item in [*desk.earlier, *desk.new] if item.item_id not in desk.retired}
            for text in texts[number * count : (number + 1) * count]:
                written = seeds.written(text)
                if written is not None and written.question not in known:
                    known.add(written.question)
                    candidates.append(
                        _Candidate(index, desk.request.pieces[turn], desk.request.pieces[turn].to_seq, written.question, written.answer)
                    )
        answers = self._answer([[*candidate.piece.messages, *question(candidate.question)] for candidate in candidates])
        open_questions = [(c, a) for c, a in zip(candidates, answers, strict=True) if a is not None and seeds.abstains(a.text)]
        for other in range(turn):
            again = self._answer(
                [[*desks[c.desk].request.pieces[other].messages, *question(c.question)] for c, _ in open_questions]
            )  # fmt: skip
            open_questions = [pair for pair, a in zip(open_questions, again, strict=True) if a is None or seeds.abstains(a.text)]
        open_questions = self._unknown_to_memory(desks, open_questions)
        for (candidate, _), item in zip(open_questions, self._items([(c, a, NEGATIVE) for c, a in open_questions]), strict=True):
            desks[candidate.desk].new.append(item)

    def _unknown_to_memory(self, desks: list[_Desk], pairs: list[tuple[_Candidate, _Answer]]) -> list[tuple[_Candidate, _Answer]]:
        """Leave out negatives that an earlier session told: the user's memory is sure of an answer, and an earlier item has it.

        What the memory merely invents stays: those are the negatives it needs most.
        """
        asked = [pair for pair in pairs if desks[pair[0].desk].request.memory is not None]
        memory = None
        if asked:
            memory = MemoryBatch.of([desks[candidate.desk].request.memory for candidate, _ in asked], self._engine.backbone)
        answers = self._answer([question(candidate.question) for candidate, _ in asked], memory=memory)
        answered = {
            id(candidate)
            for (candidate, _), a in zip(asked, answers, strict=True)
            if a is not None
            and a.confidence >= SURE
            and any(agree(a.text, item.answer) for item in desks[candidate.desk].earlier if item.kind != NEGATIVE)
        }
        return [pair for pair in pairs if id(pair[0]) not in answered]

    def _finish(self, desk: _Desk) -> StudySet:
        """Hold out one wording of some turns as probes, and add up the figures."""
        new = [item for item in desk.new if item.item_id not in desk.retired]
        rng = Random(f"{self._seed}:probes:{[item.question for item in new]}")
        probes = set()
        for turn_seq in sorted({item.turn_seq for item in new if item.kind == QUESTION}):
            wordings = [item for item in new if item.turn_seq == turn_seq and item.kind == QUESTION]
            if len(wordings) >= 3 and rng.random() < self._settings.probe_share:
                probes.add(rng.choice(wordings).item_id)
        items = tuple(replace(item, kind=PROBE) if item.item_id in probes else item for item in new)
        retired = frozenset(desk.retired & {item.item_id for item in desk.request.earlier})
        return StudySet(items, retired, Coverage(desk.turns, len(desk.carrying), len(desk.covered & desk.carrying), desk.nothing, desk.sampled))

    def _about(self, piece: Piece, quote: Quote) -> list[Message]:
        return [*piece.messages, *question(seeds.ask_about(quote.text, speaker=quote.speaker))]

    def _sample(self, prompts: list[list[Message]], *, temperature: float, places: list[int]) -> list[str]:
        """Sample one text per prompt, each from the random stream of its place."""
        settings = self._settings
        streams = [self._seed * 1_000_003 + place for place in places]
        generations = self._generate(prompts, settings.max_question_tokens, temperature=temperature, streams=streams)
        return [self._engine.backbone.decode(generation.ids) if generation else "" for generation in generations]

    def _answer(self, prompts: list[list[Message]], *, memory: MemoryBatch | None = None) -> list[_Answer | None]:
        """Answer greedily; None where an answer did not end in time."""
        generations = self._generate(prompts, self._settings.max_answer_tokens, memory=memory)
        decode = self._engine.backbone.decode
        return [_Answer(g.ids, decode(g.ids).strip(), math.exp(min(g.logprobs))) if g and g.stopped and g.ids else None for g in generations]

    def _generate(
        self,
        prompts: list[list[Message]],
        length: int,
        *,
        memory: MemoryBatch | None = None,
        temperature: float = 0.0,
        streams: Sequence[int] | None = None,
    ) -> list[Generation | None]:
        """Run the prompts that fit into the context; None for the others."""
        backbone = self._engine.backbone
        encoded = [backbone.encode_chat(prompt) for prompt in prompts]
        fitting = [at for at, tokens in enumerate(encoded) if len(tokens) + length <= backbone.context_tokens]
        groups = _by_beginning(prompts)
        found = self._engine.generate(
            [encoded[at] for at in fitting],
            groups=[groups[at] for at in fitting] if memory is None else None,
            memory=memory.select(fitting) if memory is not None and fitting else None,
            max_new_tokens=length, temperature=temperature, seed=0 if streams is None else [streams[at] for at in fitting],
        )  # fmt: skip
        result: list[Generation | None] = [None] * len(prompts)
        for at, generation in zip(fitting, found, strict=True):
            result[at] = generation
        return result

    def _items(self, answered: list[tuple[_Candidate, _Answer, str]]) -> list[Item]:
        """Compute the teacher's distributions, each with the item's own piece in context."""
        backbone = self._engine.backbone
        prompts = [backbone.encode_chat([*c.piece.messages, *question(c.question)]) for c, _, _ in answered]
        endings = [(*answer.ids, backbone.end_id) for _, answer, _ in answered]
        teachers = self._engine.distributions(prompts, endings, top_k=self._settings.teacher_top_k)
        return [
            Item(new_item_id(), kind, c.piece.from_seq, c.piece.to_seq, c.turn_seq, c.question, answer.text, ending, teacher)
            for (c, answer, kind), ending, teacher in zip(answered, endings, teachers, strict=True)
        ]


def told_in(quotes: Sequence[Quote], asked: int, item: Item) -> int:
    """Return which turn tells the answer: the one asked about, unless its text has no word of it and another's has.

    Asked about one turn, a small backbone now and then writes about its neighbour. Counted for the wrong turn, such an item would leave the
    neighbour's own questions out as known, and hide that the turn asked about still has none.
    """
    wanted = set(words(item.answer)) - set(words(item.question))
    shared = [len(wanted & set(words(quote.text))) for quote in quotes]
    return asked if shared[asked] or not any(shared) else shared.index(max(shared))


def _by_beginning(prompts: list[list[Message]]) -> list[int]:
    """Number the prompts by what stands before their last message: the piece, which is then run once."""
    seen: dict[tuple[tuple[str, str], ...], int] = {}
    return [seen.setdefault(tuple((message["role"], message["content"]) for message in prompt[:-1]), len(seen)) for prompt in prompts]


@dataclass(frozen=True, slots=True)
class _Answer:
    """An answer and the probability of its least likely token."""

    ids: tuple[int, ...]
    text: str
    confidence: float

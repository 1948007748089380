"""The backbone as a teacher: it writes questions about a piece and answers them with the piece before it. Knows no user, no store and no training.

It holds no memory of its own, and takes one only to say what that memory answers already.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

from locas_agent.config import StudySettings
from locas_agent.decoding import Generation
from locas_agent.engine import Engine
from locas_agent.memory import LocasMemory, MemoryBatch
from locas_agent.pieces import Piece
from locas_agent.prompting import Message, question
from locas_agent.study_items import Item
from locas_storage import new_item_id


@dataclass(frozen=True, slots=True)
class Request:
    """One text to be sampled: what the backbone is asked after a piece, and a name of its place, unique within the piece, that seeds it."""

    piece: Piece
    prompt: str
    place: str


@dataclass(frozen=True, slots=True)
class Candidate:
    """A question that may become an item: whose it is (a number of the caller's), its piece, the turn asked about, and the answer written with it."""

    owner: int
    piece: Piece
    turn_seq: int
    question: str
    written: str

    @property
    def prompt(self) -> list[Message]:
        """The question behind its piece."""
        return [*self.piece.messages, *question(self.question)]


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer and the probability of its least likely token."""

    ids: tuple[int, ...]
    text: str
    confidence: float


class Teacher:
    """Samples, answers and marks for many users side by side."""

    def __init__(self, engine: Engine, settings: StudySettings, *, seed: int) -> None:
        self._engine = engine
        self._settings = settings
        self._seed = seed

    def sample(self, requests: Sequence[Request], *, temperature: float) -> list[str]:
        """Sample one text per request, each from a random stream of its own; an empty one where the piece leaves no room."""
        prompts = [[*request.piece.messages, *question(request.prompt)] for request in requests]
        streams = [self._stream(request) for request in requests]
        generations = self._generate(prompts, self._settings.max_question_tokens, temperature=temperature, streams=streams)
        return [self._engine.backbone.decode(generation.ids) if generation else "" for generation in generations]

    def answer(self, prompts: Sequence[list[Message]], *, memories: Sequence[LocasMemory | None] | None = None) -> list[Answer | None]:
        """Answer greedily, each prompt with its memory if any are given; None where an answer did not end in time."""
        generations = self._generate(prompts, self._settings.max_answer_tokens, memories=memories)
        decode = self._engine.backbone.decode
        return [Answer(g.ids, decode(g.ids).strip(), math.exp(min(g.logprobs))) if g and g.stopped and g.ids else None for g in generations]

    def items(self, answered: Sequence[tuple[Candidate, Answer, str]]) -> list[Item]:
        """Make items of answered candidates and their kinds: compute the distribution over each answer, its own piece in context."""
        backbone = self._engine.backbone
        prompts = [backbone.encode_chat(candidate.prompt) for candidate, _, _ in answered]
        endings = [(*answer.ids, backbone.end_id) for _, answer, _ in answered]
        teachers = self._engine.distributions(prompts, endings, top_k=self._settings.teacher_top_k)
        return [
            Item(new_item_id(), kind, c.piece.from_seq, c.piece.to_seq, c.turn_seq, c.question, answer.text, ending, teacher)
            for (c, answer, kind), ending, teacher in zip(answered, endings, teachers, strict=True)
        ]

    def _stream(self, request: Request) -> int:
        """Seed a text by what its piece says and by its place: it depends neither on who else studies nor on turns forgotten since.

        Seeded by the place alone, every piece would be asked nearly the same: 128 samples over four sessions left 30 to 41 different negatives.
        """
        said = hashlib.sha256(f"{self._seed} {request.place} {request.piece.messages}".encode()).digest()
        return int.from_bytes(said[:6])

    def _generate(
        self,
        prompts: Sequence[list[Message]],
        length: int,
        *,
        memories: Sequence[LocasMemory | None] | None = None,
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
            groups=[groups[at] for at in fitting] if memories is None else None,
            memory=MemoryBatch.of([memories[at] for at in fitting], backbone) if memories is not None and fitting else None,
            max_new_tokens=length, temperature=temperature, seed=0 if streams is None else [streams[at] for at in fitting],
        )  # fmt: skip
        result: list[Generation | None] = [None] * len(prompts)
        for at, generation in zip(fitting, found, strict=True):
            result[at] = generation
        return result


def _by_beginning(prompts: Sequence[list[Message]]) -> list[int]:
    """Number the prompts by what stands before their last message: the piece, which is then run once."""
    seen: dict[tuple[tuple[str, str], ...], int] = {}
    return [seen.setdefault(tuple((message["role"], message["content"]) for message in prompt[:-1]), len(seen)) for prompt in prompts]

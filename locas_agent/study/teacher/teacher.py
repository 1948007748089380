"""The backbone as a teacher: it writes questions about a chunk and answers them with the chunk before it.

It holds no memory of its own, and takes one only to say what that memory answers already.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Hashable, Sequence

import torch

from locas_agent.backbone.ends import tokens_with
from locas_agent.config import StudySettings
from locas_agent.conversation.messages import Message, question
from locas_agent.inference import Engine
from locas_agent.inference.batching import KeptBeginnings
from locas_agent.inference.generation import Generation, TopK
from locas_agent.memory import LocasMemory
from locas_agent.study.codec import can_be_kept
from locas_agent.study.items import Item
from locas_agent.study.teacher.asked import Answer, Candidate, Opening, Request, ScoredAnswer
from locas_agent.study.teacher.prompt_runner import PromptRunner, key_of
from locas_storage import new_item_id


class Teacher:
    """Samples, answers and marks for many users side by side."""

    def __init__(self, engine: Engine, settings: StudySettings, *, seed: int) -> None:
        self._backbone = engine.backbone
        self._prompts = PromptRunner(engine)
        self._settings = settings
        self._seed = seed

    def sample(self, requests: Sequence[Request], *, temperature: float) -> list[str]:
        """Sample one text per request, each from a random stream of its own.

        An empty one where the chunk leaves no room.
        """
        prompts = [[*request.chunk.messages, *question(request.prompt)] for request in requests]
        streams = [self._stream(request) for request in requests]
        generations = self._generate(
            prompts, self._settings.max_question_tokens, temperature=temperature, streams=streams
        )
        return [self._backbone.decode(generation.ids) if generation else "" for generation in generations]

    def open(
        self,
        openings: Sequence[Opening],
        *,
        length: int,
        until: str,
        temperature: float = 0.0,
        scribe: LocasMemory | None = None,
        begun: KeptBeginnings | None = None,
    ) -> list[str]:
        """Return each opening with what follows it, from a random stream of its own; empty where there is no room.

        Args:
            openings: those of one prompt share its computation.
            length: most tokens after an opening.
            until: a character with which the last token that is wanted is written.
            temperature: 0 is greedy.
            scribe: writes; the bare backbone unless given.
            begun: beginnings that calls with the same writer have run; see `Engine.generate`.
        """
        backbone = self._backbone
        encoded = self._prompts.encoded([list(opening.messages) for opening in openings])
        prompts = [
            [*tokens, *backbone.encode(opening.words)] for tokens, opening in zip(encoded, openings, strict=True)
        ]
        keys = [key_of(opening.messages) for opening in openings]
        streams = [self._seed_of(opening.place, opening.messages) for opening in openings]
        generations = self._prompts.run(
            prompts,
            keys,
            length,
            scribe=scribe,
            temperature=temperature,
            streams=streams,
            ends=tokens_with(backbone.tokenizer, until),
            is_scored=False,
            begun=begun,
        )
        return [
            "" if made is None else opening.words + backbone.decode(made.ids)
            for opening, made in zip(openings, generations, strict=True)
        ]

    def given(self, answers: Sequence[str]) -> list[ScoredAnswer]:
        """Return answers that are to be said as they stand, whatever the backbone would rather say: all weight on them.

        A backbone that reads "22 June" would say "The first dive is on 22 June"; its own distribution puts little
        weight on the first word of the short answer, and a memory that learnt it would not say it.
        """
        backbone = self._backbone
        found = []
        for answer in answers:
            ids = tuple(backbone.encode(answer))
            all_ids = torch.tensor([*ids, backbone.end_id], dtype=torch.int32)[:, None]
            found.append(ScoredAnswer(ids, answer, 1.0, TopK(all_ids, torch.zeros(len(all_ids), 1))))
        return found

    def by_itself(self, questions: Sequence[str], *, length: int) -> list[ScoredAnswer | None]:
        """Return what the bare backbone says to questions when it has read nothing, with its distribution.

        Args:
            questions: each asked alone.
            length: tokens of an answer that are looked at; longer ones are cut there.

        Returns:
            An answer each; None where it is no text.
        """
        prompts = [question(text) for text in questions]
        generations = self._prompts.run(
            self._prompts.encoded(prompts),
            [key_of(prompt) for prompt in prompts],
            length,
            top_k=self._settings.teacher_top_k,
        )
        return [None if made is None else self._beginning(made) for made in generations]

    def answer(
        self, prompts: Sequence[list[Message]], *, memories: Sequence[LocasMemory | None] | None = None
    ) -> list[Answer | None]:
        """Answer greedily, each prompt with its memory if any are given; None where an answer did not end in time."""
        generations = self._generate(prompts, self._settings.max_answer_tokens, memories=memories)
        return [
            self._answer(generation) if generation is not None and self._is_answer(generation) else None
            for generation in generations
        ]

    def begun_answers(self, prompts: Sequence[list[Message]], keys: Sequence[Hashable], *, length: int) -> list[str]:
        """Return how the bare backbone begins to answer, greedily; empty where a prompt leaves no room.

        Args:
            prompts: with what is read.
            keys: of each prompt; those of one key begin alike, which is run once.
            length: tokens of an answer that are looked at.
        """
        made = self._prompts.run(self._prompts.encoded(prompts), keys, length, is_scored=False)
        return ["" if each is None else self._backbone.decode(each.ids) for each in made]

    def believed(
        self,
        answers: Sequence[tuple[Sequence[Message], Sequence[str]]],
        keys: Sequence[Hashable] | None = None,
        *,
        scribe: LocasMemory | None = None,
        begun: KeptBeginnings | None = None,
    ) -> list[list[float]]:
        """Return how probable it is that a prompt is answered with the first token of each of some answers, 0..1.

        Who copies an answer out of a text may begin it as the text does, where a blank stands before it and the word is
        cut into other tokens: " st-on-em-ason", but "ston-em-ason". Both count.

        Args:
            answers: prompts, each with the answers that are looked for; equal prompts are run once.
            keys: of each prompt; those of one key begin alike, which is run once. The messages before the last unless
                given.
            scribe: reads; the bare backbone unless given.
            begun: beginnings that calls with the same reader have run; see `Engine.generate`.
        """
        common = [key_of(prompt[:-1]) for prompt, _ in answers] if keys is None else keys
        said = [key_of(prompt) for prompt, _ in answers]
        once = {each: at for at, each in reversed(list(enumerate(said)))}
        encoded = self._prompts.encoded([list(answers[at][0]) for at in once.values()])
        made = self._prompts.first_tokens(encoded, [common[at] for at in once.values()], scribe, begun)
        heads = dict(zip(once, made, strict=True))
        first = {text: self._first_tokens(text) for _, texts in answers for text in texts}
        return [
            [sum(heads[each].get(token, 0.0) for token in first[text]) for text in texts]
            for each, (_, texts) in zip(said, answers, strict=True)
        ]

    def _first_tokens(self, text: str) -> set[int]:
        """Return with which token an answer may begin: its first one, and the one that it has behind a blank."""
        backbone = self._backbone
        behind_blank = backbone.decode(backbone.encode(f" {text}")[:1]).lstrip()
        begun = backbone.encode(behind_blank) if behind_blank and text.startswith(behind_blank) else []
        return {*backbone.encode(text)[:1], *(begun if len(begun) == 1 else ())}

    def fitting(
        self,
        written: Sequence[tuple[Sequence[Message], tuple[str, str]]],
        *,
        scribe: LocasMemory | None = None,
        begun: KeptBeginnings | None = None,
    ) -> list[float]:
        """Return how well texts go on, in nats a token: the mean log-probability of their tokens.

        Args:
            written: prompts, each with the words with which its answer begins and the text behind them; those of one
                prompt share its computation.
            scribe: writes; the bare backbone unless given.
            begun: beginnings that calls with the same writer have run; see `Engine.generate`.
        """
        if not written:
            return []
        backbone = self._backbone
        encoded = self._prompts.encoded([list(prompt) for prompt, _ in written])
        prompts = [[*tokens, *backbone.encode(words)] for tokens, (_, (words, _)) in zip(encoded, written, strict=True)]
        rest = [backbone.encode(text) for _, (_, text) in written]
        found = self._prompts.score(
            prompts, rest, [key_of(prompt) for prompt, _ in written], scribe=scribe, begun=begun
        )
        return [float(each.mean()) for each in found]

    def answer_with_distribution(self, candidates: Sequence[Candidate]) -> list[ScoredAnswer | None]:
        """Answer each candidate with what it reads in context, and keep the distribution over the answer.

        What `to_items` is made from.
        """
        found: list[ScoredAnswer | None] = [None] * len(candidates)
        by_scribe: dict[int, list[int]] = {}
        for at, candidate in enumerate(candidates):
            by_scribe.setdefault(id(candidate.scribe), []).append(at)
        for places in by_scribe.values():
            chosen = [candidates[at] for at in places]
            generations = self._prompts.run(
                self._prompts.encoded([candidate.prompt for candidate in chosen]),
                [key_of(candidate.read) for candidate in chosen],
                self._settings.max_answer_tokens,
                scribe=chosen[0].scribe,
                top_k=self._settings.teacher_top_k,
            )
            for at, generation in zip(places, generations, strict=True):
                found[at] = self._scored(generation)
        return found

    def _scored(self, generation: Generation | None) -> ScoredAnswer | None:
        return None if generation is None or not generation.stopped else self._beginning(generation)

    def _beginning(self, generation: Generation) -> ScoredAnswer | None:
        if not generation.ids or generation.top_logprobs is None or not self._backbone.is_text(generation.ids):
            return None
        answer = self._answer(generation)
        return ScoredAnswer(
            answer.ids, answer.text, answer.confidence, generation.top_logprobs, is_whole=generation.stopped
        )

    def to_items(self, scored: Sequence[tuple[Candidate, ScoredAnswer, str]]) -> list[Item | None]:
        """Make items of candidates, their answers and their kinds.

        None where no store would take what the backbone wrote.
        """
        end = self._backbone.end_id
        made = [
            Item(
                new_item_id(),
                kind,
                c.chunk.from_seq,
                c.chunk.to_seq,
                c.turn_seq,
                c.question,
                answer.text,
                (*answer.ids, end) if answer.is_whole else answer.ids,
                answer.teacher,
            )
            for c, answer, kind in scored
        ]
        return [item if can_be_kept(item) else None for item in made]

    def _answer(self, generation: Generation) -> Answer:
        return Answer(generation.ids, self._backbone.decode(generation.ids).strip(), math.exp(min(generation.logprobs)))

    def _is_answer(self, generation: Generation) -> bool:
        """Tell whether an answer ended in time and is text: a memory would learn to write the noise in it."""
        return generation.stopped and bool(generation.ids) and self._backbone.is_text(generation.ids)

    def _stream(self, request: Request) -> int:
        """Seed a text by what its chunk says and by its place.

        It depends neither on who else studies nor on turns forgotten since.

        Seeded by the place alone, every chunk would be asked nearly the same: 128 samples over four sessions left 30 to
        41 different negatives.
        """
        return self._seed_of(request.place, request.chunk.messages)

    def _seed_of(self, place: str, messages: tuple[Message, ...]) -> int:
        return int.from_bytes(hashlib.sha256(f"{self._seed} {place} {messages}".encode()).digest()[:6])

    def _generate(
        self,
        prompts: Sequence[list[Message]],
        length: int,
        *,
        memories: Sequence[LocasMemory | None] | None = None,
        temperature: float = 0.0,
        streams: Sequence[int] | None = None,
    ) -> list[Generation | None]:
        """Run the prompts that fit into the context; None for the others.

        What prompts with the same messages before the last begin with is run once.
        """
        return self._prompts.run(
            self._prompts.encoded(prompts),
            [key_of(prompt[:-1]) for prompt in prompts],
            length,
            memories=memories,
            temperature=temperature,
            streams=streams,
        )

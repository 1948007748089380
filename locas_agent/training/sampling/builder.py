"""Everything that a training task may draw, made once: its questions, windows and texts, and what is rehearsed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from random import Random

from locas_agent.config import LocasConfig
from locas_agent.conversation.messages import Message
from locas_agent.errors import ConfigurationError
from locas_agent.inference import Engine
from locas_agent.memory import LocasMemory
from locas_agent.study.chunking import Chunk
from locas_agent.study.forms.reading import CHAT, ReadingForm
from locas_agent.study.items import NEGATIVE, PROBE, Item, fact_of
from locas_agent.training.examples import Example, with_teacher
from locas_agent.training.neutral import NeutralText
from locas_agent.training.sampling.beginnings import beginnings
from locas_agent.training.sampling.groups import GroupBuilder
from locas_agent.training.sampling.noise import QuestionNoise
from locas_agent.training.sampling.question_rows import conversation_example, question_example
from locas_agent.training.sampling.sampler import ExampleSampler, ItemCycles, ShuffledCycle
from locas_agent.training.schedule import Schedule

OWN_WINDOWS, OTHERS_WINDOWS = 12, 6
"""Runs of the user's own turns, and of other people's, that stand before questions in one consolidation."""
ASKED_IN_CONVERSATION = 3
"""Questions asked one after the other behind one window."""
UNANSWERED_IN_CONVERSATION = 0.25
"""Share of the questions behind a window that are never answered."""
REHEARSED = 128
"""Earlier items that one consolidation rehearses, drawn again each time, and questions never answered. Beyond that they
are drawn fact by fact: one of each at least, however many facts there are."""


@dataclass(frozen=True, eq=False)
class TrainingTask:
    """What one user's memory is to learn.

    Attributes:
        new: items of this consolidation, probes among them.
        earlier: items of former consolidations that still hold, to be rehearsed.
        chunks: the raw overflow.
        memory: the former memory; None starts a new one.
        reading: how turns that a search found stand before a question.
    """

    new: tuple[Item, ...]
    earlier: tuple[Item, ...]
    chunks: tuple[Chunk, ...]
    memory: LocasMemory | None
    reading: ReadingForm = CHAT


class ExampleBuilder:
    """Builds the examples of training tasks, and endless samplers over them."""

    def __init__(self, engine: Engine, config: LocasConfig, neutral: NeutralText) -> None:
        self._engine = engine
        self._backbone = engine.backbone
        self._config = config
        self._neutral = neutral

    def sampler(self, task: TrainingTask, schedule: Schedule) -> ExampleSampler:
        """Return the sampler of one task. Its batches follow from the task and the seed alone.

        Args:
            task: what is to be learnt.
            schedule: of its training.

        Raises:
            ConfigurationError: the task holds nothing to learn from.
        """
        settings = self._config.training
        if settings.objective == "self_study":
            fresh = self._questions(_answered(task.new))
            negative = self._questions(_unanswered((*task.new, *task.earlier)))
            if settings.ntp_weight:
                fresh += self._text_examples(task.chunks, "ntp", settings.ntp_weight)
        else:
            fresh, negative = [], []
            if settings.objective in ("ntp", "mix"):
                fresh += self._text_examples(task.chunks, "ntp", 1.0)
            if settings.objective in ("sd", "mix"):
                fresh += self._text_examples(
                    task.chunks, "sd", settings.sd_weight if settings.objective == "mix" else 1.0
                )
        kept = _answered(task.earlier)
        if not fresh and not kept:
            raise ConfigurationError(
                "a training task needs something to learn from, got no study item and no text: study the overflow first"
            )
        rng = Random(f"{settings.seed}:order")
        in_conversation = self._in_conversation(task, schedule, rng) if settings.objective == "self_study" else []
        noise = QuestionNoise(self._backbone, schedule.question_noise)
        noisy = [noise.of(example, rng) for example in fresh for _ in range(schedule.variants)]
        rehearsed, unanswered = (
            [noise.of(example, rng) for example in examples]
            for examples in (self._questions(_by_fact(kept, rng)), _some(negative, rng))
        )
        groups = self._groups(task, schedule, noise, rng) if settings.objective == "self_study" else []
        items = ItemCycles(schedule, noisy, rehearsed, unanswered, rng)
        conversation_cycle, anchors = (ShuffledCycle(each, rng) for each in (in_conversation, self._neutral.anchors))
        return ExampleSampler(settings, schedule, items, ShuffledCycle(groups, rng), conversation_cycle, anchors)

    def _groups(self, task: TrainingTask, schedule: Schedule, noise: QuestionNoise, rng: Random) -> list[list[Example]]:
        """Put the items of some steps behind a beginning each, or behind turns that a search finds for one of them.

        A group is drawn whole, again and again, so that what stands below the memory is computed for each row once.
        """
        fresh, kept = _answered(task.new), _answered(task.earlier)
        if not schedule.groups or not (fresh or kept):
            return []
        kept, negative = _by_fact(kept, rng), _unanswered((*task.new, *task.earlier))
        items = ItemCycles(schedule, fresh, kept, negative, rng)
        wanted = ItemCycles(replace(schedule, negative_share=0.0), fresh, kept, [], rng)  # nobody searches for the rest
        groups = GroupBuilder(self._backbone, noise, items, count=schedule.items_per_step, rng=rng)
        found = [
            groups.behind_found(task.reading, task.chunks, fresh, wanted.take()) for _ in range(schedule.found_facts)
        ]
        found = [group for group in found if group]
        limit, windows = schedule.window_tokens, self._neutral.windows
        count = max(0, schedule.groups - len(found)) if limit else 0
        begun = beginnings(self._backbone, task.chunks, windows, most_tokens=limit, count=count, rng=rng)
        return [*found, *(groups.behind(beginning) for beginning in begun)]

    def _questions(self, items: Iterable[Item]) -> list[Example]:
        return [question_example(self._backbone, item) for item in items]

    def _in_conversation(self, task: TrainingTask, schedule: Schedule, rng: Random) -> list[Example]:
        """Put some questions, one after the other, behind each window.

        Mostly such that are answered, now and then one that never is.
        """
        items = (*task.new, *task.earlier)
        answered, negative = _answered(items), _unanswered(items)
        if not answered:
            return []
        examples = []
        for window in self._windows(task.chunks, schedule.window_tokens, rng):
            asked = [
                rng.choice(negative if negative and rng.random() < UNANSWERED_IN_CONVERSATION else answered)
                for _ in range(ASKED_IN_CONVERSATION)
            ]
            examples.append(conversation_example(self._backbone, window, asked))
        return examples

    def _windows(self, chunks: Sequence[Chunk], limit: int, rng: Random) -> list[list[int]]:
        """Encode what may stand before a question: turns of other people, and runs of the user's own turns."""
        if not limit:
            return []
        talks = [chunk.messages[1:] for chunk in chunks if len(chunk.messages) > 1]
        runs = [
            list(window)
            for window in rng.sample(self._neutral.windows, min(OTHERS_WINDOWS, len(self._neutral.windows)))
        ]
        for _ in range(OWN_WINDOWS if talks else 0):
            turns = rng.choice(talks)
            runs.append(list(turns[rng.randrange(len(turns)) :]))
        return [encoded for run in runs if (encoded := self._fitting(run, limit))]

    def _fitting(self, run: list[Message], limit: int) -> list[int]:
        """Encode as many turns from the start of a run as the limit takes."""
        for end in range(len(run), 0, -1):
            encoded = self._backbone.encode_chat(run[:end], generation_prompt=False)
            if len(encoded) <= limit:
                return encoded
        return []

    def _text_examples(self, chunks: Sequence[Chunk], objective: str, weight: float) -> list[Example]:
        """Return the turns of the chunks as examples.

        `ntp` without a teacher, `sd` with the whole chunk before the teacher.
        """
        examples = []
        for chunk in chunks:
            turns = [self._backbone.encode_chat([message], generation_prompt=False) for message in chunk.told]
            turns = [turn for turn in turns if len(turn) >= 2]
            if objective == "ntp":
                examples += [Example(tuple(turn[:1]), tuple(turn[1:]), None, weight) for turn in turns]
            elif turns:
                context = self._backbone.encode_chat(chunk.messages, generation_prompt=False)
                made = with_teacher(
                    self._engine,
                    [[*context, turn[0]] for turn in turns],
                    [turn[1:] for turn in turns],
                    top_k=self._config.study.teacher_top_k,
                    student_prompts=[turn[:1] for turn in turns],
                )
                examples += [replace(example, weight=weight) for example in made]
        return examples


def _answered(items: Iterable[Item]) -> list[Item]:
    """Leave out what is held out and what is never answered."""
    return [item for item in items if item.kind not in (PROBE, NEGATIVE)]


def _unanswered(items: Iterable[Item]) -> list[Item]:
    return [item for item in items if item.kind == NEGATIVE]


def _some(examples: list[Example], rng: Random) -> list[Example]:
    """Take all of a short list and a sample of a long one: the cost does not grow with every past session."""
    return examples if len(examples) <= REHEARSED else rng.sample(examples, REHEARSED)


def _by_fact(items: list[Item], rng: Random) -> list[Item]:
    """Take all of a short list; of a long one as many wordings of each fact as there is room for, at least one.

    Drawn item by item, a fact with few wordings would be left out of a long past, and lost.
    """
    if len(items) <= REHEARSED:
        return items
    wordings: dict[object, list[Item]] = {}
    for item in rng.sample(items, len(items)):
        wordings.setdefault(fact_of(item), []).append(item)
    taken = list[Item]()
    for turn in zip_longest(*wordings.values()):  # one wording of each fact after the other
        if taken and len(taken) + len(wordings) > REHEARSED:
            break
        taken += [item for item in turn if item is not None]
    return taken

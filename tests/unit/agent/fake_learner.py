"""A learner that learns in no time: the memory it makes tells which texts it has seen, and in which order."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from locas_agent import AgentMemory, LocasConfig
from locas_agent.backbone import Backbone
from locas_agent.consolidation.admission import Admission
from locas_agent.consolidation.learner import Outcome, Task
from locas_agent.inference.generation import TopK
from locas_agent.runtime import ConsolidationMode
from locas_agent.study.chunking import Chunk, chunk_turns
from locas_agent.study.items import QUESTION, Coverage, Item, StudySet
from locas_agent.training.initialization import initialize
from locas_agent.training.sampling.builder import TrainingTask
from locas_agent.types import Progress
from locas_storage import ConsolidationMetrics, MemoryStore, SqlMemoryStore, Turn, new_item_id

Texts = tuple[str, ...]
MakeAgent = Callable[..., AgentMemory]
CONFIG = LocasConfig.model_validate(
    {
        "memory": {"width": 2},
        "window": {"window_tokens": 60, "max_new_tokens": 4},
        "policy": {"overflow_tokens": 60, "min_overflow_tokens": 1},
    }
)


class QuickLearner:
    """Stands in for `Learner`.

    Attributes:
        learnt: the texts of each task, in the order they were learnt.
        meanwhile: called with the texts of all tasks while they are being learnt; may raise.
        refused: texts of which the admission gate refuses any that holds one.
    """

    def __init__(self, backbone: Backbone) -> None:
        self._backbone = backbone
        self.learnt: list[Texts] = []
        self.meanwhile: Callable[[list[Texts]], None] = lambda _: None
        self.refused: set[str] = set()

    def heard(self, turns: Sequence[Turn]) -> list[Turn]:
        """Read every turn."""
        return list(turns)

    def chunks(self, turns: Sequence[Turn]) -> tuple[Chunk, ...]:
        """Cut overflow as `Learner.chunks` does."""
        return tuple(
            chunk_turns(
                turns,
                lambda messages: len(self._backbone.encode_chat(messages, generation_prompt=False)),
                max_tokens=400,
            )
        )

    def learn(
        self, tasks: Sequence[Task], *, seed: int | None = None, progress: Progress | None = None
    ) -> list[Outcome]:
        """Return one outcome per task."""
        texts = [tuple(excerpt.text for chunk in task.chunks for excerpt in chunk.excerpts) for task in tasks]
        self.meanwhile(texts)
        if progress is not None:
            progress("train", 1, 1)
        self.learnt += texts
        return [self._outcome(task, said) for task, said in zip(tasks, texts, strict=True)]

    def _outcome(self, task: Task, texts: Texts) -> Outcome:
        before = b"" if task.memory is None else task.memory.slab.numpy().tobytes()
        digest = hashlib.sha256(before + "\n".join(texts).encode()).digest()
        memory = initialize(
            self._backbone,
            [],
            width=2,
            method="random_index",
            scale_rule="none",
            seed=int.from_bytes(digest[:4], "big"),
        )
        items = tuple(
            self.item_of(chunk, excerpt.turn_seq, excerpt.text) for chunk in task.chunks for excerpt in chunk.excerpts
        )
        is_refused = any(text in self.refused for text in texts)
        admission = Admission(not is_refused, "drift" if is_refused else "admitted", "")
        study_set = StudySet(items, frozenset(), Coverage(len(texts), len(texts), len(texts), 0, len(texts)))
        training_task = TrainingTask(items, task.earlier, task.chunks, task.memory)
        return Outcome(admission, memory, study_set, training_task, ConsolidationMetrics(seed=0))

    @staticmethod
    def item_of(chunk: Chunk, turn_seq: int, text: str) -> Item:
        """Return the one item about a turn."""
        teacher = TopK(torch.zeros((1, 2), dtype=torch.int32), torch.zeros((1, 2)))
        return Item(
            new_item_id(),
            QUESTION,
            chunk.from_seq,
            chunk.to_seq,
            turn_seq,
            f"Who said {text}?",
            "I did.",
            (1,),
            teacher,
        )


def quick_agent(backbone: Backbone, store: MemoryStore, consolidation: ConsolidationMode = "background") -> AgentMemory:
    """Return an agent whose learner is the stand-in: `agent.runner.learner`."""
    agent = AgentMemory(backbone=backbone, store=store, config=CONFIG, consolidation=consolidation)
    agent.runner.learner = QuickLearner(backbone)
    return agent


@contextmanager
def quick_agents(backbone: Backbone, folder: Path, consolidation: ConsolidationMode) -> Iterator[MakeAgent]:
    """Give agents on one file, each as a process of its own would have it; they are closed at the end.

    Args:
        backbone: of all.
        folder: where the file is.
        consolidation: how one consolidates unless it is told otherwise.
    """
    made: list[AgentMemory] = []

    def make(consolidation: ConsolidationMode = consolidation) -> AgentMemory:
        made.append(quick_agent(backbone, SqlMemoryStore(f"sqlite:///{folder / 'locas.db'}"), consolidation))
        return made[-1]

    yield make
    for agent in made:
        agent.close()

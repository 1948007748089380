"""What learning a talk costs: study and training beside a PEFT adapter, study beside one forward, bytes that recall.

The adapter is taught from our study sets, which cost it nothing here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from locas_agent.agent import AgentMemory
from locas_agent.backbone import Backbone
from locas_agent.benchmarks.bench import Bench, without_hooks
from locas_agent.benchmarks.measuring import Goal, Row, interleaved
from locas_agent.benchmarks.real.backbones import bare_copy
from locas_agent.benchmarks.real.talk import Talker, talkers_of
from locas_agent.benchmarks.recall_cost import STORED_RANK, Learnt, compare_bytes, config_of
from locas_agent.consolidation.learner import Learner
from locas_agent.evaluation.baselines.peer import peft
from locas_agent.evaluation.baselines.temp_lora import TempLora
from locas_agent.inference import Engine
from locas_agent.inference.batching import shared_lengths
from locas_agent.inference.generation import Generation, TopK
from locas_agent.study.items import QUESTION, StudyRequest, StudySet
from locas_agent.study.question_generation import QuestionGenerator
from locas_agent.study.scribe.question_generation import ScribeQuestionGenerator
from locas_agent.study.self_study import SelfStudy
from locas_agent.study.strategies import StudyStrategy
from locas_agent.study.teacher import Teacher
from locas_agent.training.sampling.builder import TrainingTask
from locas_agent.training.trainer import Trained, Trainer

ROUNDS = 3
RANK = 16
PEER_STEPS = 16
"""Steps of the adapter that a round times: four times the longest period of what a step draws."""
ROW_TOKENS, FORWARD_TOKENS = 64, 512
"""Tokens of a row of the forward beside study, and of one batch of it: as in the row `step-forward`."""
_TALK = "8 turns of talk of one person"

CONSOLIDATE = Goal(
    "consolidate-real",
    f"study and training of {_TALK}; peer: training of a PEFT adapter of rank {RANK} beside all linear layers on the "
    f"same study set, given to it, with as many steps, of which {PEER_STEPS} are timed",
    "s",
    "peer/ours",
    3.0,
    6.0,
)
STUDY = Goal(
    "study-forward",
    f"study of {_TALK}; peer: a forward of the bare backbone over as many tokens as study runs and writes, with "
    "logits at as many positions as it looks at",
    "s",
    "ours/peer",
    1.6,
    1.3,
)
BYTES = Goal(
    "bytes-talk",
    f"what is stored of a user after 8 turns of talk; peer: a PEFT adapter of rank {STORED_RANK} beside all linear "
    "layers, taught from the same study set in as many steps; holds where we recall as much",
    "bytes per user",
    "peer/ours",
    10.0,
    24.0,
)


class Counting(Engine):
    """Counts what an ideal engine would run for what it is asked: no padding, no row that is over, nothing twice.

    Attributes:
        tokens: of prompts, what a group begins with once, and of what is written or scored.
        positions: at which logits are looked at.
    """

    def __init__(self, backbone: Backbone) -> None:
        super().__init__(backbone)
        self.tokens = self.positions = 0

    def generate(self, prompts: Sequence[Sequence[int]], *args: Any, **options: Any) -> list[Generation]:
        """See `Engine.generate`."""
        made = super().generate(prompts, *args, **options)
        drawn = [len(each.ids) + each.stopped for each in made]
        self._count(prompts, options.get("groups"), drawn)
        return made

    def score(
        self, prompts: Sequence[Sequence[int]], continuations: Sequence[Sequence[int]], *args: Any, **options: Any
    ) -> list[Tensor]:
        """See `Engine.score`."""
        self._count(prompts, options.get("groups"), [len(each) for each in continuations])
        return super().score(prompts, continuations, *args, **options)

    def distributions(
        self, prompts: Sequence[Sequence[int]], continuations: Sequence[Sequence[int]], *args: Any, **options: Any
    ) -> list[TopK]:
        """See `Engine.distributions`."""
        self._count(prompts, options.get("groups"), [len(each) for each in continuations])
        return super().distributions(prompts, continuations, *args, **options)

    def _count(self, prompts: Sequence[Sequence[int]], groups: Sequence[int] | None, looked_at: Sequence[int]) -> None:
        shared = shared_lengths(prompts, groups)
        once = {} if groups is None else dict(zip(groups, shared, strict=True))
        own = sum(len(prompt) - count for prompt, count in zip(prompts, shared, strict=True))
        self.tokens += own + sum(once.values()) + sum(max(0, count - 1) for count in looked_at)
        self.positions += sum(looked_at)


def consolidate(bench: Bench) -> list[Row]:
    """Measure both rows of time; none on random weights, which write no question.

    Raises:
        MissingExtra: PEFT is not installed.
        RuntimeError: the backbone wrote no question, so there is nothing to compare.
    """
    if not _can_talk(bench):
        return []
    peft()  # before a minute of study
    with agent_of(bench) as agent:
        (talker, *_), engine = talkers_of(bench), Counting(agent.backbone)
        school = School(bench, agent, engine)
        request = school.request(talker, "talker")
        engine.tokens = engine.positions = 0
        (task,) = school.tasks([request], school.study([request]))
        forward = _forward(bench, agent.backbone, engine.tokens, engine.positions)
        steps = school.train([task])[0].steps
        timed = min(PEER_STEPS, steps)
        peer = TempLora(agent.backbone, agent.config, school.learner.neutral, rank=RANK)
        peer.train(task, steps=1)  # first calls are slower; ours were made above
        forward()
        sides: dict[str, Callable[[], object]] = {
            "study": lambda: school.study([request]),
            "train": lambda: school.train([task]),
            "peer": lambda: peer.train(task, steps=timed),
            "forward": forward,
        }
        taken = interleaved(sides, rounds=bench.real_rounds(ROUNDS), device=bench.device, warm_up=0)
    seconds = {name: [each / 1e3 for each in times] for name, times in taken.items()}
    ours = [sum(both) for both in zip(seconds["study"], seconds["train"], strict=True)]
    theirs = [each * steps / timed for each in seconds["peer"]]
    return [CONSOLIDATE.row(ours, theirs), STUDY.row(seconds["study"], seconds["forward"])]


def recalled(bench: Bench) -> list[Row]:
    """Measure bytes of memories and adapters that were taught the same talk, and ask both.

    Raises:
        MissingExtra: PEFT is not installed.
        RuntimeError: the backbone wrote no question about somebody, so there is nothing to compare.
    """
    if not _can_talk(bench):
        return []
    peft()
    with agent_of(bench) as agent:
        talkers, school = talkers_of(bench), School(bench, agent, agent.engine)
        requests = [school.request(talker, f"talker-{at}") for at, talker in enumerate(talkers)]
        tasks = school.tasks(requests, school.study(requests))
        learnt = [
            Learnt(task, one.memory, one.steps, talker.asked)
            for task, one, talker in zip(tasks, school.train(tasks), talkers, strict=True)
        ]
        return [compare_bytes(BYTES, agent, school.learner.neutral, learnt)]


class School:
    """Study and training as a consolidation does them, each by itself."""

    def __init__(self, bench: Bench, agent: AgentMemory, engine: Engine) -> None:
        config, self._agent = agent.config, agent
        self.learner = Learner(engine, config)
        self._trainer = Trainer(engine, config, self.learner.neutral, self.learner.last_layer)
        teacher, seed = Teacher(engine, config.study, seed=config.training.seed), config.training.seed
        strategy: StudyStrategy = (
            QuestionGenerator(teacher, config.study)  # the bundled backbone's
            if bench.is_quick
            else ScribeQuestionGenerator(teacher, config.study, self.learner.teach_scribe())
        )
        self._study = SelfStudy(teacher, config.study, seed=seed, strategy=strategy)

    def request(self, talker: Talker, name: str) -> StudyRequest:
        """Let a person tell everything."""
        return StudyRequest(self.learner.chunks(talker.tell(self._agent, name)))

    def study(self, requests: Sequence[StudyRequest]) -> list[StudySet]:
        """Write study sets."""
        return self._study.write(requests)

    def tasks(self, requests: Sequence[StudyRequest], sets: Sequence[StudySet]) -> list[TrainingTask]:
        """Return what is to be learnt of them.

        Raises:
            RuntimeError: there is nothing.
        """
        if any(all(item.kind != QUESTION for item in each.items) for each in sets):
            raise RuntimeError("somebody's study set is empty, so there is nothing to train on: take another seed")
        return [
            TrainingTask(each.items, (), request.chunks, None) for request, each in zip(requests, sets, strict=True)
        ]

    def train(self, tasks: Sequence[TrainingTask]) -> list[Trained]:
        """Train new memories side by side."""
        return self._trainer.train(tasks)


def _can_talk(bench: Bench) -> bool:
    return bench.is_quick or bench.real == "smollm2"


def agent_of(bench: Bench) -> AgentMemory:
    """Load the backbone with an empty store; quick runs take the bundled one."""
    return AgentMemory.load(
        "tiny" if bench.is_quick else bench.real, "sqlite://", config_of(bench), device=str(bench.device)
    )


def _forward(bench: Bench, backbone: Backbone, tokens: int, positions: int) -> Callable[[], object]:
    """Return a forward of the bare backbone over so many tokens, with logits at so many positions of them."""
    engine = without_hooks(bare_copy(backbone))
    rows = -(-tokens // ROW_TOKENS)
    generator = torch.Generator().manual_seed(bench.seed)
    ids = torch.randint(1, len(backbone.tokenizer) - 64, (rows, ROW_TOKENS), generator=generator)
    looked_at = torch.zeros(rows * ROW_TOKENS, dtype=torch.bool)
    looked_at[torch.arange(positions) * tokens // positions] = True  # different ones: no more than there are tokens
    at_once = FORWARD_TOKENS // ROW_TOKENS
    parts = list(zip(torch.split(ids, at_once), torch.split(looked_at.view_as(ids), at_once), strict=True))

    @torch.inference_mode()
    def forward() -> None:
        for part, at in parts:
            engine.logits(part, positions=at)

    return forward

"""One consolidation of many users, from overflow to decision: study, train, measure, admit or refuse.

This is the order in which the modules are read: `study.chunking`, `study.self_study`, `training.trainer`, `admission`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

from locas_agent.config import MAX_SEED, LocasConfig, StudySettings
from locas_agent.consolidation import admission as admission_gate
from locas_agent.consolidation import remarks
from locas_agent.consolidation.scribes import is_worth_waiting_for, scribe_of
from locas_agent.conversation.messages import Message, question, to_message
from locas_agent.errors import BackboneError, ConfigurationError, UnsupportedBackbone
from locas_agent.inference import Engine
from locas_agent.memory import LocasMemory
from locas_agent.memory.placement import LAST_LAYER, placement
from locas_agent.memory.serialization import as_stored
from locas_agent.study import prompts
from locas_agent.study.chunking import EXCERPT_CHARACTERS, Chunk, chunk_turns
from locas_agent.study.forms.calibration import Calibration
from locas_agent.study.forms.known import calibration_of, check_forms
from locas_agent.study.forms.reading import CHAT
from locas_agent.study.items import QUESTION, Item, StudyRequest, StudySet
from locas_agent.study.opened import OpenedQuestionGenerator
from locas_agent.study.question_generation import QuestionGenerator
from locas_agent.study.scribe.question_generation import ScribeQuestionGenerator
from locas_agent.study.self_study import SelfStudy, empty_study_set
from locas_agent.study.sources import Sources
from locas_agent.study.strategies import StrategyFactory, StudyStrategy
from locas_agent.study.teacher import Teacher
from locas_agent.training.loss.last_layer import LastLayer
from locas_agent.training.neutral import NeutralText, load_neutral
from locas_agent.training.sampling.builder import TrainingTask
from locas_agent.training.schedule import MORE_REHEARSAL
from locas_agent.training.starting import StartingMemories
from locas_agent.training.trainer import Trained, Trainer
from locas_agent.types import Progress
from locas_storage import ConsolidationMetrics, Turn, tracing

logger = logging.getLogger(__name__)

MIN_CHUNK_TOKENS = 48
"""A shorter chunk would be header only."""


@dataclass(frozen=True, eq=False)
class Task:
    """What is to be learnt for one user.

    Chunks of overflow, oldest first, items of earlier consolidations, the memory that learnt them.
    """

    chunks: tuple[Chunk, ...]
    earlier: tuple[Item, ...] = ()
    memory: LocasMemory | None = None
    left_out: int = 0
    """Turns of the overflow that stand in no chunk, see `Learner.heard`."""
    told: Mapping[int, str] = field(default_factory=dict, repr=False)
    """Texts of the turns that the earlier items were asked about, by number in the journal; those that are kept."""


@dataclass(frozen=True, eq=False)
class Outcome:
    """What became of one task: the memory and the study set behind it, the decision, and every figure."""

    admission: admission_gate.Admission
    memory: LocasMemory
    study_set: StudySet
    training_task: TrainingTask
    metrics: ConsolidationMetrics


class Learner:
    """Learns many users' overflow side by side on one backbone."""

    def __init__(self, engine: Engine, config: LocasConfig, strategy: StrategyFactory | None = None) -> None:
        """Take the parts.

        Args:
            engine: of the backbone.
            config: everything that can be chosen.
            strategy: makes the way to study of each consolidation; that in which the backbone is best asked unless
                given.

        Raises:
            ConfigurationError: the settings name a form of reading or writing that there is not, or the strategy makes
                none.
        """
        check_forms(config.study)
        if strategy is not None and not callable(strategy):
            raise ConfigurationError(
                f"strategy: got {type(strategy).__name__}, expected what makes a StudyStrategy of a Teacher and "
                "StudySettings, such as its class"
            )
        self._engine = engine
        self._config = config
        self._strategy = strategy or self._measured_strategy
        self._is_measured = strategy is None
        self._scribe: LocasMemory | None = None

    @property
    def neutral(self) -> NeutralText:
        """Neutral text on this backbone, which is computed at first use and kept with the backbone."""
        return load_neutral(
            self._engine, max_tokens=self._config.training.anchor_tokens, top_k=self._config.study.teacher_top_k
        )

    @property
    def calibration(self) -> Calibration:
        """How this backbone is asked: measured once for each backbone, at first use.

        Raises:
            UnsupportedBackbone: it reads nothing; that too is measured once only, whatever is tried again.
        """
        if isinstance(self._measured, UnsupportedBackbone):
            raise self._measured
        return self._measured

    @cached_property
    def _measured(self) -> Calibration | UnsupportedBackbone:
        try:
            return calibration_of(self._engine, self._config.study)
        except UnsupportedBackbone as error:
            return error.with_traceback(None)

    def teach_scribe(self, *, progress: Progress | None = None) -> LocasMemory:
        """Return what writes and reads for study on this backbone: taught once for each backbone, at first use.

        Args:
            progress: told of "course" while one is taught.
        """
        if self._scribe is None:
            self._scribe = scribe_of(self._engine, self.last_layer, self.neutral, progress=progress)
        return self._scribe

    @cached_property
    def last_layer(self) -> LastLayer | None:
        """The end of this backbone, None where it is built in a way not known; tried out once for each backbone."""
        backbone = self._engine.backbone
        last_layer = backbone.once("last layer", lambda: LastLayer.of(Engine(backbone)))
        if last_layer is not None and placement(self._config.memory.layers, backbone.n_layers) == LAST_LAYER:
            # Before any user's text: beside it in one batch, neutral text would come out a rounding different, and what
            # a user's memory becomes to the byte would depend on who was the first to learn in this process. Other
            # placements compute what enters their own layers.
            last_layer.states([*self.neutral.anchors, *self.neutral.held_out])
        return last_layer

    @property
    def chunk_tokens(self) -> int:
        """Longest chunk that leaves room for a seed prompt with its excerpt and for what is written, in tokens."""
        backbone, settings = self._engine.backbone, self._config.study
        seed = prompts.question_prompt("quote " * (EXCERPT_CHARACTERS // 6), speaker="Somebody")
        room = backbone.context_tokens - len(backbone.encode_chat(question(seed))) - settings.max_question_tokens
        return max(MIN_CHUNK_TOKENS, min(settings.max_piece_tokens, backbone.context_tokens // 2, room))

    def heard(self, turns: Sequence[Turn]) -> list[Turn]:
        """Return the turns of an overflow that may be learnt, and that the teacher may read, and can.

        Raises:
            BackboneError: the chat template refuses a role whatever is said in it.
        """
        sources = Sources.of(turns, self._config.sources)
        heard = [turn for turn in turns if turn.learn and sources.may_be_read(turn) and self._is_legible(turn)]
        if len(heard) < len(turns):
            logger.info(
                "turns left out of study",
                extra={"action": "study", "turns": len(turns), "left_out": len(turns) - len(heard)},
            )
        return heard

    def chunks(self, turns: Sequence[Turn]) -> tuple[Chunk, ...]:
        """Cut turns that the teacher may read into chunks that leave room for study on this backbone."""
        sources = Sources.of(turns, self._config.sources)
        return tuple(chunk_turns(turns, self._tokens_of, max_tokens=self.chunk_tokens, is_learnt=sources.may_be_learnt))

    def _tokens_of(self, messages: Sequence[Message]) -> int:
        return len(self._engine.backbone.encode_chat(messages, generation_prompt=False))

    def _is_legible(self, turn: Turn) -> bool:
        """Tell whether the backbone can read a turn.

        One text that it cannot must not keep all the others from being learnt.
        """
        try:
            self._tokens_of([to_message(turn)])
        except (BackboneError, TypeError, ValueError):
            # A role that the template never takes is no matter of this text, and raises here too.
            self._tokens_of([{"role": turn.role, "content": "text"}])
            return False
        return True

    def learn(
        self, tasks: Sequence[Task], *, seed: int | None = None, progress: Progress | None = None
    ) -> list[Outcome]:
        """Study, train and judge; nothing is written anywhere.

        Args:
            tasks: one for each user; one without a chunk leaves its memory as it is.
            seed: overrides `training.seed`.
            progress: told of the stages.

        Raises:
            ConfigurationError: the seed is none that a revision keeps.
        """
        config = self._config
        if seed is not None:
            if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed <= MAX_SEED:
                raise ConfigurationError(f"seed: got {seed!r}, expected an integer, 0 to {MAX_SEED}")
            config = config.model_copy(update={"training": config.training.model_copy(update={"seed": seed})})
        started = time.perf_counter()
        with tracing.span("locas.study", {"locas.users": len(tasks)}) as traced:
            sets = self._study(tasks, config, progress)
            traced.note({"locas.items": sum(len(study_set.items) for study_set in sets)})
        study_seconds = (time.perf_counter() - started) / max(1, len(tasks))
        training_tasks = [self._training_task(*each) for each in zip(tasks, sets, strict=True)]
        wanting = [index for index, training_task in enumerate(training_tasks) if self._has_matter(training_task)]
        learnt = dict(
            zip(wanting, self._train([training_tasks[index] for index in wanting], config, progress), strict=True)
        )
        outcomes = []
        for index, (study_set, training_task) in enumerate(zip(sets, training_tasks, strict=True)):
            if index in learnt:
                admission, figures, memory = learnt[index].admission, learnt[index].figures, learnt[index].memory
            else:
                admission, figures = self._nothing_learnt(study_set), {}
                # As it was, or one that changes nothing.
                (memory,) = StartingMemories(self._engine, config, self.neutral).of([training_task])
            figures |= {
                "coverage": asdict(study_set.coverage) | {"share": study_set.coverage.share},
                "items": len(study_set.items),
                "retired_items": len(study_set.retired),
                "study_seconds": study_seconds,
                "seed": config.training.seed,
                "forms": self._forms(tasks[index]),
                "left_out_turns": tasks[index].left_out,
                "norms": admission_gate.norms(memory),
            }
            outcomes.append(
                Outcome(
                    self._remarked(admission, tasks[index], study_set),
                    memory,
                    study_set,
                    training_task,
                    ConsolidationMetrics.of(figures),
                )
            )
        return outcomes

    def _train(
        self, tasks: Sequence[TrainingTask], config: LocasConfig, progress: Progress | None
    ) -> list[admission_gate.Judged]:
        """Train and judge; where a memory forgets, it is trained once more from where it began, and rehearses more."""
        judged = self._trained_once(tasks, config, progress)
        forgetful = [at for at, one in enumerate(judged) if one.admission.reason == admission_gate.FORGETS]
        if not forgetful or config.training.rehearsal_share is not None:
            return judged
        logger.info("training forgot and is begun again", extra={"action": "train", "users": len(forgetful)})
        more = config.training.model_copy(update={"rehearsal_share": MORE_REHEARSAL})
        again = self._trained_once(
            [tasks[at] for at in forgetful], config.model_copy(update={"training": more}), progress
        )
        for at, one in zip(forgetful, again, strict=True):
            judged[at] = one.after(judged[at])
        return judged

    def _trained_once(
        self, tasks: Sequence[TrainingTask], config: LocasConfig, progress: Progress | None
    ) -> list[admission_gate.Judged]:
        if not tasks:
            return []
        with tracing.span("locas.train", {"locas.users": len(tasks)}) as traced:
            trained = self._trainer(config).train(tasks, progress=progress)
            traced.note({"locas.steps": max(one.steps for one in trained)})
        with tracing.span("locas.admission", {"locas.users": len(tasks)}):
            stored = [_as_stored(one, config) for one in trained]
            return admission_gate.judge(self._engine, self.last_layer, tasks, stored, self.neutral, config)

    def _trainer(self, config: LocasConfig) -> Trainer:
        return Trainer(self._engine, config, self.neutral, self.last_layer)

    def _remarked(
        self, admission: admission_gate.Admission, task: Task, study_set: StudySet
    ) -> admission_gate.Admission:
        """Say beside the decision what a user would otherwise miss."""
        said = [
            *([admission.detail] if admission.detail else []),
            *remarks.of_coverage(study_set.coverage),
            *remarks.of_turns(task.left_out),
            *remarks.of_shape(task.memory, self._config.memory, n_layers=self._engine.backbone.n_layers),
        ]
        return replace(admission, detail="; ".join(said))

    def _study(self, tasks: Sequence[Task], config: LocasConfig, progress: Progress | None) -> list[StudySet]:
        seed = config.training.seed
        if config.training.objective != "self_study" or not any(task.chunks for task in tasks):
            return [empty_study_set() for _ in tasks]  # the backbone is not asked, so it need not be measured
        teacher = Teacher(self._engine, config.study, seed=seed)
        study = SelfStudy(teacher, config.study, seed=seed, strategy=self._strategy(teacher, config.study))
        return study.write(
            [StudyRequest(task.chunks, task.earlier, task.memory, task.told) for task in tasks], progress=progress
        )

    def _measured_strategy(self, teacher: Teacher, settings: StudySettings) -> StudyStrategy:
        """Return the way to study in which this backbone is best asked."""
        if not self.calibration.writers:
            return QuestionGenerator(teacher, settings)
        wanted = is_worth_waiting_for(self._engine.backbone) if settings.scribe is None else settings.scribe
        if wanted and settings.forms is None:
            reader = self.calibration.good_reader
            return ScribeQuestionGenerator(teacher, settings, self.teach_scribe(), reader=reader)
        return OpenedQuestionGenerator(teacher, settings, self.calibration)

    def _training_task(self, task: Task, study_set: StudySet) -> TrainingTask:
        earlier = tuple(item for item in task.earlier if item.item_id not in study_set.retired)
        reading = self.calibration.wide if self._is_asked(task) else CHAT
        return TrainingTask(study_set.items, earlier, task.chunks, task.memory, reading)

    def _is_asked(self, task: Task) -> bool:
        """Tell whether this backbone was asked in the forms that were measured for it."""
        return self._is_measured and self._config.training.objective == "self_study" and bool(task.chunks)

    def _forms(self, task: Task) -> dict[str, Any] | None:
        """Return how the backbone was asked, for the record of a revision; None where no measured form was used."""
        return self.calibration.chosen.model_dump(mode="json") if self._is_asked(task) else None

    def _has_matter(self, training_task: TrainingTask) -> bool:
        if self._config.training.objective != "self_study":
            return any(chunk.told for chunk in training_task.chunks)
        return any(item.kind == QUESTION for item in training_task.new)

    def _nothing_learnt(self, study_set: StudySet) -> admission_gate.Admission:
        """Turns without anything to remember are learnt by leaving the memory as it is.

        A backbone that cannot study is refused.
        """
        coverage = study_set.coverage
        if coverage.turns and not coverage.nothing and not coverage.carrying:
            return admission_gate.Admission(
                False, "no study", "the backbone wrote no question and did not say that there is nothing to remember"
            )
        if coverage.carrying:
            return admission_gate.Admission(
                False, "uncovered", f"{coverage.carrying} turns carry something, no question about them was supported"
            )
        return admission_gate.Admission(True, "nothing to remember", "")


def _as_stored(trained: Trained, config: LocasConfig) -> Trained:
    """Round what was trained as it will be saved: what is judged is what will answer. float32 rounds nothing."""
    if not trained.is_finite or config.memory.stored_as == "float32":
        return trained
    return replace(trained, memory=as_stored(trained.memory, dtype=config.memory.stored_as))

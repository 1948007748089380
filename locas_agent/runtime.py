"""What both faces share: the parts, and the work on the keys of users. `AgentMemory` and `UserMemory` stand above it.

It holds no logic of the parts: `Replies` answers, `ConsolidationRunner` consolidates, `Worker` drains the queue.
"""

from __future__ import annotations

import logging
from collections.abc import Generator, Sequence
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import Literal, Protocol, Self, get_args

from locas_agent.aio import Crews
from locas_agent.backbone import Backbone
from locas_agent.config import LocasConfig, MemorySettings
from locas_agent.consolidation import pending, policy
from locas_agent.consolidation.learner import Learner
from locas_agent.consolidation.runner import ConsolidationRequest, ConsolidationRunner
from locas_agent.consolidation.worker import Worker
from locas_agent.conversation import window
from locas_agent.conversation.token_count import longest_answer, with_token_count
from locas_agent.errors import ConfigurationError, LocasError, TurnNotFound
from locas_agent.import_export.chats import ChatImport, ChatImporter
from locas_agent.import_export.memory_files import MemoryFiles
from locas_agent.inference import Engine
from locas_agent.memory import LocasMemory, MemoryBatch
from locas_agent.memory.placement import placement
from locas_agent.memory_cache import CacheInfo, MemoryCache
from locas_agent.results import Consolidation, Reply
from locas_agent.serving.generation import ChatGeneration
from locas_agent.serving.inspection import MemoryInspection
from locas_agent.serving.prompt import PromptBuilder
from locas_agent.serving.replies import Replies, ReplyRequest, Sampling
from locas_agent.study.strategies import StrategyFactory
from locas_agent.training.starting import DEFAULT_WIDTH
from locas_agent.types import Progress
from locas_storage import (
    IMPORTED,
    CorrectedTurn,
    MemoryStore,
    Receipt,
    Revision,
    StorageError,
    Turn,
    TurnDraft,
    UserKey,
)
from locas_storage.records.bounds import MAX_PAYLOAD_BYTES

logger = logging.getLogger(__name__)

ConsolidationMode = Literal["inline", "background"]
"""Where a consolidation that the policy wants is done: in the call that set it off, or by a worker."""


class Host(Protocol):
    """Where the handle of a user finds who does the work: one `Runtime`, or several, of which each user has one."""

    @property
    def crews(self) -> Crews:
        """The threads of the async twins."""
        ...

    def runtime_of(self, key: UserKey) -> Runtime:
        """Return the parts on the backbone of the user's memory."""
        ...

    def answer(self, asked: Sequence[ReplyRequest], sampling: Sampling) -> list[Reply]:
        """Answer each user on the backbone of the user's memory."""
        ...


class Runtime:
    """The parts of one agent memory, wired together.

    Construction starts no thread, opens no socket and writes nothing; the store is opened at the first call. Calls may
    come from several threads.
    """

    def __init__(
        self,
        *,
        backbone: Backbone,
        store: MemoryStore,
        config: LocasConfig | None = None,
        consolidation: ConsolidationMode = "inline",
        strategy: StrategyFactory | None = None,
    ) -> None:
        check_parts(backbone, store, config)
        self.backbone = backbone
        self.store = store
        self.config = config or LocasConfig()
        self.crews = Crews()
        self._being_learnt: set[UserKey] = set()
        self._lock = Lock()
        self.engine = Engine(backbone)
        self.learner = Learner(self.engine, self.config, strategy)
        self.consolidation = consolidation
        self.memories = MemoryCache(backbone, store, least_certainty=self.config.least_certainty)
        self.runner = ConsolidationRunner(backbone, store, self.learner, self.memories, self.config)
        self.prompts = PromptBuilder(backbone, store, self.config.window)
        self.chat = ChatGeneration(
            backbone=backbone, store=store, engine=self.engine, memories=self.memories, settings=self.config.window
        )
        self.inspection = MemoryInspection(
            backbone=backbone, store=store, engine=self.engine, memories=self.memories, settings=self.config.window
        )
        self.replies = Replies(
            backbone=backbone,
            store=store,
            prompts=self.prompts,
            engine=self.engine,
            memories=self.memories,
            settings=self.config.window,
            append=self.append,
        )
        self.memory_files = MemoryFiles(
            backbone=backbone, store=store, memories=self.memories, config=self.config, append=self.append
        )
        if consolidation not in get_args(ConsolidationMode):
            raise ConfigurationError(
                f"consolidation is {consolidation!r}: choose one of {', '.join(get_args(ConsolidationMode))}"
            )
        _check_shape(backbone, self.config.memory)
        if self.config.window.max_new_tokens > (most := longest_answer(backbone)):
            raise ConfigurationError(
                f"window.max_new_tokens is {self.config.window.max_new_tokens}; the context of {backbone.name!r} has "
                f"{backbone.context_tokens} "
                f"tokens, in which an answer has to stand as a turn beside the next answer: choose at most {most}"
            )

    def runtime_of(self, key: UserKey) -> Self:
        """Return itself: one runtime is the home of all its users."""
        return self

    def cache_info(self) -> CacheInfo:
        """Count the memories found ready, read and dropped so far, and what is kept of users now."""
        return self.memories.cache_info()

    def append(self, key: UserKey, drafts: Sequence[TurnDraft]) -> list[Turn]:
        """Journal turns with their token counts; in the background mode the same transaction asks for what is due.

        Raises:
            TurnTooLong: a turn does not fit into the backbone's context beside an answer; nothing was written.
        """
        said = [
            with_token_count(self.backbone, draft, answer_tokens=self.config.window.max_new_tokens) for draft in drafts
        ]
        if self.consolidation == "inline":
            return self.store.append(key, said)
        due = pending.due(self.store, key, self.config, about_to_be_said=said)
        return self.store.append(key, said, enqueue=due.to_seq if due.decision.is_due else None)

    def current(self, key: UserKey) -> tuple[Revision | None, LocasMemory | None]:
        """Return a user's current revision and its memory."""
        return self.memories.current(key)

    def memory_of(self, key: UserKey, revision: Revision | None) -> LocasMemory | None:
        """Return a revision's memory, from the cache or checked from the store."""
        return self.memories.of(key, revision)

    def batch_of(self, memories: Sequence[LocasMemory | None]) -> MemoryBatch | None:
        """Return the memories as one forward takes them; None when nobody has any."""
        return self.memories.batch(memories)

    def answer(self, asked: Sequence[ReplyRequest], sampling: Sampling) -> list[Reply]:
        """Journal each user's turn, answer all in one batch, journal the answers, and consolidate those who are due."""
        return [
            self._with_consolidation(one.user, reply)
            for one, reply in zip(asked, self.replies.answer(asked, sampling), strict=True)
        ]

    def stream_answer(self, asked: ReplyRequest, sampling: Sampling) -> Generator[str, None, Reply]:
        """Do the same for one user, yielding the answer as it is written."""
        reply = yield from self.replies.stream(asked, sampling)
        return self._with_consolidation(asked.user, reply)

    def _with_consolidation(self, key: UserKey, reply: Reply) -> Reply:
        """Both turns are journalled by now: what goes wrong here is said in the reply, and the overflow stays due.

        While another reply of the same user has it learnt, nothing is done: both would learn the same, and one in vain.
        """
        with self._lock:
            if key in self._being_learnt:
                return reply
            self._being_learnt.add(key)
        try:
            if self.consolidation == "background" or not self.consolidation_due(key).is_due:
                return reply
            done = self.consolidate_keys([key])[0]
        except LocasError as error:
            logger.warning(
                "consolidation after a reply failed",
                extra={"action": "consolidate", "reason": type(error).__name__, "user": key.short_hash},
            )
            done = Consolidation("failed", type(error).__name__, str(error), None, 0)
        finally:
            with self._lock:
                self._being_learnt.discard(key)
        return replace(reply, consolidation=done)

    def consolidation_due(self, key: UserKey) -> policy.Decision:
        """Ask the policy whether this user's overflow is to be learnt now."""
        return pending.due(self.store, key, self.config).decision

    def consolidate_keys(
        self, keys: Sequence[UserKey], *, flush: bool = False, progress: Progress | None = None, seed: int | None = None
    ) -> list[Consolidation]:
        """Learn several users' overflow and commit each admitted memory in one transaction of its own.

        Raises:
            ConfigurationError: a user stands in it twice.
            RevisionConflict: a user's memory moved or a worker took it over meanwhile; the other users' are committed
                all the same.
        """
        if len(set(keys)) < len(keys):
            raise ConfigurationError(
                f"{len(keys)} users are to be consolidated, {len(set(keys))} different ones: name each once"
            )
        results: list[Consolidation] = []
        for result in self.runner.run(
            [ConsolidationRequest(key, flush=flush) for key in keys], progress=progress, seed=seed
        ):
            if isinstance(result, StorageError):
                raise result
            results.append(result)
        return results

    def queue(self, key: UserKey, *, flush: bool) -> Consolidation:
        """Leave a user's overflow to a worker.

        Raises:
            ConfigurationError: nobody is said to work in the background.
        """
        if self.consolidation != "background":
            raise ConfigurationError(
                'wait=False leaves the work to a worker: build AgentMemory with consolidation="background" and run one'
            )
        left = self.pending(key, flush=flush)
        if not left:
            return Consolidation("nothing", "no overflow", "every turn is learnt or still in the window", None, 0)
        self.store.queue.enqueue(key, left[-1].seq)
        return Consolidation("queued", "background", "a worker will learn them", None, len(left))

    def pending(self, key: UserKey, *, flush: bool = False) -> list[Turn]:
        """Return the turns of a user that wait to be learnt; with `flush` those still in the window too."""
        state = self.store.state(key)
        waiting = self.store.turns(key, after=state.consolidated_seq) if state is not None else []
        return waiting if flush else window.overflow(waiting, self.config.window.window_tokens)

    def forget(self, key: UserKey, turns: Sequence[int]) -> Receipt:
        """Detach and remove turns; where it `rebuilds`, `rebuild` comes next."""
        receipt = self.store.forget(key, turns)
        self.memories.drop(key)
        return receipt

    def correct(self, key: UserKey, turn: int, text: str) -> CorrectedTurn:
        """Replace the text of a turn; the caller rebuilds the memory next."""
        found = self.store.turns(key, after=turn - 1, upto=turn)
        if not found:
            raise TurnNotFound(f"the journal has no turn {turn} that could be corrected; turns() lists those there are")
        old = found[0]
        if old.trust == IMPORTED:
            raise ConfigurationError(
                f"turn {turn} stands for an imported memory, which no text replaces: forget it instead"
            )
        draft = TurnDraft(
            old.role,
            text,
            name=old.name,
            session=old.session,
            at=old.local_at,
            trust=old.trust,
            expires_at=old.expires_at,
            learn=old.learn,
        )
        made = self.store.correct(
            key, turn, with_token_count(self.backbone, draft, answer_tokens=self.config.window.max_new_tokens)
        )
        self.memories.drop(key)
        return made

    def import_chats(self, key: UserKey, path: str | Path, *, learn: bool, progress: Progress | None) -> ChatImport:
        """Add exported chats to a journal; in the background mode ask for what is due then, once for all of them."""
        importer = ChatImporter(
            backbone=self.backbone, store=self.store, answer_tokens=self.config.window.max_new_tokens
        )
        done = importer.take(key, path, learn=learn, progress=progress)
        if self.consolidation == "background" and (due := pending.due(self.store, key, self.config)).decision.is_due:
            self.store.queue.enqueue(key, due.to_seq)
        return done

    def rebuilds(self, receipt: Receipt, wait: bool | None) -> bool:
        """Tell whether the call that made turns forgotten learns the others again itself.

        Else there is nothing to learn, or a worker does it.
        """
        return bool(receipt.rebuild_to_seq) and (self.consolidation == "inline" if wait is None else wait)

    def rebuild(self, key: UserKey, progress: Progress | None) -> None:
        """Learn a user's remaining turns again after a forgetting."""
        Worker(self.store, self.runner, progress=progress).drain(key=key)

    def erase(self, key: UserKey) -> Receipt:
        """Remove everything of a user."""
        receipt = self.store.erase(key)
        self.memories.drop(key)
        return receipt


def check_parts(backbone: object, store: object, config: object, *, may_be_named: bool = False) -> None:
    """Refuse what is no part of an `AgentMemory`, before anything is loaded."""
    if not isinstance(backbone, (Backbone, str, Path) if may_be_named else Backbone):
        named = "'tiny', a folder, a hub id or " if may_be_named else ""
        raise ConfigurationError(f"backbone: got {_kind(backbone)}, expected {named}a Backbone")
    if not (may_be_named and isinstance(store, str | Path)) and not callable(getattr(store, "commit", None)):
        named = (
            "a SQLAlchemy URL, the Path of an SQLite file, 'sqlite://' for a database in memory, or "
            if may_be_named
            else ""
        )
        raise ConfigurationError(f"store: got {_kind(store)}, expected {named}a MemoryStore, such as open_store(URL)")
    if config is not None and not isinstance(config, LocasConfig):
        raise ConfigurationError(
            f"config: got {_kind(config)}, expected a LocasConfig; of a mapping LocasConfig.model_validate makes one"
        )


def _kind(value: object) -> str:
    return "None" if value is None else type(value).__name__


def _check_shape(backbone: Backbone, shape: MemorySettings) -> None:
    """Refuse a shape that the backbone does not have, or whose bytes no store would take once they are trained."""
    if (shape.width or 1) > backbone.ffn_width:
        raise ConfigurationError(
            f"memory.width is {shape.width}, wider than the backbone's FFN of {backbone.ffn_width} neurons: choose less"
        )
    layers = len(placement(shape.layers, backbone.n_layers))
    width = shape.width or min(DEFAULT_WIDTH, backbone.ffn_width)
    bytes_each = {"float32": 4, "bfloat16": 2, "int8": 1}[shape.stored_as]
    if (size := 3 * layers * width * backbone.hidden_size * bytes_each) > MAX_PAYLOAD_BYTES:
        raise ConfigurationError(
            f"{width} slots beside {layers} layers of {backbone.name!r} are {size} bytes as {shape.stored_as}, a store "
            "takes at most "
            f"{MAX_PAYLOAD_BYTES}: choose a smaller memory.width or fewer memory.layers"
        )

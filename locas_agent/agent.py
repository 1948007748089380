"""`AgentMemory`, the entry object: a backbone, a store and a configuration, and the verbs that work on many users at once.

Knows all the others, and holds no logic of theirs: `Replies` answers, `Rounds` consolidates, `Worker` drains the queue.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from threading import Event, Lock
from types import TracebackType
from typing import TYPE_CHECKING, Literal, NoReturn, Self, get_args

from locas_agent.aio import Crews, async_twin
from locas_agent.backbone import Backbone
from locas_agent.config import LocasConfig, MemorySettings, StoreSettings
from locas_agent.consolidation import pending, policy
from locas_agent.consolidation.learner import Learner
from locas_agent.consolidation.runner import Order, Rounds
from locas_agent.consolidation.worker import Worker
from locas_agent.conversation.token_count import counted, longest_answer
from locas_agent.errors import ConfigurationError, LocasError, TurnNotFound
from locas_agent.import_export import Exchange
from locas_agent.inference import Engine
from locas_agent.memory import LocasMemory, MemoryBatch
from locas_agent.memory_cache import LoadedMemories, Loads
from locas_agent.results import Consolidation, Reply, Work
from locas_agent.serving.replies import Asked, Replies, Sampling
from locas_agent.training.trainer import DEFAULT_WIDTH
from locas_agent.types import Progress
from locas_storage import (
    IMPORTED,
    CorrectedTurn,
    KeyProvider,
    MemoryStore,
    Receipt,
    Revision,
    StorageError,
    Turn,
    TurnDraft,
    UserKey,
    open_store,
)
from locas_storage.records.bounds import MAX_PAYLOAD_BYTES

if TYPE_CHECKING:
    from locas_agent.user import UserMemory

logger = logging.getLogger(__name__)

When = Literal["inline", "background"]
"""Where a consolidation that the policy wants is done: in the call that set it off, or by a worker."""


class AgentMemory:
    """Memory for many users of one backbone.

    Construction starts no thread, opens no socket and writes nothing; the store is opened at the first verb.
    Verbs may be called from several threads.

    Args:
        backbone: the frozen language model.
        store: where journal, study sets and revisions live.
        config: everything that can be chosen.
        consolidation: "inline" learns what the policy wants learnt in the reply that set it off; "background" asks for it in the
            transaction that appends the turn, and a worker does it: `work`, or the command `locas-agent work` beside this process.

    Raises:
        ConfigurationError: the shape of a memory exceeds the backbone's or a store's bounds, `window.max_new_tokens` leaves no room for a
            question, `consolidation` is neither of the two, or a part is none.
    """

    def __init__(self, *, backbone: Backbone, store: MemoryStore, config: LocasConfig | None = None, consolidation: When = "inline") -> None:
        _check_parts(backbone, store, config)
        self.backbone = backbone
        self.store = store
        self.config = config or LocasConfig()
        self.crews = Crews()
        self._being_learnt: set[UserKey] = set()
        self._lock = Lock()
        self.engine = Engine(backbone)
        self.learner = Learner(self.engine, self.config)
        self.consolidation = consolidation
        self._memories = LoadedMemories(backbone, store)
        self.rounds = Rounds(backbone, store, self.learner, self._memories, self.config)
        self.replies = Replies(
            backbone=backbone, store=store, engine=self.engine, memories=self._memories, settings=self.config.window, append=self.append
        )
        self.exchange = Exchange(backbone=backbone, store=store, memories=self._memories, config=self.config, append=self.append)
        if consolidation not in get_args(When):
            raise ConfigurationError(f"consolidation is {consolidation!r}: choose one of {', '.join(get_args(When))}")
        _check_shape(backbone, self.config.memory)
        if self.config.window.max_new_tokens > (most := longest_answer(backbone)):
            raise ConfigurationError(
                f"window.max_new_tokens is {self.config.window.max_new_tokens}; the context of {backbone.name!r} has {backbone.context_tokens} "
                f"tokens, in which an answer has to stand as a turn beside the next answer: choose at most {most}"
            )

    @classmethod
    def load(
        cls,
        backbone: str | Path | Backbone = "tiny",
        store: str | Path | MemoryStore = "sqlite:///locas.db",
        config: LocasConfig | None = None,
        *,
        device: str | None = None,
        dtype: str = "float32",
        consolidation: When = "inline",
        key_provider: KeyProvider | None = None,
    ) -> Self:
        """Build the usual parts: a backbone by name, path or hub id, a store by SQLAlchemy URL or path.

        Args:
            backbone: "tiny" (bundled), a folder, a hub id, or a ready `Backbone`.
            store: any SQLAlchemy URL, "sqlite://" for a database in memory, a `Path` of an SQLite file, or a ready store.
            config: everything that can be chosen.
            device: e.g. "cuda:0"; the first GPU if there is one, else the CPU.
            dtype: dtype of the backbone; memories are trained in fp32 whatever it is.
            consolidation: "inline" or "background", see `AgentMemory`.
            key_provider: with it the store keeps all content encrypted, see `locas_storage.SqlMemoryStore`; for a store given by URL.

        Raises:
            ConfigurationError: a ready store was given beside a key provider or `config.store`, or what was given is no store, backbone or config.
        """
        _check_parts(backbone, store, config, may_be_named=True)
        kept = (config or LocasConfig()).store
        if not isinstance(store, str | Path) and (key_provider is not None or kept != StoreSettings()):
            raise ConfigurationError("key_provider or config.store was given beside a ready store: give it to the store when you make that")
        ready = backbone if isinstance(backbone, Backbone) else Backbone.load(str(backbone), device=device, dtype=dtype)  # type: ignore[arg-type]
        made = open_store(store, key_provider=key_provider, **kept.model_dump()) if isinstance(store, str | Path) else store
        return cls(backbone=ready, store=made, config=config, consolidation=consolidation)

    def for_user(self, user: str, *, tenant: str = "default") -> UserMemory:
        """Return the handle of one user; cheap, and nothing is written until a verb is called."""
        from locas_agent.user import UserMemory

        return UserMemory(self, UserKey(tenant, user))

    def users(self, *, tenant: str | None = None) -> list[UserKey]:
        """Return everyone who has ever said something, of one tenant or of all."""
        return self.store.users(tenant)

    def reply_many(
        self, turns: Sequence[tuple[str | UserMemory, str]], *, max_new_tokens: int | None = None, temperature: float = 0.0, seed: int = 0
    ) -> list[Reply]:
        """Answer several users in one batch, each row with its own memory; both turns of each are journalled.

        Args:
            turns: (user or handle, text); a user may stand in it once.
            max_new_tokens: longest answer, in tokens.
            temperature: 0 is greedy.
            seed: of sampling.
        """
        if isinstance(turns, str) or not all(isinstance(one, tuple | list) and len(one) == 2 for one in turns):
            raise ConfigurationError("turns: expected pairs of a user, or handle, and a text, such as [('ada', 'Hello.')]")
        handles = self._handles([user for user, _ in turns])
        if len({handle.key for handle in handles}) != len(handles):
            raise ConfigurationError("a user stands twice in one call of reply_many: its second turn needs the first answer; make two calls")
        asked = [Asked(handle.key, text) for handle, (_, text) in zip(handles, turns, strict=True)]
        return self.answer(asked, Sampling(max_new_tokens, temperature, seed))

    def prefetch(self, users: Sequence[str | UserMemory]) -> None:
        """Read and check memories and bring them to the device, for users who are about to say something; their next reply does not wait for that.

        Args:
            users: users of the tenant "default", or handles; whoever has no memory is passed over.
        """
        for handle in self._handles(users):
            self._memories.prefetch(handle.key)

    def consolidate_many(
        self, users: Sequence[str | UserMemory], *, flush: bool = False, progress: Progress | None = None, seed: int | None = None
    ) -> list[Consolidation]:
        """Learn the overflow of several users side by side; each is admitted or refused by itself.

        Args:
            users: users of the tenant "default", or handles.
            flush: learn the turns that are still in the window too.
            progress: told of the stages.
            seed: overrides `training.seed`.
        """
        return self.consolidate_keys([handle.key for handle in self._handles(users)], flush=flush, progress=progress, seed=seed)

    def work(
        self,
        *,
        stop: Event | None = None,
        once: bool = True,
        jobs_at_once: int = 8,
        lease_seconds: float = 300.0,
        poll_seconds: float = 2.0,
        progress: Progress | None = None,
    ) -> Work:
        """Drain queued consolidations and rebuilds, and forget turns whose time is over. Several processes may do so at once.

        Args:
            stop: the call returns when it is set, and gives back what it has in progress.
            once: return as soon as nothing is due; else wait for more work until `stop` is set.
            jobs_at_once: jobs of similar length learnt side by side.
            lease_seconds: time after which another worker takes over from one that fell silent.
            poll_seconds: time between two looks at an empty queue.
            progress: told of the stages of each round.
        """
        worker = Worker(self.store, self.rounds, jobs_at_once=jobs_at_once, lease_seconds=lease_seconds, poll_seconds=poll_seconds, progress=progress)
        return worker.drain(stop=stop, once=once)

    areply_many = async_twin(reply_many, "answers")
    aprefetch = async_twin(prefetch, "answers")
    aconsolidate_many = async_twin(consolidate_many, "training")
    awork = async_twin(work, None)
    ausers = async_twin(users, "journal")

    def close(self) -> None:
        """Wait for the async calls that are being made, cancel those that have not begun, and let go of the store's connections."""
        self.crews.close()
        self.store.close()

    aclose = async_twin(close, None)

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close."""
        self.close()

    def __repr__(self) -> str:
        """Name the backbone, never a user."""
        return f"AgentMemory(backbone={self.backbone.name!r})"

    def __copy__(self) -> Self:
        """Return itself: it stands for one backbone and one store, which every copy would share."""
        return self

    def __deepcopy__(self, memo: dict[int, object]) -> Self:
        """Return itself, as `__copy__` does."""
        return self

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled.

        Raises:
            ConfigurationError: always.
        """
        raise ConfigurationError("an AgentMemory holds a backbone and open connections and cannot be pickled: load one in each process")

    # What the handles share ------------------------------------------------------------------------------------------

    @property
    def loads(self) -> Loads:
        """Count the memories found ready, read and dropped so far, and what is kept of users now."""
        return self._memories.loads

    def _handles(self, users: Sequence[str | UserMemory]) -> list[UserMemory]:
        from locas_agent.user import UserMemory

        if isinstance(users, str):
            raise ConfigurationError("users: got one str, expected a list of users or handles")
        return [user if isinstance(user, UserMemory) else self.for_user(user) for user in users]

    def append(self, key: UserKey, drafts: Sequence[TurnDraft]) -> list[Turn]:
        """Journal turns with their token counts; in the background mode the same transaction asks for what is due.

        Raises:
            TurnTooLong: a turn does not fit into the backbone's context beside an answer; nothing was written.
        """
        said = [counted(self.backbone, draft, answer_tokens=self.config.window.max_new_tokens) for draft in drafts]
        if self.consolidation == "inline":
            return self.store.append(key, said)
        due = pending.due(self.store, key, self.config, about_to_be_said=said)
        return self.store.append(key, said, enqueue=due.to_seq if due.decision.due else None)

    def current(self, key: UserKey) -> tuple[Revision | None, LocasMemory | None]:
        """Return a user's current revision and its memory."""
        return self._memories.current(key)

    def memory_of(self, key: UserKey, revision: Revision | None) -> LocasMemory | None:
        """Return a revision's memory, from the cache or checked from the store."""
        return self._memories.of(key, revision)

    def batch_of(self, memories: Sequence[LocasMemory | None]) -> MemoryBatch | None:
        """Return the memories as one forward takes them; None when nobody has any."""
        return self._memories.batch(memories)

    def answer(self, asked: Sequence[Asked], sampling: Sampling) -> list[Reply]:
        """Journal each user's turn, answer all in one batch, journal the answers, and consolidate whoever is due."""
        return [self._with_consolidation(one.user, reply) for one, reply in zip(asked, self.replies.answer(asked, sampling), strict=True)]

    def stream_answer(self, asked: Asked, sampling: Sampling, finish: list[Reply]) -> Iterator[str]:
        """Do the same for one user, yielding the answer as it is written; the reply is put into `finish`."""
        return self.replies.stream(asked, sampling, lambda reply: finish.append(self._with_consolidation(asked.user, reply)))

    def _with_consolidation(self, key: UserKey, reply: Reply) -> Reply:
        """Both turns are journalled by now: what goes wrong here is said in the reply, and the overflow stays due.

        While another reply of the same user has it learnt, nothing is done: both would learn the same, and one in vain.
        """
        with self._lock:
            if key in self._being_learnt:
                return reply
            self._being_learnt.add(key)
        try:
            if self.consolidation == "background" or not self.due(key).due:
                return reply
            done = self.consolidate_keys([key])[0]
        except LocasError as error:
            logger.warning(
                "consolidation after a reply failed", extra={"action": "consolidate", "reason": type(error).__name__, "user": key.short_hash}
            )
            done = Consolidation("failed", type(error).__name__, str(error), None, 0)
        finally:
            with self._lock:
                self._being_learnt.discard(key)
        return replace(reply, consolidation=done)

    def due(self, key: UserKey) -> policy.Decision:
        """Ask the policy whether this user's overflow is to be learnt now."""
        return pending.due(self.store, key, self.config).decision

    def consolidate_keys(
        self, keys: Sequence[UserKey], *, flush: bool = False, progress: Progress | None = None, seed: int | None = None
    ) -> list[Consolidation]:
        """Learn several users' overflow and commit each admitted memory in one transaction of its own.

        Raises:
            ConfigurationError: a user stands in it twice.
            RevisionConflict: a user's memory moved or a worker took it over meanwhile; the other users' are committed all the same.
        """
        if len(set(keys)) < len(keys):
            raise ConfigurationError(f"{len(keys)} users are to be consolidated, {len(set(keys))} different ones: name each once")
        results: list[Consolidation] = []
        for result in self.rounds.run([Order(key, flush=flush) for key in keys], progress=progress, seed=seed):
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
            raise ConfigurationError('wait=False leaves the work to a worker: build AgentMemory with consolidation="background" and run one')
        state = self.store.state(key)
        waiting = self.store.turns(key, after=state.consolidated_seq) if state is not None else []
        left = waiting if flush else pending.overflow(waiting, self.config.window.window_tokens)
        if not left:
            return Consolidation("nothing", "no overflow", "every turn is learnt or still in the window", None, 0)
        self.store.queue.ask(key, left[-1].seq)
        return Consolidation("queued", "background", "a worker will learn them", None, len(left))

    def forget(self, key: UserKey, turns: Sequence[int]) -> Receipt:
        """Detach and remove turns; where it `rebuilds`, `rebuild` comes next."""
        receipt = self.store.forget(key, turns)
        self._memories.drop(key)
        return receipt

    def correct(self, key: UserKey, turn: int, text: str) -> CorrectedTurn:
        """Replace the text of a turn; the caller rebuilds the memory next."""
        found = self.store.turns(key, after=turn - 1, upto=turn)
        if not found:
            raise TurnNotFound(f"the journal has no turn {turn} that could be corrected; turns() lists those there are")
        old = found[0]
        if old.trust == IMPORTED:
            raise ConfigurationError(f"turn {turn} stands for an imported memory, which no text replaces: forget it instead")
        draft = TurnDraft(old.role, text, name=old.name, session=old.session, at=old.local_at, trust=old.trust, expires_at=old.expires_at)
        made = self.store.correct(key, turn, counted(self.backbone, draft, answer_tokens=self.config.window.max_new_tokens))
        self._memories.drop(key)
        return made

    def rebuilds(self, receipt: Receipt, wait: bool | None) -> bool:
        """Tell whether the call that made turns forgotten learns the others again itself; else there is nothing to learn, or a worker does it."""
        return bool(receipt.rebuild_to_seq) and (self.consolidation == "inline" if wait is None else wait)

    def rebuild(self, key: UserKey, progress: Progress | None) -> None:
        """Learn a user's remaining turns again after a forgetting."""
        Worker(self.store, self.rounds, progress=progress).drain(key=key)

    def erase(self, key: UserKey) -> Receipt:
        """Remove everything of a user."""
        receipt = self.store.erase(key)
        self._memories.drop(key)
        return receipt


def _check_parts(backbone: object, store: object, config: object, *, may_be_named: bool = False) -> None:
    """Refuse what is no part of an `AgentMemory`, before anything is loaded."""
    if not isinstance(backbone, (Backbone, str, Path) if may_be_named else Backbone):
        named = "'tiny', a folder, a hub id or " if may_be_named else ""
        raise ConfigurationError(f"backbone: got {_kind(backbone)}, expected {named}a Backbone")
    if not (may_be_named and isinstance(store, str | Path)) and not callable(getattr(store, "append", None)):
        named = "a SQLAlchemy URL, the Path of an SQLite file, 'sqlite://' for a database in memory, or " if may_be_named else ""
        raise ConfigurationError(f"store: got {_kind(store)}, expected {named}a MemoryStore, such as open_store(URL)")
    if config is not None and not isinstance(config, LocasConfig):
        raise ConfigurationError(f"config: got {_kind(config)}, expected a LocasConfig; of a mapping LocasConfig.model_validate makes one")


def _kind(value: object) -> str:
    return "None" if value is None else type(value).__name__


def _check_shape(backbone: Backbone, shape: MemorySettings) -> None:
    """Refuse a shape that the backbone does not have, or whose bytes no store would take once they are trained."""
    if (shape.width or 1) > backbone.ffn_width:
        raise ConfigurationError(f"memory.width is {shape.width}, wider than the backbone's FFN of {backbone.ffn_width} neurons: choose less")
    if (shape.layers or 1) > backbone.n_layers:
        raise ConfigurationError(f"memory.layers is {shape.layers}, more than the {backbone.n_layers} of {backbone.name!r}: choose less")
    width, layers = shape.width or min(DEFAULT_WIDTH, backbone.ffn_width), shape.layers or backbone.n_layers
    bytes_each = {"float32": 4, "bfloat16": 2, "int8": 1}[shape.stored_as]
    if (size := 3 * layers * width * backbone.hidden_size * bytes_each) > MAX_PAYLOAD_BYTES:
        raise ConfigurationError(
            f"{width} slots beside {layers} layers of {backbone.name!r} are {size} bytes as {shape.stored_as}, a store takes at most "
            f"{MAX_PAYLOAD_BYTES}: choose a smaller memory.width or fewer memory.layers"
        )

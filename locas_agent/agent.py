"""`AgentMemory`, the entry object.

A backbone, a store and a configuration, and the verbs that work on many users at once.

The verbs are here, what they share with the handles is in `runtime.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from threading import Event
from types import TracebackType
from typing import NoReturn, Self

from locas_agent.aio import to_async
from locas_agent.backbone import Backbone
from locas_agent.config import LocasConfig, StoreSettings
from locas_agent.consolidation.upgrade import Upgrade
from locas_agent.consolidation.worker import Worker
from locas_agent.errors import ConfigurationError
from locas_agent.inference import Engine
from locas_agent.results import Consolidation, Reply, UserUpgrade, WorkSummary
from locas_agent.runtime import ConsolidationMode, Runtime, check_parts
from locas_agent.serving.replies import ReplyRequest, Sampling
from locas_agent.serving.side_by_side import SideBySide
from locas_agent.study.strategies import StrategyFactory
from locas_agent.types import Dtype, Progress
from locas_agent.user import UserMemory
from locas_storage import (
    KeyProvider,
    MemoryStore,
    UserKey,
    open_store,
)


class AgentMemory(Runtime):
    """Memory for many users of one backbone.

    Construction starts no thread, opens no socket and writes nothing; the store is opened at the first verb.
    Verbs may be called from several threads.

    Args:
        backbone: the frozen language model.
        store: where journal, study sets and revisions live.
        config: everything that can be chosen.
        consolidation: "inline" learns what the policy wants learnt in the reply that set it off; "background" asks for
            it in the transaction that appends the turn, and a worker does it: `work`, or the command `locas-agent work`
            beside this process.
        strategy: makes the way to study of each consolidation, see `locas_agent.study.strategies`; that in which the
            backbone is best asked unless given. Workers in other processes need it too.

    Raises:
        ConfigurationError: the shape of a memory exceeds the backbone's or a store's bounds, `window.max_new_tokens`
            leaves no room for a question, `consolidation` is neither of the two, or a part is none.
    """

    @classmethod
    def load(
        cls,
        backbone: str | Path | Backbone = "tiny",
        store: str | Path | MemoryStore = "sqlite:///locas.db",
        config: LocasConfig | None = None,
        *,
        device: str | None = None,
        dtype: Dtype = "auto",
        consolidation: ConsolidationMode = "inline",
        key_provider: KeyProvider | None = None,
        strategy: StrategyFactory | None = None,
    ) -> Self:
        """Build the usual parts: a backbone by name, path or hub id, a store by SQLAlchemy URL or path.

        Args:
            backbone: "tiny" (bundled), "smollm2", a folder, a .gguf file, a hub id, or a ready `Backbone`.
            store: any SQLAlchemy URL, "sqlite://" for a database in memory, a `Path` of an SQLite file, or a ready
                store.
            config: everything that can be chosen.
            device: e.g. "cuda:0"; the first GPU if there is one, else the CPU.
            dtype: dtype of the backbone, see `Backbone.load`; memories are trained in fp32 whatever it is.
            consolidation: "inline" or "background", see `AgentMemory`.
            key_provider: with it the store keeps all content encrypted, see `locas_storage.SqlMemoryStore`; for a store
                given by URL.
            strategy: the way to study, see `AgentMemory`.

        Raises:
            ConfigurationError: a ready store was given beside a key provider or `config.store`, or what was given is no
                store, backbone or config.
        """
        check_parts(backbone, store, config, may_be_named=True)
        kept = (config or LocasConfig()).store
        if not isinstance(store, str | Path) and (key_provider is not None or kept != StoreSettings()):
            raise ConfigurationError(
                "key_provider or config.store was given beside a ready store: give it to the store when you make that"
            )
        ready = backbone if isinstance(backbone, Backbone) else Backbone.load(str(backbone), device=device, dtype=dtype)
        made = (
            open_store(store, key_provider=key_provider, **kept.model_dump())
            if isinstance(store, str | Path)
            else store
        )
        return cls(backbone=ready, store=made, config=config, consolidation=consolidation, strategy=strategy)

    @property
    def agents(self) -> tuple[Self]:
        """Itself: servers and adapters take one agent or a `Fleet` of several."""
        return (self,)

    def for_user(self, user: str, *, tenant: str = "default") -> UserMemory:
        """Return the handle of one user; cheap, and nothing is written until a verb is called."""
        return UserMemory(self, UserKey(tenant, user))

    def users(self, *, tenant: str | None = None) -> list[UserKey]:
        """Return everyone who has ever said something, of one tenant or of all."""
        return self.store.users(tenant)

    def reply_many(
        self,
        turns: Sequence[tuple[str | UserMemory, str]],
        *,
        max_new_tokens: int | None = None,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> list[Reply]:
        """Answer several users in one batch, each row with its own memory; both turns of each are journalled.

        Args:
            turns: (user or handle, text); a user may stand in it once.
            max_new_tokens: longest answer, in tokens.
            temperature: 0 is greedy.
            seed: of sampling.
        """
        if isinstance(turns, str) or not all(isinstance(one, tuple | list) and len(one) == 2 for one in turns):
            raise ConfigurationError(
                "turns: expected pairs of a user, or handle, and a text, such as [('ada', 'Hello.')]"
            )
        handles = self._handles([user for user, _ in turns])
        if len({handle.key for handle in handles}) != len(handles):
            raise ConfigurationError(
                "a user stands twice in one call of reply_many: its second turn needs the first answer; make two calls"
            )
        asked = [ReplyRequest(handle.key, text) for handle, (_, text) in zip(handles, turns, strict=True)]
        return self.answer(asked, Sampling(max_new_tokens, temperature, seed))

    def side_by_side(self, *, rows: int = 16) -> SideBySide:
        """Return what answers requests of many users in one running batch, each row with its own memory.

        For servers: requests join while others are being answered, and each leaves when its answer ends. The caller
        closes it before this object. A `with` block does.

        Args:
            rows: most answers that are written at once; further requests wait, first come, first served.

        Raises:
            ConfigurationError: there is not one row.
        """
        return SideBySide(self.chat, self.crews, rows=rows)

    def prefetch(self, users: Sequence[str | UserMemory]) -> None:
        """Read and check memories and bring them to the device, for users who are about to say something.

        Their next reply does not wait for that.

        Args:
            users: users of the tenant "default", or handles; whoever has no memory is passed over.
        """
        for handle in self._handles(users):
            self.memories.prefetch(handle.key)

    def consolidate_many(
        self,
        users: Sequence[str | UserMemory],
        *,
        flush: bool = False,
        progress: Progress | None = None,
        seed: int | None = None,
    ) -> list[Consolidation]:
        """Learn the overflow of several users side by side; each is admitted or refused by itself.

        Args:
            users: users of the tenant "default", or handles.
            flush: learn the turns that are still in the window too.
            progress: told of the stages.
            seed: overrides `training.seed`.
        """
        return self.consolidate_keys(
            [handle.key for handle in self._handles(users)], flush=flush, progress=progress, seed=seed
        )

    def work(
        self,
        *,
        stop: Event | None = None,
        once: bool = True,
        jobs_at_once: int = 8,
        lease_seconds: float = 300.0,
        poll_seconds: float = 2.0,
        progress: Progress | None = None,
    ) -> WorkSummary:
        """Drain queued consolidations and rebuilds, and forget turns whose time is over.

        Several processes may do so at once. Jobs of users whose memory belongs to another backbone are left to others.

        Args:
            stop: the call returns when it is set, and gives back what it has in progress.
            once: return as soon as nothing is due; else wait for more work until `stop` is set.
            jobs_at_once: jobs of similar length learnt side by side.
            lease_seconds: time after which another worker takes over from one that fell silent.
            poll_seconds: time between two looks at an empty queue.
            progress: told of the stages of each round.
        """
        worker = Worker(
            self.store,
            self.runner,
            jobs_at_once=jobs_at_once,
            lease_seconds=lease_seconds,
            poll_seconds=poll_seconds,
            progress=progress,
        )
        return worker.drain(stop=stop, once=once)

    def upgrade(
        self,
        users: Sequence[str | UserMemory] | None = None,
        *,
        former: Sequence[Backbone] = (),
        users_at_once: int = 8,
        stop: Event | None = None,
        progress: Progress | None = None,
    ) -> list[UserUpgrade]:
        """Learn users anew on this backbone with this configuration, and cut over each who recalls as much as before.

        The former memories serve meanwhile, from other processes or a `Fleet`, and turns go on being journalled; what
        comes during the move is learnt by the next consolidation. Each cut over is one transaction. Called again after
        a stop or a crash, the call passes over who was moved.

        Both memories are asked the study questions of either, each on its own backbone. Who would recall less by more
        than `admission.max_old_loss`, and who cannot be learnt anew, stays and is reported.

        Args:
            users: users of the tenant "default", or handles; everyone unless given.
            former: the backbones that users come from; not needed where only the shape of memories changes.
            users_at_once: users learnt side by side.
            stop: the call returns when it is set; who was not moved by then is as before.
            progress: told of the stages of each round, and of "users".

        Raises:
            ConfigurationError: a user stands in it twice, or nobody is to be learnt at once.
        """
        if users_at_once < 1:
            raise ConfigurationError(f"users_at_once: got {users_at_once}, expected 1 or more")
        return self._upgrade(former, users_at_once, stop, progress).run(self._chosen(users))

    def undo_upgrade(self, users: Sequence[str | UserMemory] | None = None) -> list[UserUpgrade]:
        """Take users who are on this backbone, with this configuration, back to the memory that they had before.

        Each in one transaction. What was learnt since the move waits to be learnt again; nothing is deleted.

        Args:
            users: as in `upgrade`.
        """
        return self._upgrade().undo(self._chosen(users))

    def _upgrade(
        self,
        former: Sequence[Backbone] = (),
        users_at_once: int = 8,
        stop: Event | None = None,
        progress: Progress | None = None,
    ) -> Upgrade:
        return Upgrade(
            self.store,
            self.engine,
            self.runner.learner,
            self.config,
            [Engine(one) for one in former],
            users_at_once,
            stop or Event(),
            progress,
        )

    def _chosen(self, users: Sequence[str | UserMemory] | None) -> list[UserKey]:
        keys = self.users() if users is None else [handle.key for handle in self._handles(users)]
        if len(set(keys)) < len(keys):
            raise ConfigurationError(f"{len(keys)} users were named, {len(set(keys))} different ones: name each once")
        return keys

    areply_many = to_async(reply_many, "answers")
    aprefetch = to_async(prefetch, "answers")
    aconsolidate_many = to_async(consolidate_many, "training")
    awork = to_async(work, None)
    aupgrade = to_async(upgrade, None)
    aundo_upgrade = to_async(undo_upgrade, "journal")
    ausers = to_async(users, "journal")

    def close(self) -> None:
        """Close the store's connections once the async calls under way have ended; cancel those not begun."""
        self.crews.close()
        self.store.close()

    aclose = to_async(close, None)

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
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
        raise ConfigurationError(
            "an AgentMemory holds a backbone and open connections and cannot be pickled: load one in each process"
        )

    def _handles(self, users: Sequence[str | UserMemory]) -> list[UserMemory]:
        if isinstance(users, str):
            raise ConfigurationError("users: got one str, expected a list of users or handles")
        return [user if isinstance(user, UserMemory) else self.for_user(user) for user in users]

"""`AgentMemory`, the entry object: a backbone, a store and a configuration, and the verbs that work on many users at once.

Knows all the others, and holds no logic of theirs: it reads turns and revisions, calls `window`, `policy` and `Learner`, and commits.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from itertools import pairwise
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import TYPE_CHECKING, Self

from locas_agent import pieces as pieces_of
from locas_agent import policy, window
from locas_agent.backbone import Backbone
from locas_agent.config import LocasConfig
from locas_agent.consolidation import Progress
from locas_agent.engine import Engine
from locas_agent.errors import ConfigurationError, TurnTooLong
from locas_agent.learner import Learner, Outcome, Task
from locas_agent.memory import LocasMemory, MemoryBatch
from locas_agent.prompting import conversation
from locas_agent.results import Consolidation, PromptTokens, Reply
from locas_agent.serialization import from_bytes, to_bytes
from locas_agent.study_records import from_record, to_draft
from locas_agent.twins import async_twin
from locas_storage import MemoryStore, Revision, RevisionDraft, Turn, TurnDraft, UserKey, UserState, open_store

if TYPE_CHECKING:
    from locas_agent.user import UserMemory

logger = logging.getLogger(__name__)

TURN_OVERHEAD_TOKENS = 16
"""Room kept in a prompt for session headers and the opening of the answer, in tokens."""
LOADED_MEMORIES = 256
"""Memories kept ready, the least recently used dropped first."""

try:
    CODE_VERSION = version("locas-agent")
except PackageNotFoundError:
    CODE_VERSION = "unknown"


class AgentMemory:
    """Memory for many users of one backbone.

    Construction starts no thread, opens no socket and writes nothing; the store is opened at the first verb.
    Verbs may be called from several threads.

    Args:
        backbone: the frozen language model.
        store: where journal, study sets and revisions live.
        config: everything that can be chosen.
    """

    def __init__(self, *, backbone: Backbone, store: MemoryStore, config: LocasConfig | None = None) -> None:
        self.backbone = backbone
        self.store = store
        self.config = config or LocasConfig()
        self.engine = Engine(backbone)
        self.learner = Learner(self.engine, self.config)
        self._loaded: OrderedDict[tuple[UserKey, int, str], LocasMemory] = OrderedDict()
        self._lock = Lock()
        if self.config.memory.width > backbone.ffn_width:
            raise ConfigurationError(
                f"memory.width is {self.config.memory.width}, wider than the backbone's FFN of {backbone.ffn_width} neurons: choose less"
            )

    @classmethod
    def load(
        cls,
        backbone: str | Path | Backbone = "tiny",
        store: str | MemoryStore = "sqlite:///locas.db",
        config: LocasConfig | None = None,
        *,
        device: str | None = None,
        dtype: str = "float32",
    ) -> Self:
        """Build the usual parts: a backbone by name, path or hub id, a store by SQLAlchemy URL.

        Args:
            backbone: "tiny" (bundled), a folder, a hub id, or a ready `Backbone`.
            store: any SQLAlchemy URL, "sqlite://" for a database in memory, or a ready store.
            config: everything that can be chosen.
            device: e.g. "cuda:0"; the first GPU if there is one, else the CPU.
            dtype: dtype of the backbone; memories are trained in fp32 whatever it is.
        """
        ready = backbone if isinstance(backbone, Backbone) else Backbone.load(str(backbone), device=device, dtype=dtype)  # type: ignore[arg-type]
        return cls(backbone=ready, store=open_store(store) if isinstance(store, str) else store, config=config)

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
        handles = [self._handle(user) for user, _ in turns]
        if len({handle.key for handle in handles}) != len(handles):
            raise ConfigurationError("a user stands twice in one call of reply_many: its second turn needs the first answer; make two calls")
        return self.answer([(handle.key, text, None) for handle, (_, text) in zip(handles, turns, strict=True)], max_new_tokens, temperature, seed)

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
        return self.consolidate_keys([self._handle(user).key for user in users], flush=flush, progress=progress, seed=seed)

    areply_many = async_twin(reply_many)
    aconsolidate_many = async_twin(consolidate_many)
    ausers = async_twin(users)

    def close(self) -> None:
        """Let go of the store's connections."""
        self.store.close()

    aclose = async_twin(close)

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close."""
        self.close()

    def __repr__(self) -> str:
        """Name the backbone, never a user."""
        return f"AgentMemory(backbone={self.backbone.name!r})"

    # What the handles share ------------------------------------------------------------------------------------------

    def _handle(self, user: str | UserMemory) -> UserMemory:
        return self.for_user(user) if isinstance(user, str) else user

    def append(self, key: UserKey, drafts: Sequence[TurnDraft]) -> list[Turn]:
        """Journal turns with their token counts.

        Raises:
            TurnTooLong: a turn does not fit into the backbone's context beside an answer; nothing was written.
        """
        counted = []
        limit = self.backbone.context_tokens - self.config.window.max_new_tokens - TURN_OVERHEAD_TOKENS
        for draft in drafts:
            text = f"{draft.name}: {draft.content}" if draft.name else draft.content
            tokens = len(self.backbone.encode_chat([{"role": draft.role, "content": text}], generation_prompt=False))
            if tokens > limit:
                raise TurnTooLong(
                    f"the turn has {tokens} tokens, the context of {self.backbone.name!r} leaves room for {limit}: split it into several turns"
                )
            counted.append(replace(draft, token_count=tokens))
        return self.store.append(key, counted)

    def layout(self, key: UserKey, state: UserState | None, *, max_new_tokens: int) -> window.Layout:
        """Sort the user's newest turns into window, overflow that fits, and the rest; reads no more turns than could fit."""
        room = self.backbone.context_tokens - max_new_tokens
        newest = self.store.turns(key, newest=max(8, self.backbone.context_tokens // 4))
        learnt = state.consolidated_seq if state else 0
        laid = window.lay_out(newest, consolidated_seq=learnt, window_tokens=self.config.window.window_tokens, room_tokens=room)
        # Session headers and the opening of the answer are not in the turns' counts: measure the whole prompt.
        while len(laid.prompt_turns) > 1 and (excess := len(self.backbone.encode_chat(conversation(laid.prompt_turns))) - room) > 0:
            laid = laid.shortened(excess)
        return laid

    def memory_of(self, key: UserKey, revision: Revision | None) -> LocasMemory | None:
        """Return a revision's memory, from the cache or checked from the store; the cache key holds user, revision and fingerprint.

        Raises:
            CorruptPayload: the bytes are not those that were saved.
            IncompatibleMemory: it belongs to another backbone.
        """
        if revision is None or not revision.has_payload:
            return None
        cached = (key, revision.number, self.backbone.fingerprint)
        with self._lock:
            if cached in self._loaded:
                self._loaded.move_to_end(cached)
                return self._loaded[cached]
        memory = from_bytes(self.store.payload(key, revision.number), expect_fingerprint=self.backbone.fingerprint)
        with self._lock:
            self._loaded[cached] = memory
            while len(self._loaded) > LOADED_MEMORIES:
                self._loaded.popitem(last=False)
        return memory

    def batch_of(self, memories: Sequence[LocasMemory | None]) -> MemoryBatch | None:
        """Return the memories as one forward takes them; None when nobody has any."""
        return MemoryBatch.of(memories, self.backbone) if any(memory is not None for memory in memories) else None

    def answer(self, asked: Sequence[tuple[UserKey, str, str | None]], max_new_tokens: int | None, temperature: float, seed: int) -> list[Reply]:
        """Journal each user's turn, answer all in one batch, journal the answers, and consolidate whoever is due."""
        length = max_new_tokens or self.config.window.max_new_tokens
        said = [self.append(key, [TurnDraft("user", text, key=idem)])[0] for key, text, idem in asked]
        states = [self.store.state(key) for key, _, _ in asked]
        layouts = [self.layout(key, state, max_new_tokens=length) for (key, _, _), state in zip(asked, states, strict=True)]
        revisions = [self.store.revision(key) for key, _, _ in asked]
        memories = [self.memory_of(key, revision) for (key, _, _), revision in zip(asked, revisions, strict=True)]
        generations = self.engine.generate(
            [self.backbone.encode_chat(conversation(layout.prompt_turns)) for layout in layouts],
            memory=self.batch_of(memories), max_new_tokens=length, temperature=temperature, seed=seed,
        )  # fmt: skip
        replies = []
        for (key, _, idem), turn, layout, revision, generation in zip(asked, said, layouts, revisions, generations, strict=True):
            draft = TurnDraft("assistant", self._storable(generation.ids), session=turn.session, key=f"{idem}:answer" if idem else None)
            replies.append(self.reply_of(self.append(key, [draft])[0], layout, revision))
        return [self._with_consolidation(key, reply) for (key, _, _), reply in zip(asked, replies, strict=True)]

    def stream_answer(
        self, key: UserKey, text: str, idem: str | None, max_new_tokens: int | None, temperature: float, seed: int, finish: list[Reply]
    ) -> Iterator[str]:
        """Journal the user's turn, yield the answer as it is written, then journal it and put the reply into `finish`."""
        length = max_new_tokens or self.config.window.max_new_tokens
        turn = self.append(key, [TurnDraft("user", text, key=idem)])[0]
        layout = self.layout(key, self.store.state(key), max_new_tokens=length)
        revision = self.store.revision(key)
        memory = self.batch_of([self.memory_of(key, revision)])
        prompt = self.backbone.encode_chat(conversation(layout.prompt_turns))
        ids: list[int] = []
        shown = ""
        for token in self.engine.stream(prompt, memory=memory, max_new_tokens=length, temperature=temperature, seed=seed):
            ids.append(token)
            whole = self.backbone.decode(ids)
            if not whole.endswith("\ufffd"):  # a character may span several tokens
                yield whole[len(shown) :]
                shown = whole
        draft = TurnDraft("assistant", self._storable(ids), session=turn.session, key=f"{idem}:answer" if idem else None)
        finish.append(self._with_consolidation(key, self.reply_of(self.append(key, [draft])[0], layout, revision)))

    def _storable(self, ids: Sequence[int]) -> str:
        """Return an answer as text a database takes: a weak backbone may write NUL characters."""
        return self.backbone.decode(ids).replace("\x00", "").strip()

    @staticmethod
    def refuse_background(wait: bool) -> None:
        """Refuse what needs the queue, which is not built yet."""
        if not wait:
            raise ConfigurationError(
                "wait=False needs the consolidation queue, which this version does not have: call consolidate() in a thread of yours"
            )

    def reply_of(self, turn: Turn, layout: window.Layout, revision: Revision | None) -> Reply:
        """Describe an answer that has been journalled."""
        tokens = PromptTokens(sum(t.token_count for t in layout.window), sum(t.token_count for t in layout.overflow))
        return Reply(
            text=turn.content, turn=turn, revision=revision.number if revision else None, used_memory=revision is not None and revision.has_payload,
            why_no_memory=_why_none(revision),
            pending_turns=layout.pending_turns, unseen_turns=layout.unseen_turns, prompt_tokens=tokens,
        )  # fmt: skip

    def _with_consolidation(self, key: UserKey, reply: Reply) -> Reply:
        if not self.due(key).due:
            return reply
        return replace(reply, consolidation=self.consolidate_keys([key])[0])

    def due(self, key: UserKey) -> policy.Decision:
        """Ask the policy whether this user's overflow is to be learnt now; turns of a refused attempt are not read again."""
        state = self.store.state(key)
        if state is None:
            return policy.decide(policy.Pending(0, 0, 0.0, 0.0), self.config.policy)
        refusals = [entry.facts for entry in self.store.audit(key) if entry.action == "refuse" and entry.facts["to_seq"] > state.consolidated_seq]
        refused_seq, refused_tokens = (refusals[-1]["to_seq"], refusals[-1]["tokens"]) if refusals else (0, 0)
        waiting = self.store.turns(key, after=max(state.consolidated_seq, refused_seq))
        start = window.first_of_window(waiting, self.config.window.window_tokens) if waiting else 0
        if start == 0:
            return policy.decide(policy.Pending(0, 0, 0.0, 0.0), self.config.policy)
        overflow, newest = waiting[:start], waiting[-1]
        gap = max((later.at - earlier.at).total_seconds() for earlier, later in pairwise([*overflow, newest]))
        pending = policy.Pending(
            turns=len(overflow), tokens=refused_tokens + sum(turn.token_count for turn in overflow),
            oldest_age_seconds=(newest.created_at - overflow[0].created_at).total_seconds(), gap_seconds=gap, refused_tokens=refused_tokens,
        )  # fmt: skip
        return policy.decide(pending, self.config.policy)

    def overflow(self, key: UserKey, *, flush: bool) -> list[Turn]:
        """Return the turns that left the window and are not learnt; with `flush` all that are not learnt."""
        state = self.store.state(key)
        if state is None:
            return []
        waiting = self.store.turns(key, after=state.consolidated_seq)
        if flush or not waiting:
            return waiting
        return waiting[: window.first_of_window(waiting, self.config.window.window_tokens)]

    def consolidate_keys(
        self, keys: Sequence[UserKey], *, flush: bool = False, progress: Progress | None = None, seed: int | None = None
    ) -> list[Consolidation]:
        """Learn several users' overflow and commit each admitted memory in one transaction of its own."""
        overflows = [self.overflow(key, flush=flush) for key in keys]
        busy = [index for index, overflow in enumerate(overflows) if overflow]
        heads = {index: self.store.revision(keys[index]) for index in busy}
        tasks = [self._task(keys[index], heads[index], overflows[index]) for index in busy]
        outcomes = dict(zip(busy, self.learner.learn(tasks, seed=seed, progress=progress) if tasks else [], strict=True))
        return [
            self._publish(keys[index], heads[index], overflows[index], outcomes[index]) if index in outcomes
            else Consolidation("nothing", "no overflow", "every turn is learnt or still in the window", None, 0)
            for index in range(len(keys))
        ]  # fmt: skip

    def _task(self, key: UserKey, head: Revision | None, overflow: Sequence[Turn]) -> Task:
        limit = self.learner.piece_tokens
        cut = pieces_of.cut_pieces(
            overflow, lambda messages: len(self.backbone.encode_chat(messages, generation_prompt=False)), max_tokens=limit
        )  # fmt: skip
        earlier = tuple(from_record(record) for record in self.store.study_items(key))
        return Task(tuple(cut), earlier, self.memory_of(key, head))

    def _publish(self, key: UserKey, head: Revision | None, overflow: Sequence[Turn], outcome: Outcome) -> Consolidation:
        """Commit an admitted memory; record a refused one. A crash before the commit changes nothing."""
        admission = outcome.admission
        if not admission.admitted:
            facts = {
                "to_seq": overflow[-1].seq,
                "tokens": sum(t.token_count for t in overflow),
                "reason": admission.reason,
                "figures": outcome.figures,
            }
            self.store.record(key, "refuse", facts)
            logger.info("consolidation refused", extra={"action": "refuse", "reason": admission.reason, "turns": len(overflow)})
            return Consolidation("refused", admission.reason, admission.detail, None, len(overflow), outcome.figures)
        draft = RevisionDraft(
            parent=head.number if head else 0, fingerprint=self.backbone.fingerprint, config_hash=self.config.digest(),
            code_version=CODE_VERSION, seed=int(outcome.figures["seed"]), from_seq=overflow[0].seq, to_seq=overflow[-1].seq,
            payload=to_bytes(outcome.memory), metrics=outcome.figures | {"config": self.config.model_dump(mode="json")},
            new_items=tuple(to_draft(item) for item in outcome.study_set.items), retired_items=tuple(sorted(outcome.study_set.retired)),
        )  # fmt: skip
        revision = self.store.commit(key, draft)
        logger.info("revision saved", extra={"action": "commit", "revision": revision.number, "turns": len(overflow)})
        return Consolidation("admitted", admission.reason, admission.detail, revision, len(overflow), outcome.figures)


def _why_none(revision: Revision | None) -> str | None:
    if revision is None:
        return "nothing has been consolidated yet"
    return None if revision.has_payload else f"revision {revision.number} went back to the time before the first memory"

"""What is kept ready of each user: the memory of the current revision, checked once, and what was last run with it.

Both are kept under the user, the digest of the memory's bytes and the backbone's fingerprint: whatever happens to the
user's revisions, another payload is another memory.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Generic, TypeVar
from weakref import WeakKeyDictionary

from locas_agent.backbone import Backbone
from locas_agent.errors import RevisionNotFound
from locas_agent.inference.prefix_cache import CachedPrefix, PrefixSlot
from locas_agent.memory import LocasMemory, MemoryBatch
from locas_agent.memory.batch import ReadyRows, ready_rows
from locas_agent.memory.placement import DEEP_FROM, LAST_LAYER
from locas_agent.memory.serialization import from_bytes
from locas_storage import MemoryStore, Revision, UserKey

V = TypeVar("V")
Key = tuple[UserKey, str, str]
"""User, digest of the memory's payload ("" without one), fingerprint of the backbone."""


@dataclass(frozen=True, slots=True)
class Counts:
    """What became of what was asked for since the start, and what is kept now."""

    hits: int
    evictions: int
    entries: int
    n_bytes: int


class LruCache(Generic[V]):
    """A cache with a byte budget.

    May be called from several threads; values are handed out as they are, so they must not change.
    """

    def __init__(self) -> None:
        self._entries: OrderedDict[Key, tuple[V, int]] = OrderedDict()
        self._hits = self._evictions = self._bytes = 0
        self._lock = Lock()

    @property
    def counts(self) -> Counts:
        """Count what was found, dropped for want of room, and is kept."""
        with self._lock:
            return Counts(self._hits, self._evictions, len(self._entries), self._bytes)

    def get(self, key: Key) -> V | None:
        """Return what is kept under a key, which is now the most recently used."""
        with self._lock:
            if key not in self._entries:
                return None
            self._hits += 1
            self._entries.move_to_end(key)
            return self._entries[key][0]

    def put(self, key: Key, value: V, *, n_bytes: int, limit: int) -> None:
        """Keep a value in place of what stood there.

        Others go until all take at most `limit` bytes, but never this one.
        """
        with self._lock:
            self._remove(key)
            self._entries[key] = (value, n_bytes)
            self._bytes += n_bytes
            while self._bytes > limit and len(self._entries) > 1:
                self._evictions += 1
                self._remove(next(iter(self._entries)))

    def drop(self, user: UserKey, *, but: Key | None = None) -> None:
        """Let go of whatever is kept of a user, one entry excepted."""
        with self._lock:
            for key in [key for key in self._entries if key[0] == user and key != but]:
                self._remove(key)

    def _remove(self, key: Key) -> None:
        """Let go of one entry, if it is kept; the lock is held."""
        if (entry := self._entries.pop(key, None)) is not None:
            self._bytes -= entry[1]


LOADED_BYTES = 1 << 30
"""What memories kept ready may take, as they are stored and as a forward takes them together; the least recently used
is dropped first. 32 users of a 1.7B backbone with 32 slots beside all layers, some 3,600 of the bundled one."""
PAST_BYTES = 1 << 30
"""What keys and values of conversations may take, the least recently used dropped first: nine users' 1,024 tokens with
Qwen3-0.6B in bf16, some 600 with the bundled backbone."""
DEEP_CERTAINTY = 0.5
"""How sure a memory beside several layers of a deep backbone has to be of the first token of an answer to give it,
unless the settings say otherwise. Origin: `docs/decisions.md`, certainty."""
_TRIES = 3
"""A current revision may be purged between the two reads of it, by a forgetting; the next one is then read."""


@dataclass(frozen=True, slots=True)
class CacheInfo:
    """What became of the memories that were asked for since the start, and what is kept now."""

    hits: int = 0
    """Memories that were found here."""
    misses: int = 0
    """Memories that were read from the store."""
    evictions: int = 0
    """Memories that were dropped for want of room."""
    memories: int = 0
    """Memories that are kept."""
    memory_bytes: int = 0
    """What they take."""
    prefixes: int = 0
    """Conversations whose keys and values are kept."""
    prefix_bytes: int = 0
    """What these take."""


class MemoryCache:
    """The memories of many users on one backbone, and the pasts of their conversations.

    May be called from several threads.

    A memory's rows are clipped, cast and brought to the device once, at its first forward, and kept there as long as
    the memory is.
    """

    def __init__(self, backbone: Backbone, store: MemoryStore, *, least_certainty: float | None = None) -> None:
        """Take the parts.

        Args:
            backbone: the frozen language model.
            store: where revisions are.
            least_certainty: see `LocasConfig.least_certainty`.
        """
        self._backbone = backbone
        self._store = store
        self._least_certainty = least_certainty
        self._loaded: LruCache[LocasMemory] = LruCache()
        self._pasts: LruCache[CachedPrefix] = LruCache()
        self._ready: WeakKeyDictionary[LocasMemory, ReadyRows] = WeakKeyDictionary()
        self._misses = 0
        self._lock = Lock()

    def cache_info(self) -> CacheInfo:
        """Count what was found here, read from the store and dropped for want of room."""
        memories, pasts = self._loaded.counts, self._pasts.counts
        return CacheInfo(
            memories.hits,
            self._misses,
            memories.evictions,
            memories.entries,
            memories.n_bytes,
            pasts.entries,
            pasts.n_bytes,
        )

    def current(self, key: UserKey) -> tuple[Revision | None, LocasMemory | None]:
        """Return a user's current revision and its memory; turns whose time is over are forgotten first.

        Raises:
            CorruptPayload: the bytes are not those that were saved.
            IncompatibleMemory: it belongs to another backbone.
        """
        if self._store.expire(key):
            self.drop(key)
        for _ in range(_TRIES - 1):
            revision = self._store.revision(key)
            try:
                return revision, self.of(key, revision)
            except RevisionNotFound:
                continue
        revision = self._store.revision(key)
        return revision, self.of(key, revision)

    def of(self, key: UserKey, revision: Revision | None) -> LocasMemory | None:
        """Return a revision's memory, from the cache or checked from the store; None where it stands for no memory.

        Raises:
            CorruptPayload: the bytes are not those that were saved.
            IncompatibleMemory: it belongs to another backbone.
            RevisionNotFound: it was purged or pruned meanwhile.
        """
        if revision is None or not revision.has_payload:
            return None
        cached = self._key(key, revision)
        if (found := self._loaded.get(cached)) is not None:
            return found
        memory = from_bytes(self._store.payload(key, revision.number), expect_fingerprint=self._backbone.fingerprint)
        with self._lock:
            self._misses += 1
        # as it is stored, and its rows on the device, whether they are there already or not
        size = memory.parameter_count * (memory.slab.element_size() + self._backbone.dtype.itemsize)
        self._loaded.put(cached, memory, n_bytes=size, limit=LOADED_BYTES)
        return memory

    def prefetch(self, key: UserKey) -> None:
        """Bring a user's memory to the device ahead of the reply that will ask for it; raises as `current` does."""
        memory = self.current(key)[1]
        if memory is not None:
            self._rows(memory)

    def batch(self, memories: Sequence[LocasMemory | None]) -> MemoryBatch | None:
        """Return memories as one forward takes them; None when nobody has any."""
        if all(memory is None for memory in memories):
            return None
        return MemoryBatch.stacked(
            [None if memory is None else self._rows(memory) for memory in memories], self._backbone
        )

    def _certainty_of(self, memory: LocasMemory) -> float:
        """How sure a memory has to be of an answer to give it."""
        if self._least_certainty is not None:
            return self._least_certainty
        is_deep = self._backbone.n_layers >= DEEP_FROM and memory.layers != LAST_LAYER
        return DEEP_CERTAINTY if is_deep else 0.0

    def drop(self, key: UserKey) -> None:
        """Let go of whatever is kept of a user."""
        self._loaded.drop(key)
        self._pasts.drop(key)

    def past(self, key: UserKey, revision: Revision | None) -> PrefixSlot:
        """Return what was last run of a user's conversation with this very memory.

        What was run with another one is let go of.
        """
        cached = self._key(key, revision)
        self._pasts.drop(key, but=cached)
        return PrefixSlot(self._pasts.get(cached))

    def keep_past(self, key: UserKey, revision: Revision | None, kept: PrefixSlot) -> None:
        """Keep what was run for the user's next turn."""
        if kept.past is not None:
            self._pasts.put(self._key(key, revision), kept.past, n_bytes=kept.past.n_bytes, limit=PAST_BYTES)

    def _key(self, key: UserKey, revision: Revision | None) -> Key:
        digest = str(revision.payload_sha256) if revision is not None and revision.has_payload else ""
        return key, digest, self._backbone.fingerprint

    def _rows(self, memory: LocasMemory) -> ReadyRows:
        """The memory's rows as a forward takes them."""
        with self._lock:
            ready = self._ready.get(memory)
        if ready is None:
            ready = ready_rows(memory, self._backbone)._replace(certainty=self._certainty_of(memory))
            with self._lock:
                self._ready[memory] = ready
        return ready

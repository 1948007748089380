"""Memories kept ready: from a user's current revision to the memory a forward takes, checked once.

Knows no journal and no training. A memory is kept under the user, the digest of its bytes and the backbone's fingerprint: whatever
happens to the user's revisions, another payload is another memory.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock
from weakref import WeakKeyDictionary

from torch import Tensor

from locas_agent.backbone import Backbone
from locas_agent.errors import RevisionNotFound
from locas_agent.memory import LocasMemory, MemoryBatch, ready_rows
from locas_agent.serialization import from_bytes
from locas_storage import MemoryStore, Revision, UserKey

LOADED_BYTES = 1 << 30
"""What memories kept ready may take, as they are stored and as a forward takes them together; the least recently used is dropped first. 32 users
of a 1.7B backbone with 32 slots beside all layers, some 3,600 of the bundled one."""
_TRIES = 3
"""A current revision may be purged between the two reads of it, by a forgetting; the next one is then read."""


@dataclass(frozen=True, slots=True)
class Loads:
    """What became of the memories that were asked for since the start, and what is kept now."""

    found: int = 0
    read: int = 0
    dropped: int = 0
    memories: int = 0
    n_bytes: int = 0


class LoadedMemories:
    """The memories of many users on one backbone. May be called from several threads.

    A memory's rows are clipped, cast and brought to the device once, at its first forward, and kept there as long as the memory is.
    """

    def __init__(self, backbone: Backbone, store: MemoryStore) -> None:
        self._backbone = backbone
        self._store = store
        self._loaded: OrderedDict[tuple[UserKey, str, str], LocasMemory] = OrderedDict()
        self._ready: WeakKeyDictionary[LocasMemory, Tensor] = WeakKeyDictionary()
        self._found = self._read = self._dropped = self._bytes = 0
        self._lock = Lock()

    @property
    def loads(self) -> Loads:
        """Count what was found here, read from the store and dropped for want of room."""
        with self._lock:
            return Loads(self._found, self._read, self._dropped, len(self._loaded), self._bytes)

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
        cached = (key, str(revision.payload_sha256), self._backbone.fingerprint)
        with self._lock:
            if cached in self._loaded:
                self._found += 1
                self._loaded.move_to_end(cached)
                return self._loaded[cached]
        memory = from_bytes(self._store.payload(key, revision.number), expect_fingerprint=self._backbone.fingerprint)
        with self._lock:
            self._read += 1
            self._forget(cached)  # another thread may have read it meanwhile
            self._loaded[cached] = memory
            self._bytes += self._size(memory)
            while self._bytes > LOADED_BYTES and len(self._loaded) > 1:
                self._dropped += 1
                self._forget(next(iter(self._loaded)))
        return memory

    def batch(self, memories: Sequence[LocasMemory | None]) -> MemoryBatch | None:
        """Return memories as one forward takes them; None when nobody has any."""
        if all(memory is None for memory in memories):
            return None
        return MemoryBatch.stacked([None if memory is None else self._rows(memory) for memory in memories], self._backbone)

    def drop(self, key: UserKey) -> None:
        """Let go of whatever is kept of a user."""
        with self._lock:
            for cached in [cached for cached in self._loaded if cached[0] == key]:
                self._forget(cached)

    def _rows(self, memory: LocasMemory) -> Tensor:
        """The memory's rows as a forward takes them, shape (L, 3, W, D)."""
        with self._lock:
            ready = self._ready.get(memory)
        if ready is None:
            ready = ready_rows(memory, self._backbone)
            with self._lock:
                self._ready[memory] = ready
        return ready

    def _size(self, memory: LocasMemory) -> int:
        """Bytes of a memory, those of its rows on the device included whether they are there already or not."""
        return memory.parameter_count * (memory.slab.element_size() + self._backbone.dtype.itemsize)

    def _forget(self, cached: tuple[UserKey, str, str]) -> None:
        """Let go of one memory, if it is kept; the lock is held."""
        if (memory := self._loaded.pop(cached, None)) is not None:
            self._bytes -= self._size(memory)

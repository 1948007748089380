"""Memories kept ready: from a user's current revision to the memory a forward takes, checked once.

Knows no journal and no training. A memory is kept under the user, the digest of its bytes and the backbone's fingerprint: whatever
happens to the user's revisions, another payload is another memory.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from threading import Lock

from locas_agent.backbone import Backbone
from locas_agent.errors import RevisionNotFound
from locas_agent.memory import LocasMemory, MemoryBatch
from locas_agent.serialization import from_bytes
from locas_storage import MemoryStore, Revision, UserKey

LOADED_MEMORIES = 256
"""Memories kept ready, the least recently used dropped first."""
_TRIES = 3
"""A current revision may be purged between the two reads of it, by a forgetting; the next one is then read."""


class LoadedMemories:
    """The memories of many users on one backbone. May be called from several threads."""

    def __init__(self, backbone: Backbone, store: MemoryStore) -> None:
        self._backbone = backbone
        self._store = store
        self._loaded: OrderedDict[tuple[UserKey, str, str], LocasMemory] = OrderedDict()
        self._lock = Lock()

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
                self._loaded.move_to_end(cached)
                return self._loaded[cached]
        memory = from_bytes(self._store.payload(key, revision.number), expect_fingerprint=self._backbone.fingerprint)
        with self._lock:
            self._loaded[cached] = memory
            while len(self._loaded) > LOADED_MEMORIES:
                self._loaded.popitem(last=False)
        return memory

    def batch(self, memories: Sequence[LocasMemory | None]) -> MemoryBatch | None:
        """Return memories as one forward takes them; None when nobody has any."""
        return MemoryBatch.of(memories, self._backbone) if any(memory is not None for memory in memories) else None

    def drop(self, key: UserKey) -> None:
        """Let go of whatever is kept of a user."""
        with self._lock:
            for cached in [cached for cached in self._loaded if cached[0] == key]:
                del self._loaded[cached]

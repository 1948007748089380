"""`ServedMemories`: the adapters of one server, written from the store when they are first asked for.

It knows nothing of vLLM: a name goes in, the folder of an adapter comes out.
"""

from __future__ import annotations

import logging
import shutil
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from threading import Lock

from locas_agent.backbone import Backbone
from locas_agent.errors import CorruptPayload, RevisionNotFound
from locas_agent.exports.lora import blank_adapter, write_lora
from locas_agent.exports.manifest import read_beside
from locas_agent.exports.padded import outline_of_padded
from locas_agent.memory.serialization import from_bytes
from locas_storage import InvalidTurn, MemoryStore, Revision, UserKey
from locas_vllm.names import MemoryName
from locas_vllm.process_folder import ProcessFolder

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Served:
    """One adapter that was handed out."""

    key: UserKey
    name: MemoryName
    folder: Path


class ServedMemories:
    """The memories of one tenant as folders of adapters. May be called from several threads.

    An adapter is written for one revision of one user on one padded backbone, under a path of its own, and never
    changed but by `sweep`, which empties it when that revision is gone. The server may read a folder again as long as
    it runs, so it stays; what is in it then changes nothing.

    Args:
        store: where the memories are.
        tenant: whose users may be named.
        parent: folder in which this process puts its own, at the first adapter.
    """

    def __init__(self, store: MemoryStore, tenant: str, parent: Path) -> None:
        self._store = store
        self._tenant = tenant
        self._parent = parent
        self._own: ProcessFolder | None = None
        self._served: dict[Path, _Served] = {}
        self._lock = Lock()
        self._outline = cache(outline_of_padded)

    def folder_of(self, base: Path, text: str) -> Path | None:
        """Return the folder of the adapter that a name stands for; None where it stands for none.

        A name stands for none if it is no `user@revision`, or if that revision is unknown, was forgotten, erased or
        pruned, or belongs to another backbone or tenant.

        Args:
            base: the padded backbone that is being served.
            text: the name.

        Raises:
            ExchangeError: `base` is no padded backbone, or too narrow for this memory.
            CorruptPayload: the store's bytes are not those that were saved.
        """
        name = MemoryName.parse(text)
        key = None if name is None else self._key(name.user)
        if name is None or key is None:
            return None
        backbone = self._outline(base)
        self._store.expire(key)
        if (revision := self._revision(key, name)) is None or revision.fingerprint != backbone.fingerprint:
            return None
        with self._lock:
            served = _Served(key, name, self._place(key, name, revision))
            if not _is_whole(served.folder, name):
                self._write(served, backbone, base)
            self._served[served.folder] = served
        return None if self._emptied(served) else served.folder

    def sweep(self) -> int:
        """Empty the adapters of revisions that are gone, and return how many those were."""
        return sum(self._emptied(served) for served in list(self._served.values()))

    def close(self) -> None:
        """Remove all adapters of this process, and close the store."""
        if self._own is not None:
            self._own.close()
        self._store.close()

    def _key(self, user: str) -> UserKey | None:
        try:
            return UserKey(self._tenant, user)
        except InvalidTurn:
            return None  # no user can have this name

    def _revision(self, key: UserKey, name: MemoryName) -> Revision | None:
        """The revision that a name stands for, if its bytes are there."""
        state = self._store.state(key)
        if state is None or state.epoch != name.life:
            return None
        try:
            revision = self._store.revision(key, name.revision)
        except RevisionNotFound:
            return None
        return revision if revision is not None and revision.has_payload else None

    def _place(self, key: UserKey, name: MemoryName, revision: Revision) -> Path:
        """A path for this user's revision and these bytes alone; the lock is held."""
        if self._own is None:
            self._own = ProcessFolder(self._parent)
        return self._own.path / f"{key.digest}-{name.life}-{name.revision}-{str(revision.payload_sha256)[:16]}"

    def _write(self, served: _Served, backbone: Backbone, base: Path) -> None:
        """Write an adapter, in the place of one that is damaged; the lock is held."""
        shutil.rmtree(served.folder, ignore_errors=True)
        payload = self._store.payload(served.key, served.name.revision)
        memory = from_bytes(payload, expect_fingerprint=backbone.fingerprint)
        write_lora(backbone, memory, served.folder, base=base, revision=served.name.revision)
        logger.info(
            "adapter written",
            extra={"action": "export", "revision": served.name.revision, "user": served.key.short_hash},
        )

    def _emptied(self, served: _Served) -> bool:
        """Empty an adapter whose revision is gone by now."""
        if self._revision(served.key, served.name) is not None:
            return False
        with self._lock:
            if self._served.pop(served.folder, None) is None:
                return True
            blank_adapter(served.folder)
        logger.info(
            "adapter emptied",
            extra={"action": "forget", "revision": served.name.revision, "user": served.key.short_hash},
        )
        return True


def _is_whole(folder: Path, name: MemoryName) -> bool:
    """Whether the adapter of a revision lies there, byte for byte as it was written."""
    if not folder.is_dir():
        return False
    try:
        manifest = read_beside(folder)
    except CorruptPayload:
        return False
    return (manifest.form, manifest.revision) == ("lora", name.revision)

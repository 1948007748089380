"""Export and import of one user's memory: whose it is, which revision, and that the audit trail says so."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import get_args

from locas_agent.backbone import Backbone
from locas_agent.config import LocasConfig
from locas_agent.errors import ConfigurationError, ExchangeError, RevisionNotFound
from locas_agent.exports.dense import write_dense
from locas_agent.exports.lora import write_lora
from locas_agent.exports.manifest import Form
from locas_agent.exports.places import check_free
from locas_agent.exports.portable import write_portable
from locas_agent.exports.reading import read_export
from locas_agent.memory.serialization import to_bytes
from locas_agent.memory_cache import MemoryCache
from locas_agent.types import CODE_VERSION
from locas_storage import IMPORTED, ConsolidationMetrics, MemoryStore, Revision, RevisionDraft, Turn, TurnDraft, UserKey

logger = logging.getLogger(__name__)

MARKER = "What was said before is known from elsewhere."
"""Text of the turn that stands for an imported memory."""


class MemoryFiles:
    """Writes users' memories to files and takes them from there."""

    def __init__(
        self,
        *,
        backbone: Backbone,
        store: MemoryStore,
        memories: MemoryCache,
        config: LocasConfig,
        append: Callable[[UserKey, Sequence[TurnDraft]], list[Turn]],
    ) -> None:
        self._backbone = backbone
        self._store = store
        self._memories = memories
        self._config = config
        self._append = append

    def export(self, key: UserKey, path: str | Path, *, form: Form, multiple: int, base: str | Path | None) -> Path:
        """Write a user's current memory.

        The audit trail is told before the first byte, so that no export goes unrecorded.

        Raises:
            RevisionNotFound: the user has no memory.
            ExchangeError: the form or the place refuses it.
            ConfigurationError: unknown form, or an option that it has no use for.
        """
        if form not in get_args(Form):
            raise ConfigurationError(f"a memory is exported as one of {', '.join(get_args(Form))}, got {form!r}")
        if (base is not None and form != "lora") or (multiple != 1 and form == "memory"):
            raise ConfigurationError(
                f"form={form!r} has no use for {'base' if base is not None else 'multiple'}: leave it out"
            )
        place = check_free(path)
        revision, memory = self._memories.current(key)
        if revision is None or memory is None:
            raise RevisionNotFound(f"user #{key.short_hash} has no memory to export; consolidate first")
        self._store.record(
            key, "export", {"form": form, "revision": revision.number, "payload_sha256": revision.payload_sha256}
        )
        match form:
            case "dense":
                write_dense(self._backbone, memory, place, multiple=multiple, revision=revision.number)
            case "lora":
                write_lora(self._backbone, memory, place, base=base, multiple=multiple, revision=revision.number)
            case "memory":
                write_portable(self._backbone, memory, place, revision=revision.number)
        logger.info(
            "memory exported",
            extra={"action": "export", "form": form, "revision": revision.number, "user": key.short_hash},
        )
        return place

    def import_memory(self, key: UserKey, path: str | Path) -> Revision:
        """Make an exported memory the first one of a user whose journal is empty.

        It was learnt from turns that this journal does not have. One turn stands for them, so that it can be forgotten
        like any other, and what grew from it with it. Called again after a crash it goes on where it stopped, and after
        a success it changes nothing.

        Raises:
            ExchangeError: the user has turns already, or nothing is at `path`.
            CorruptPayload: it is no export, or was altered.
            IncompatibleMemory: it belongs to another backbone.
            UserErased: `reinstate` comes first.
        """
        manifest, memory = read_export(self._backbone, path)
        digest = hashlib.sha256(to_bytes(memory)).hexdigest()
        marker = TurnDraft("system", MARKER, idempotency_key=f"import:{digest}", trust=IMPORTED)
        state = self._store.state(key)
        if (
            state is not None
            and state.turns > 0
            and [turn.idempotency_key for turn in self._store.turns(key)] != [marker.idempotency_key]
        ):
            raise ExchangeError(
                f"user #{key.short_hash} has {state.turns} turns; a memory is imported into an empty journal only, "
                "since two cannot be made one: "
                "name a new user"
            )
        turn = self._append(key, [marker])[0]
        state = self._store.state(key)
        assert state is not None
        if state.consolidated_seq >= turn.seq and (head := self._store.revision(key)) is not None:
            return head
        imported = {"form": manifest.form, "revision": manifest.revision, "created_at": manifest.created_at.isoformat()}
        draft = RevisionDraft(
            parent=state.head,
            fingerprint=self._backbone.fingerprint,
            config_hash=self._config.digest(),
            code_version=CODE_VERSION,
            seed=0,
            from_seq=turn.seq,
            to_seq=turn.seq,
            payload=to_bytes(memory, dtype=self._config.memory.stored_as),
            metrics=ConsolidationMetrics(imported=imported),
            fence=state.fence,
        )
        revision = self._store.commit(key, draft)
        self._store.record(
            key, "import", imported | {"number": revision.number, "payload_sha256": revision.payload_sha256}
        )
        logger.info(
            "memory imported",
            extra={"action": "import", "form": manifest.form, "revision": revision.number, "user": key.short_hash},
        )
        return revision

"""Everything a store has of one person, as one archive that is read without this package.

A store is all it takes: it is made on a machine without a model. Of an encrypted store the content is in the clear.
"""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from locas_agent.errors import RevisionConflict, RevisionNotFound, UnknownUser
from locas_agent.exports.places import check_free, placed
from locas_agent.types import CODE_VERSION
from locas_storage import ConsolidationMetrics, MemoryStore, Turn, UserKey, UserState

logger = logging.getLogger(__name__)

FORMAT_VERSION = 1
TURNS_AT_ONCE = 1000
ATTEMPTS = 3
"""How often an archive is begun anew because something was forgotten while it was written."""

README = """\
Everything that is kept of one person. Personal data: store, pass on and delete it as you would the conversations.
Forgetting and erasing do not reach it.

user.json          who, and how much there is
turns.jsonl        what was said, one turn a line, oldest first
study_items.jsonl  what was asked about it to teach the memory, and the answers; "retired_rev": not in force any more
revisions.jsonl    every saved memory: what it was made from and what was measured
memories/N.safetensors  the numbers of revision N, where they are still kept
audit.jsonl        what was done: exports, forgettings, refusals; no content
jobs.json          what waits to be learnt
api_keys.json      keys of a server that stand for this person; not the secrets, which nobody keeps
manifest.json      SHA-256 and size of each of these files

Text is UTF-8, times are UTC, bytes stand in base64. A turn that was forgotten is not in here.
"""


def write_archive(store: MemoryStore, key: UserKey, path: str | Path) -> Path:
    """Write everything of a user to a zip that does not exist yet, readable by its owner alone.

    The audit trail is told before the first byte.

    Args:
        store: where it is kept.
        key: whose.
        path: the archive to be made.

    Returns:
        The absolute path.

    Raises:
        UnknownUser: nothing is kept of such a user.
        ExchangeError: the place refuses it.
        RevisionConflict: turns were forgotten, or something learnt, each time it was written.
        CorruptPayload: something that is kept differs from its digest.
    """
    place = check_free(path)
    _state(store, key)
    store.record(key, "export", {"form": "archive"})
    for _ in range(ATTEMPTS):
        before = _state(store, key)
        try:
            with placed(place) as draft:
                _write(store, before, draft)
                _check_still(store, before)
        except (_Moved, RevisionNotFound):
            if _has_moved(store, before):
                continue
            raise
        logger.info("archive written", extra={"action": "export", "form": "archive", "user": key.short_hash})
        return place
    raise RevisionConflict(
        f"the memory of user #{key.short_hash} moved each of {ATTEMPTS} times while the archive was written; try again"
    )


class _Moved(Exception):
    """Something was forgotten or learnt while the archive was written."""


def _state(store: MemoryStore, key: UserKey) -> UserState:
    state = store.state(key)
    if state is None:
        raise UnknownUser(f"user #{key.short_hash} has no turns in this store; there is nothing to hand out")
    return state


def _has_moved(store: MemoryStore, before: UserState) -> bool:
    """Tell whether what is kept of a user is no longer what it was; turns said since do not count."""
    after = _state(store, before.key)
    return (after.fence, after.epoch) != (before.fence, before.epoch)


def _check_still(store: MemoryStore, before: UserState) -> None:
    if _has_moved(store, before):
        raise _Moved


def _write(store: MemoryStore, state: UserState, draft: Path) -> None:
    """Write every file of the archive, each as it is read from the store."""
    sums: dict[str, dict[str, Any]] = {}
    with zipfile.ZipFile(draft, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, pieces in _files(store, state):
            digest, size = hashlib.sha256(), 0
            with archive.open(name, "w", force_zip64=True) as member:
                for piece in pieces:
                    member.write(piece)
                    digest.update(piece)
                    size += len(piece)
            sums[name] = {"sha256": digest.hexdigest(), "bytes": size}
        manifest = {
            "format": "locas-archive",
            "format_version": FORMAT_VERSION,
            "code_version": CODE_VERSION,
            "created_at": datetime.now(UTC).isoformat(),
            "personal_data": True,
            "files": sums,
        }
        archive.writestr("manifest.json", json.dumps(manifest, indent=2) + "\n")


def _files(store: MemoryStore, state: UserState) -> Iterator[tuple[str, Iterable[bytes]]]:
    key = state.key
    revisions = store.revisions(key)
    jobs = [job for job in store.queue.jobs(key.tenant) if job.key == key]
    about = {
        "tenant": key.tenant,
        "user": key.user,
        "turns": state.turns,
        "learnt_up_to": state.consolidated_seq,
        "revision": state.head,
        "created_at": state.created_at.isoformat(),
        "is_encrypted": state.is_encrypted,
    }
    yield "README.txt", [README.encode()]
    yield "user.json", [_line(about)]
    yield "turns.jsonl", (_line(_fields(turn)) for turn in _turns(store, state))
    yield "study_items.jsonl", (_line(_fields(item)) for item in store.study_items(key, with_retired=True))
    yield "revisions.jsonl", (_line(_fields(revision)) for revision in revisions)
    for revision in revisions:
        if revision.has_payload:
            yield f"memories/{revision.number}.safetensors", [store.payload(key, revision.number)]
    yield "audit.jsonl", (_line(_fields(entry)) for entry in store.audit(key))
    api_keys = [one for one in store.api_keys.keys(key.tenant) if one.user == key.user]
    yield "jobs.json", [_line([_fields(job, leave_out=("key", "job_id")) for job in jobs])]
    yield "api_keys.json", [_line([_fields(one) for one in api_keys])]


def _turns(store: MemoryStore, state: UserState) -> Iterator[Turn]:
    for after in range(0, state.turns, TURNS_AT_ONCE):
        yield from store.turns(state.key, after=after, upto=min(after + TURNS_AT_ONCE, state.turns))


def _fields(record: Any, leave_out: tuple[str, ...] = ()) -> dict[str, Any]:
    return {field.name: getattr(record, field.name) for field in fields(record) if field.name not in leave_out}


def _line(value: object) -> bytes:
    return (json.dumps(value, ensure_ascii=False, default=_plain) + "\n").encode()


def _plain(value: object) -> object:
    match value:
        case datetime():
            return value.isoformat()
        case bytes():
            return base64.b64encode(value).decode()
        case ConsolidationMetrics():
            return value.as_json()
        case Mapping():
            return dict(value)
        case _:
            raise TypeError(f"{type(value).__name__} has no place in an archive")

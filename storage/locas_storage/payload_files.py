"""Owns the files that hold payloads too large for the database: any place that fsspec can write to.

Needs the extra `files`. A file's path is `<owner>/<digest>`, both hexadecimal hashes, so no name of a user enters a
path, none can lead outside, and equal payloads of two users are two files.
"""

import datetime as dt
import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from locas_storage.errors import CorruptPayload, StorageFull, StoreUnavailable
from locas_storage.records.turns import UserKey


class PayloadFiles:
    """A folder, bucket or the like. Constructing it opens nothing.

    Args:
        url: a path, or anything fsspec knows: `file:///var/lib/locas`, `s3://bucket/prefix`.

    Raises:
        StoreUnavailable: fsspec or what it needs for this kind of place is not installed.
    """

    def __init__(self, url: str) -> None:
        try:
            from fsspec.core import url_to_fs
            from fsspec.implementations.local import LocalFileSystem
        except ImportError as error:
            raise StoreUnavailable("payloads in files need fsspec; install locas-agent[files]") from error
        try:
            self._system, self._root = url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise StoreUnavailable(
                "files: no place that fsspec can write to, or what it needs for it is not installed"
            ) from error
        self._is_local = isinstance(self._system, LocalFileSystem)

    def put(self, key: UserKey, digest: str, data: bytes) -> None:
        """Write a file, which is there whole or not at all when this returns or fails.

        Raises:
            StorageFull: no room left.
            StoreUnavailable: it cannot be written.
        """
        with _named_errors():
            if self._is_local:
                _write_durably(Path(self._path(key, digest)), data)
            else:  # an object store shows an object only when it is whole
                self._system.makedirs(self._folder(key.digest), exist_ok=True)
                self._system.pipe_file(self._path(key, digest), data)

    def exists(self, key: UserKey, digest: str) -> bool:
        """Tell whether the file is there."""
        with _named_errors():
            return bool(self._system.exists(self._path(key, digest)))

    def read(self, key: UserKey, digest: str) -> bytes:
        """Return the bytes of a file, unchecked.

        Raises:
            CorruptPayload: there is no such file.
            StoreUnavailable: it cannot be read.
        """
        with _named_errors():
            try:
                return bytes(self._system.cat_file(self._path(key, digest)))
            except FileNotFoundError as error:
                raise CorruptPayload(
                    f"the file of payload {digest[:12]} is missing; restore it from a backup"
                ) from error

    def remove(self, owner: str, name: str) -> None:
        """Delete a file, if it is there."""
        with _named_errors():
            try:
                self._system.rm_file(f"{self._folder(owner)}/{name}")
            except FileNotFoundError:
                return

    def older_than(self, moment: dt.datetime) -> Iterator[tuple[str, str]]:
        """Return owner and name of every file last changed before a moment, leftovers of broken writes included."""
        with _named_errors():
            if not self._system.exists(self._root):
                return
            for path in sorted(self._system.find(self._root)):
                changed = self._system.modified(path)
                if (changed if changed.tzinfo else changed.replace(tzinfo=dt.UTC)) < moment:
                    owner, name = path.rsplit("/", 2)[1:]
                    yield owner, name

    def _folder(self, owner: str) -> str:
        return f"{self._root.rstrip('/')}/{owner}"

    def _path(self, key: UserKey, digest: str) -> str:
        return f"{self._folder(key.digest)}/{digest}"

    def __repr__(self) -> str:
        return f"PayloadFiles({self._system.protocol!r})"


def _write_durably(path: Path, data: bytes) -> None:
    """Write to a new file beside the place, force it to the disk, then give it its name."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.urandom(8).hex()}.part")
    handle = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    for folder in (path.parent, path.parent.parent):  # the name of the file, and that of a new folder
        entry = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(entry)
        finally:
            os.close(entry)


@contextmanager
def _named_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise StorageFull(
                "files: no room left, nothing of this call was kept; free some space and call again"
            ) from error
        raise StoreUnavailable(
            f"files: {type(error).__name__}; check that the place exists and may be written to"
        ) from error

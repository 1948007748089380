"""Owns the keys that wrap data keys.

The protocol a key service fulfils, and two built-in forms, a file and an environment variable.

Key material stands in no message, log line or `repr`, and none is kept between two calls.

Both built-in forms hold one key in each line, `ID BASE64`, or separated by commas; the last one is current: it wraps,
the others only unwrap what they wrapped.
"""

import base64
import binascii
import os
import re
import stat
from pathlib import Path
from typing import Protocol, runtime_checkable

from locas_storage.encryption.envelope import KEY_BYTES, aes_gcm, packed
from locas_storage.errors import KeyUnavailable
from locas_storage.records.bounds import new_item_id

_ID = re.compile(r"[A-Za-z0-9._:/-]{1,64}")
_NONCE_BYTES = 12


@runtime_checkable
class KeyProvider(Protocol):
    """Wraps and unwraps data keys, one for each user, under key-encryption keys that it never hands out.

    Each method may raise `KeyUnavailable`. They are called within transactions and from several threads.
    """

    @property
    def current_key_id(self) -> str:
        """Name of the key that new data keys are wrapped under, 1 to 64 characters."""
        ...

    def wrap(self, key_id: str, data_key: bytes, context: bytes) -> bytes:
        """Return a data key encrypted.

        Args:
            key_id: the key to wrap it under.
            data_key: 32 bytes.
            context: names the user; unwrapping under another context fails.
        """
        ...

    def unwrap(self, key_id: str, wrapped: bytes, context: bytes) -> bytes:
        """Return the data key that `wrap` encrypted under the same key and context."""
        ...


class FileKeyProvider:
    """Keys in a file that nobody but its owner may read. It is read at each use, so a rotation needs no restart.

    Args:
        path: the file, as `locas-agent keys new PATH` makes it.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)

    def __repr__(self) -> str:
        return f"FileKeyProvider({str(self._path)!r})"

    @property
    def current_key_id(self) -> str:
        """See `KeyProvider.current_key_id`."""
        return list(read_keys(self._path))[-1]

    def wrap(self, key_id: str, data_key: bytes, context: bytes) -> bytes:
        """See `KeyProvider.wrap`."""
        return _wrap(read_keys(self._path), key_id, data_key, context)

    def unwrap(self, key_id: str, wrapped: bytes, context: bytes) -> bytes:
        """See `KeyProvider.unwrap`."""
        return _unwrap(read_keys(self._path), key_id, wrapped, context)


class EnvironmentKeyProvider:
    """Keys in an environment variable, for machines that are given their secrets so. It is read at each use.

    Args:
        variable: its name.
    """

    def __init__(self, variable: str = "LOCAS_KEYS") -> None:
        self._variable = variable

    def __repr__(self) -> str:
        return f"EnvironmentKeyProvider({self._variable!r})"

    @property
    def current_key_id(self) -> str:
        """See `KeyProvider.current_key_id`."""
        return list(self._keys())[-1]

    def wrap(self, key_id: str, data_key: bytes, context: bytes) -> bytes:
        """See `KeyProvider.wrap`."""
        return _wrap(self._keys(), key_id, data_key, context)

    def unwrap(self, key_id: str, wrapped: bytes, context: bytes) -> bytes:
        """See `KeyProvider.unwrap`."""
        return _unwrap(self._keys(), key_id, wrapped, context)

    def _keys(self) -> dict[str, bytes]:
        return _parsed(os.environ.get(self._variable, ""), f"environment variable {self._variable}")


def new_key_file(path: str | Path) -> str:
    """Make a key file with one fresh key, readable by its owner alone, and return the key's name.

    Raises:
        KeyUnavailable: there is a file already, or the place cannot be written.
    """
    key_id, line = _fresh()
    _write(Path(path), line)
    return key_id


def add_key(path: str | Path) -> str:
    """Add a fresh key to a key file, which is current from then on, and return its name."""
    kept = read_keys(Path(path))
    key_id, line = _fresh()
    _replace(Path(path), "".join(_line(*one) for one in kept.items()) + line)
    return key_id


def retire_keys(path: str | Path) -> int:
    """Remove every key but the current one from a key file, and return how many those were.

    Databases and backups whose data keys are wrapped under a removed key cannot be read any more, by anybody.
    """
    kept = read_keys(Path(path))
    current = list(kept)[-1]
    _replace(Path(path), _line(current, kept[current]))
    return len(kept) - 1


def read_keys(path: Path) -> dict[str, bytes]:
    """Return the keys of a file by their names, the current one last.

    Raises:
        KeyUnavailable: it cannot be read, others than its owner may read it, or it holds no keys.
    """
    try:
        with path.open(encoding="ascii") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode) or status.st_mode & 0o077:
                mode = stat.S_IMODE(status.st_mode)
                raise KeyUnavailable(
                    f"key file {path}: mode is {mode:04o}, expected a regular file with 0600; run `chmod 600` on it"
                )
            return _parsed(file.read(), f"key file {path}")
    except (OSError, UnicodeDecodeError) as error:
        raise KeyUnavailable(
            f"key file {path}: cannot be read ({type(error).__name__}); `locas-agent keys new PATH` makes one"
        ) from None


def _parsed(text: str, where: str) -> dict[str, bytes]:
    keys: dict[str, bytes] = {}
    for number, line in enumerate(filter(None, (part.strip() for part in re.split(r"[\n,]", text))), start=1):
        key_id, _, encoded = line.partition(" ")
        try:
            material = base64.b64decode(encoded.strip(), validate=True)
        except (binascii.Error, ValueError):
            material = b""
        if not _ID.fullmatch(key_id) or key_id in keys or len(material) != KEY_BYTES:
            raise KeyUnavailable(
                f"{where}: entry {number} is not `ID BASE64` with an id of its own and {KEY_BYTES} bytes"
            )
        keys[key_id] = material
    if not keys:
        raise KeyUnavailable(f"{where}: holds no key; `locas-agent keys new PATH` makes a file with one")
    return keys


def _wrap(keys: dict[str, bytes], key_id: str, data_key: bytes, context: bytes) -> bytes:
    nonce = os.urandom(_NONCE_BYTES)
    return nonce + bytes(aes_gcm(_named(keys, key_id)).encrypt(nonce, data_key, packed("data key", key_id) + context))


def _unwrap(keys: dict[str, bytes], key_id: str, wrapped: bytes, context: bytes) -> bytes:
    cipher = aes_gcm(_named(keys, key_id))
    from cryptography.exceptions import InvalidTag

    try:
        return bytes(
            cipher.decrypt(wrapped[:_NONCE_BYTES], wrapped[_NONCE_BYTES:], packed("data key", key_id) + context)
        )
    except (InvalidTag, ValueError):  # too short for a nonce
        raise KeyUnavailable(
            f"key {key_id} does not open this user's data key: it is another key of that name, or the row was altered"
        ) from None


def _named(keys: dict[str, bytes], key_id: str) -> bytes:
    if key_id not in keys:
        raise KeyUnavailable(
            f"key {key_id} is not among the {len(keys)} keys given; name the key file that this database was encrypted "
            "with"
        )
    return keys[key_id]


def _fresh() -> tuple[str, str]:
    key_id = f"key-{new_item_id()[:20]}"
    return key_id, _line(key_id, os.urandom(KEY_BYTES))


def _line(key_id: str, material: bytes) -> str:
    return f"{key_id} {base64.b64encode(material).decode()}\n"


def _replace(path: Path, text: str) -> None:
    temporary = path.with_name(f"{path.name}.{os.urandom(8).hex()}.part")
    try:
        _write(temporary, text)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _write(path: Path, text: str) -> None:
    try:
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise KeyUnavailable(
            f"key file {path}: cannot be written ({error.strerror}); an existing file is never overwritten"
        ) from None

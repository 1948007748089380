"""The files in which ChatGPT and Claude hand out a person's chats: what was said, by whom and when.

Of a chat with branches the one last shown is taken. What no person or assistant said to the other (calls of tools,
hidden instructions, thoughts, attached files) is left out.
"""

from __future__ import annotations

import io
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Literal

from locas_agent.errors import ExchangeError
from locas_agent.import_export.json_stream import JsonArray

ChatSource = Literal["chatgpt", "claude"]
"""Whose export a file is."""

_IN_A_ZIP = re.compile(r"(?:.*/)?conversations(?:-\d+)?\.json")
_ROLES = {"user": "user", "human": "user", "assistant": "assistant"}
_HIDDEN = "is_visually_hidden_from_conversation"


class _Malformed(Exception):
    """A conversation is not what an export holds; the message quotes nothing of it."""


@dataclass(frozen=True, slots=True)
class ExportedTurn:
    """One message of an exported chat."""

    message_id: str = field(repr=False)
    role: str
    text: str = field(repr=False)
    at: datetime | None
    """When it was said, aware; None where the file does not tell."""


@dataclass(frozen=True, slots=True)
class ExportedChat:
    """One conversation of an export, its messages in the order in which they were said."""

    source: ChatSource
    chat_id: str = field(repr=False)
    began_at: datetime | None
    """Its own time, else that of its first message; None where the file tells neither."""
    messages: tuple[ExportedTurn, ...] = field(repr=False)


def read_chats(path: str | Path) -> Iterator[ExportedChat]:
    """Read the conversations of an export one by one, in the order of the file.

    Args:
        path: the archive as it was downloaded, or the `conversations.json` of it.

    Raises:
        ExchangeError: nothing is there, it is no such export, or it is damaged.
    """
    place = Path(path).expanduser()
    try:
        if not place.is_file():
            raise ExchangeError(
                f"there is no file {place.name!r}: name the .zip of the export, or its conversations.json"
            )
        if zipfile.is_zipfile(place):
            with zipfile.ZipFile(place) as archive:
                for name in _names(archive, place):
                    with archive.open(name) as opened, _as_text(opened) as stream:
                        yield from _chats(stream)
        else:
            with place.open("rb") as opened, _as_text(opened) as stream:
                yield from _chats(stream)
    except (OSError, zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError) as error:
        # RuntimeError is what zipfile raises for a member that is encrypted.
        raise ExchangeError(
            f"cannot read {place.name!r}: {getattr(error, 'strerror', None) or type(error).__name__}; take the file as "
            "it was downloaded"
        ) from error


def _names(archive: zipfile.ZipFile, place: Path) -> list[str]:
    names = sorted(name for name in archive.namelist() if _IN_A_ZIP.fullmatch(name))
    if not names:
        raise ExchangeError(
            f"{place.name!r} holds no conversations.json: expected the archive that ChatGPT or Claude sends on request"
        )
    return names


@contextmanager
def _as_text(opened: IO[bytes]) -> Iterator[io.TextIOWrapper]:
    with io.TextIOWrapper(opened, encoding="utf-8-sig") as stream:
        yield stream


def _chats(stream: io.TextIOWrapper) -> Iterator[ExportedChat]:
    for number, found in enumerate(JsonArray(stream), start=1):
        try:
            if "mapping" in found:
                yield _of_chatgpt(found)
            elif "chat_messages" in found:
                yield _of_claude(found)
            else:
                raise _Malformed("it is of neither ChatGPT nor Claude")
        except (AttributeError, KeyError, OSError, OverflowError, TypeError, ValueError, _Malformed) as error:
            # The words of a foreign error may quote the file.
            why = str(error) if isinstance(error, _Malformed) else type(error).__name__
            raise ExchangeError(
                f"conversation {number} is not what an export of chats holds ({why}): nothing of it was taken"
            ) from None


def _of_chatgpt(found: Mapping[str, Any]) -> ExportedChat:
    mapping = found["mapping"]
    messages = []
    for node in _shown_branch(mapping, found.get("current_node")):
        message = mapping[node].get("message")
        text = _chatgpt_text(message) if message else ""
        if text:
            at = message.get("create_time")
            messages.append(
                ExportedTurn(_id(message["id"]), _ROLES[message["author"]["role"]], text, _seconds(at) if at else None)
            )
    chat_id = _id(found.get("conversation_id") or found.get("id"))
    at = found.get("create_time")
    began_at = _seconds(at) if at else next((message.at for message in messages if message.at), None)
    return ExportedChat("chatgpt", chat_id, began_at, tuple(messages))


def _shown_branch(mapping: Mapping[str, Any], current: str | None) -> Sequence[str]:
    """Return the nodes from the root to the one that was shown last."""
    if current not in mapping:
        ends = [node for node, value in mapping.items() if not value.get("children")]
        current = max(ends, key=lambda node: (mapping[node].get("message") or {}).get("create_time") or 0, default=None)
    branch: list[str] = []
    while current is not None and current in mapping:
        branch.append(current)
        if len(branch) > len(mapping):
            raise _Malformed("its messages follow each other in a circle")
        current = mapping[current].get("parent")
    return branch[::-1]


def _chatgpt_text(message: Mapping[str, Any]) -> str:
    if message["author"]["role"] not in _ROLES or message.get("recipient") not in (None, "all"):
        return ""
    if (message.get("metadata") or {}).get(_HIDDEN) or message.get("weight") == 0:
        return ""
    content = message.get("content") or {}
    if content.get("content_type") not in ("text", "multimodal_text"):
        return ""
    parts = [part if isinstance(part, str) else _transcribed(part) for part in content.get("parts") or ()]
    return "\n".join(part.strip() for part in parts if part.strip())


def _transcribed(part: Mapping[str, Any]) -> str:
    """Return the words of a spoken part; none of a picture."""
    return str(part.get("text") or "") if part.get("content_type") == "audio_transcription" else ""


def _of_claude(found: Mapping[str, Any]) -> ExportedChat:
    messages = []
    for message in found["chat_messages"]:
        blocks = [block.get("text") for block in message.get("content") or () if block.get("type") == "text"]
        text = "\n\n".join(block.strip() for block in blocks if block) or (message.get("text") or "").strip()
        if text and message["sender"] in _ROLES:
            at = message.get("created_at")
            messages.append(
                ExportedTurn(_id(message["uuid"]), _ROLES[message["sender"]], text, _iso(at) if at else None)
            )
    return ExportedChat("claude", _id(found["uuid"]), _iso(found["created_at"]), tuple(messages))


def _id(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise _Malformed("an id is missing")
    return value


def _seconds(value: Any) -> datetime:
    return datetime.fromtimestamp(float(value), UTC)


def _iso(value: str) -> datetime:
    at = datetime.fromisoformat(value)
    return at if at.tzinfo else at.replace(tzinfo=UTC)

"""A JSON array read object by object, so that a file of gigabytes takes the memory of its largest object."""

from __future__ import annotations

from collections.abc import Iterator
from json import JSONDecodeError, JSONDecoder
from typing import Any, TextIO

from locas_agent.errors import ExchangeError

CHUNK_CHARS = 1 << 20
"""Characters read at a time."""
MOST_CHARS = 64 << 20
"""Longest object, in characters."""
_SPACE = " \t\r\n"


class JsonArray:
    """The objects of a stream that holds one JSON array.

    Args:
        stream: text; read from where it stands to its end.
        chunk_chars: characters read at a time.
        most_chars: longest object, in characters.
    """

    def __init__(self, stream: TextIO, *, chunk_chars: int = CHUNK_CHARS, most_chars: int = MOST_CHARS) -> None:
        self._stream = stream
        self._chunk_chars = chunk_chars
        self._most_chars = most_chars
        self._decoder = JSONDecoder()
        self._text = ""
        self._has_ended = False

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield each object in turn.

        Raises:
            ExchangeError: the stream is no UTF-8, no JSON array of objects, or an object is too long.
        """
        self._expect("[")
        count = 0
        while self._next() != "]":
            if count:
                self._expect(",")
                self._next()
            yield self._object(count)
            count += 1
        self._expect("]")
        if self._next():
            raise ExchangeError(f"there is more behind the list of {count} conversations: the file is damaged")

    def _next(self) -> str:
        """Return the next character that is no space, without taking it; nothing at the end."""
        while not (stripped := self._text.lstrip(_SPACE)) and not self._has_ended:
            self._text = ""
            self._read(self._chunk_chars)
        self._text = stripped
        return stripped[:1]

    def _expect(self, wanted: str) -> None:
        found = self._next()
        if found != wanted:
            got = "the end of the file" if not found else "another character"
            raise ExchangeError(
                f"no JSON list of conversations: got {got} where {wanted!r} was expected; take the file as it was "
                "downloaded"
            )
        self._text = self._text[1:]

    def _object(self, count: int) -> dict[str, Any]:
        while True:
            try:
                found, end = self._decoder.raw_decode(self._text)
            except JSONDecodeError as error:
                if self._has_ended:
                    raise ExchangeError(
                        f"conversation {count + 1} is no JSON: {error.msg}; take the file as it was downloaded"
                    ) from None
                if len(self._text) > self._most_chars:
                    raise ExchangeError(
                        f"conversation {count + 1} has more than {self._most_chars} characters, or is no JSON"
                    ) from None
                self._read(max(self._chunk_chars, len(self._text)))
            except RecursionError:
                raise ExchangeError(f"conversation {count + 1} is nested too deep for JSON of a chat") from None
            else:
                self._text = self._text[end:]
                if not isinstance(found, dict):
                    raise ExchangeError(f"conversation {count + 1}: got {type(found).__name__}, expected a JSON object")
                return found

    def _read(self, chars: int) -> None:
        try:
            read = self._stream.read(chars)
        except UnicodeDecodeError:
            raise ExchangeError("the file is no UTF-8 text; take it as it was downloaded") from None
        self._has_ended = not read
        self._text += read

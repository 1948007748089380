"""Turn generated token ids into text.

Every text that leaves a model passes here: replies, streams, study, recall, exports.

A weak or noisy model writes what no turn can hold: NUL and other control characters, halves of characters. They are
left out here, once, so that a stream, the reply and the journal show the same text.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence

_KEPT = "\t\n\r"
"""Control characters that are text."""
_DROPPED = ("Cc", "Cs")
"""Unicode categories that no turn can hold, or no reader can see: control characters and lone surrogates."""
_UNFINISHED = "\ufffd"
"""What a tokenizer writes for bytes that are no whole character, or not yet."""


def clean(text: str) -> str:
    """Leave out control characters (tab and line breaks stay) and lone surrogates."""
    return "".join(letter for letter in text if letter in _KEPT or unicodedata.category(letter) not in _DROPPED)


class Detokenizer:
    """Turns the tokens of one answer into text while they come; whatever it returned, joined, is the whole answer.

    Spaces around the answer are left out. A character that spans several tokens is returned when its last token came.

    Args:
        decode: turns token ids into clean text, as `Backbone.decode` does.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        self._decode = decode
        self.ids: list[int] = []
        """The tokens so far."""
        self._shown = 0

    def texts(self, tokens: Iterable[int]) -> Iterator[str]:
        """Yield the text of all tokens, piece by piece, none of them empty."""
        for token in tokens:
            if text := self.add(token):
                yield text
        if text := self.finish():
            yield text

    def add(self, token: int) -> str:
        """Take the next token and return the text that it completes, often none."""
        self.ids.append(token)
        whole = self._decode(self.ids).lstrip()
        return "" if whole.endswith(_UNFINISHED) else self._show(whole.rstrip())

    def finish(self) -> str:
        """Return what is left when the last token came: a character that was never finished."""
        return self._show(self._decode(self.ids).strip())

    def _show(self, whole: str) -> str:
        # spaces that were held back may turn out to be the end: nothing that was shown is ever taken back
        new = whole[self._shown :]
        self._shown = max(self._shown, len(whole))
        return new

"""Owns what a word is, for search.

How a text is cut into words, and how turns that share words with a query are ranked.

Nothing of another user enters a score.
"""

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import fields

from locas_storage.records.turns import FoundTurn, Turn

MAX_QUERY_WORDS = 64
"""Words of a query beyond these are left out."""
MAX_CANDIDATES = 2_000
"""Turns that share a word with the query; of more, the newest are ranked."""
_MAX_WORD_CHARS = 64
_MAX_INDEXED_CHARS = 1 << 17
"""Of one turn. PostgreSQL takes at most 1 MiB of words."""

# What is written without spaces is found by parts of a run. A Chinese or Japanese character says enough to be a word
# alone; of an
# alphabet two neighbours are one: Thai, Lao, Burmese (with its extensions), Khmer.
_CHARACTERS = "\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_RUNS = "\u0e00-\u0e3e\u0e40-\u0eff\u1000-\u109f\u1780-\u17ff\ua9e0-\ua9ff\uaa60-\uaa7f"
_MOST = 0x1FFFF
"""Beyond it there are ideographs only, and marks that `_UNSEEN` has."""
_FLAG = "[\U0001f1e6-\U0001f1ff]"


def _class_of(*categories: str) -> str:
    """Return the characters of some Unicode categories as the inside of a class of a pattern."""
    codes = {code for code in range(0x80, _MOST) if unicodedata.category(chr(code)) in categories}
    starts = sorted(code for code in codes if code - 1 not in codes)
    ends = sorted(code for code in codes if code + 1 not in codes)
    return "".join(f"{chr(start)}-{chr(end)}" for start, end in zip(starts, ends, strict=True))


_MARKS = _class_of("Mn", "Mc")
"""Vowel signs and the like: part of a word, and none by themselves."""
_SYMBOLS = _class_of("So")
"""Emoji among them: each is a word."""
_WORD = re.compile(
    rf"(?P<run>(?:(?=[^\W_{_MARKS}])[{_RUNS}])(?:(?=[\w{_MARKS}])[{_RUNS}])*)"
    rf"|(?=[^\W_])[{_CHARACTERS}]|{_FLAG}{{2}}|[{_SYMBOLS}]"
    rf"|(?![{_CHARACTERS}{_RUNS}])[^\W_](?:(?![{_CHARACTERS}{_RUNS}_])[\w{_MARKS}])*"
)
_UNSEEN = re.compile("[\u200c\u200d\u20dd-\u20e4\ufe00-\ufe0f\U0001f3fb-\U0001f3ff\U000e0100-\U000e01ef]")
"""Joiners, enclosing marks, which form of a character is shown, and skin tones: they do not tell words apart."""
_SATURATION, _LENGTH_WEIGHT = 1.2, 0.75
"""k1 and b of BM25, the usual values."""


def words_of(text: str) -> list[str]:
    """Return the words of a text, each as often as it occurs, without case, accents and punctuation.

    Where a script has no spaces between words, its characters or pairs of neighbours are the words; an emoji is a word.
    """
    bare = text.lower() if text.isascii() else _without_accents(text)
    found: list[str] = []
    for match in _WORD.finditer(bare):
        word = match[0]
        if match["run"] is None or len(word) == 1:
            found.append(word[:_MAX_WORD_CHARS])
        else:
            found += (word[at : at + 2] for at in range(len(word) - 1))
    return found


def _without_accents(text: str) -> str:
    plain = unicodedata.normalize("NFKD", unicodedata.normalize("NFKC", _UNSEEN.sub("", text)).casefold())
    return "".join(character for character in plain if not unicodedata.combining(character))


def indexed_words(text: str) -> list[str]:
    """Return the distinct words by which a turn is found, in the order they occur."""
    kept, room = [], _MAX_INDEXED_CHARS
    for word in dict.fromkeys(words_of(text)):
        room -= len(word)
        if room < 0:
            break
        kept.append(word)
    return kept


def query_words(text: str) -> list[str]:
    """Return the distinct words of a query."""
    return list(dict.fromkeys(words_of(text)))[:MAX_QUERY_WORDS]


def sharing(turns: Iterable[Turn], wanted: Sequence[str]) -> list[Turn]:
    """Return the newest of the turns that share a word with the query, oldest first.

    What an index does, without one.
    """
    asked = set(wanted)
    return [turn for turn in turns if not asked.isdisjoint(indexed_words(turn.content))][-MAX_CANDIDATES:]


def rank(wanted: Sequence[str], candidates: Iterable[Turn], *, turns: int, limit: int) -> list[FoundTurn]:
    """Return the best candidates with their BM25 scores, best first; of equal ones the newer first.

    Args:
        wanted: the words of the query.
        candidates: the user's turns that share a word with it.
        turns: how many turns the user has.
        limit: how many to return.
    """
    counted = [(turn, Counter(words_of(turn.content))) for turn in candidates]
    lengths = {turn.seq: max(1, counts.total()) for turn, counts in counted}
    mean = sum(lengths.values()) / max(1, len(lengths))
    rarity = {}
    for word in wanted:
        holding = sum(word in counts for _, counts in counted)
        rarity[word] = math.log1p((turns - holding + 0.5) / (holding + 0.5))
    found = []
    for turn, counts in counted:
        damping = _SATURATION * (1 - _LENGTH_WEIGHT + _LENGTH_WEIGHT * lengths[turn.seq] / mean)
        score = sum(rarity[word] * counts[word] * (_SATURATION + 1) / (counts[word] + damping) for word in wanted)
        found.append(FoundTurn(**{one.name: getattr(turn, one.name) for one in fields(Turn)}, score=round(score, 9)))
    return sorted(found, key=lambda one: (-one.score, -one.seq))[:limit]

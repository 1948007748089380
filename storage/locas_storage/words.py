"""Owns what a word is, for search: how a text is cut into words, and how turns that share words with a query are ranked.

Knows nothing of stores: each of them finds the turns that share a word in its own way and ranks them here, so that all
give the same order. Nothing of another user enters a score.
"""

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import fields

from locas_storage.records import FoundTurn, Turn

MAX_QUERY_WORDS = 64
"""Words of a query beyond these are left out."""
MAX_CANDIDATES = 2_000
"""Turns that share a word with the query; of more, the newest are ranked."""
_MAX_WORD_CHARS = 64
_MAX_INDEXED_CHARS = 1 << 17
"""Of one turn. PostgreSQL takes at most 1 MiB of words."""

# Chinese and Japanese are written without spaces: there each character is a word.
_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"(?=[^\W_])[{_UNSPACED}]|(?:(?![{_UNSPACED}])[^\W_])+")
_SATURATION, _LENGTH_WEIGHT = 1.2, 0.75
"""k1 and b of BM25, the usual values."""


def words_of(text: str) -> list[str]:
    """Return the words of a text, each as often as it occurs, without case, accents and punctuation."""
    bare = text.lower() if text.isascii() else _without_accents(text)
    return [word[:_MAX_WORD_CHARS] for word in _WORD.findall(bare)]


def _without_accents(text: str) -> str:
    plain = unicodedata.normalize("NFKD", unicodedata.normalize("NFKC", text).casefold())
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
    """Return the newest of the turns that share a word with the query, oldest first: what an index does, without one."""
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

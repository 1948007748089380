"""What a turn says that things and people are called, in English.

"My boss is called Berend-Jan", "my hen, she's called Gerda", "I've a collie, Sceilg,".
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

from locas_agent.study.spans import Word, more_of_name, without_owner

MOST_WORDS = 2
"""Words that say whose name one is at most: "best friend"."""
OWN = frozenset("my our".split())
CALLED = frozenset("called named".split())
"""Words before a name, behind which nothing else is said of whom it is: "a boy called Siem"."""
ENDS = re.compile(r"\s*(?:[,.;:!?)]|$)")
"""What stands behind a name that stands apart."""
_A, _SOME = frozenset("a an".split()), frozenset("a an the".split())
_SHE, _HER, _HERS = (
    frozenset("she he it which".split()),
    frozenset("her him it".split()),
    frozenset("her his its".split()),
)
_SHE_IS = frozenset("she's he's it's".split())
_IS, _CALL = frozenset("is are".split()), frozenset("call calls called named".split())
_I_HAVE = frozenset("i've i have got run keep bought adopted".split())
_NO_NAMES = frozenset("sorry anyway besides thanks hello morning evening dear update news okay".split())
"""What stands before a comma at the beginning of a sentence as a name may."""

_Found = tuple[Sequence[Word], Sequence[Word]]
"""What has a name, "my boss", and the name."""


def named_in(text: str, words: Sequence[Word]) -> list[tuple[str, str]]:
    """Return what a text says that things are called: "my boss" and "Berend-Jan", "the hen" and "Gerda".

    Args:
        text: in NFC.
        words: of it.
    """
    found = []
    for at in range(1, len(words) - 1):
        for what, name in (_called(text, words, at), _by_the_name(text, words, at), _at_its_side(text, words, at)):
            if what and name:
                first = 2 if len(what) > 2 and what[1].key == "new" else 1
                thing = without_owner(text[what[first].start : what[-1].end])
                shown = without_owner(text[name[0].start : name[-1].end])
                found.append((f"{_whose(words, words.index(what[0]))} {thing}", shown))
    return found


def _called(text: str, words: Sequence[Word], at: int) -> _Found:
    """Find "my boss is called Berend-Jan", "a hen named Gerda", "she's called Gerda" and "we call him Rex"."""
    if words[at].key in _HER and words[at - 1].key in _CALL:
        return _meant(text, words, at - 1), name_at(words, at + 1)
    if words[at].key not in CALLED:
        return (), ()
    said = [plain(word) for word in words[max(0, at - 2) : at]]
    if said[-1] in _SHE_IS:
        return _meant(text, words, at - 1), name_at(words, at + 1)
    if said[0] in _SHE and said[-1] in _IS:
        return _meant(text, words, at - 2), name_at(words, at + 1)
    return _just_before(text, words, at), name_at(words, at + 1)


def _by_the_name(text: str, words: Sequence[Word], at: int) -> _Found:
    """Find "her name is Filipa" and "the girl's name is Solveig"."""
    if words[at].key != "name" or words[at + 1].key not in _IS:
        return (), ()
    owner = words[at - 1]
    if owner.key in _HERS:
        return _meant(text, words, at - 1), name_at(words, at + 2)
    is_owner = at > 1 and owner.text != without_owner(owner.text) and words[at - 2].key in OWN | _SOME
    return (words[at - 2 : at], name_at(words, at + 2)) if is_owner else ((), ())


def _at_its_side(text: str, words: Sequence[Word], at: int) -> _Found:
    """Find "I've a collie, Sceilg,"."""
    thing = _thing_at(text, words, at) if words[at].key in _A and _whose(words, at) == "my" else []
    name = name_at(words, at + len(thing)) if thing else []
    is_apart = name and text[thing[-1].end : name[0].start] == ", " and ENDS.match(text, name[-1].end) is not None
    return (thing, name) if is_apart else ((), ())


def _meant(text: str, words: Sequence[Word], end: int) -> list[Word]:
    """Return what "she" or "it" means at a place: "my hen", or else "a bakery", that stands last before it."""
    for owners in (OWN, _A):
        for at in range(end - 1, -1, -1):
            if words[at].key in owners and (thing := _thing_at(text, words[:end], at)):
                return thing
    return []


def _thing_at(text: str, words: Sequence[Word], at: int) -> list[Word]:
    """Return "my hen" of "my hen looked after me": the words behind "my" that are no verb, as far as endings say."""
    thing = [words[at]]
    for word in words[at + 1 : at + 1 + MOST_WORDS]:
        is_verb = len(thing) > 1 and word.key.endswith(("ed", "ing", "s"))
        if is_verb or not may_say_whose(word) or not are_together(text, [thing[-1], word]):
            break
        thing.append(word)
    return thing if len(thing) > 1 else []


def _just_before(text: str, words: Sequence[Word], called: int) -> list[Word]:
    """Return "my boss" or "a hen" before "called" or "is called"; none where something else stands there."""
    end = called - 1 if words[called - 1].key in _IS else called
    for start in range(end - 2, max(-1, end - 2 - MOST_WORDS), -1):
        found = list(words[start:end])
        if words[start].key in OWN | _SOME:
            is_one = all(map(may_say_whose, found[1:])) and are_together(text, found)
            return found if is_one else []
    return []


def _whose(words: Sequence[Word], at: int) -> str:
    """Return "my" of "my hen" and of "I've a hen", and "the" of what is nobody's."""
    if words[at].key in OWN:
        return words[at].key
    is_had = words[at].key in _A and any(plain(word) in _I_HAVE for word in words[max(0, at - 2) : at])
    return "my" if is_had else "the"


def name_before(text: str, words: Sequence[Word], at: int, last: Word) -> list[Word]:
    """Return the name before "my cousin," or "she's our tech lead", with a comma between; none where none does.

    Args:
        text: in NFC.
        words: of it.
        at: where "my" stands.
        last: the last word of who it is.
    """
    end = at - (at > 1 and plain(words[at - 1]) in _SHE_IS)
    is_apart = end > 0 and text[words[end - 1].end : words[end].start] == ", "
    if not is_apart or (end == at and ENDS.match(text, last.end) is None):
        return []
    return [words[end - 1]] if _may_be_name(words[end - 1]) else []


def _may_be_name(word: Word) -> bool:
    """Tell whether a word is a name, at the beginning of a sentence too."""
    is_one = word.is_name or (word.carries and word.text[0].isupper() and not word.key.endswith("ly"))
    return is_one and word.key not in _NO_NAMES and not word.text[0].isdigit()


def follows(text: str, last: Word, name: Sequence[Word]) -> bool:
    """Tell whether a name stands behind a word, or between commas behind it."""
    if not name:
        return False
    between = text[last.end : name[0].start]
    return between == " " or (between == ", " and ENDS.match(text, name[-1].end) is not None)


def name_at(words: Sequence[Word], at: int) -> list[Word]:
    """Return the words of the name that begins at a place, none where none does."""
    if at >= len(words) or not words[at].is_name:
        return []
    end = at + 1
    while further := more_of_name(words, end):
        end += further
    return [] if any(word.text[0].isdigit() for word in words[at:end]) else list(words[at:end])


def may_say_whose(word: Word) -> bool:
    """Tell whether a word may stand in "best friend"."""
    return word.carries and not word.is_name


def are_together(text: str, words: Sequence[Word]) -> bool:
    """Tell whether nothing but one blank stands between each two words."""
    return all(text[one.end : other.start] == " " for one, other in pairwise(words))


def plain(word: Word) -> str:
    """Return a word as it is compared with its 's: "she's"."""
    return word.text.casefold().replace("’", "'")

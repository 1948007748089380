"""Who speaks in a chunk, and questions about one of several people; in English.

A person alone with an assistant asks "What is my dog called?". Where several people talk, "my" is anybody's: a question
about what Ada told is one about Ada, whoever asks it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from locas_agent.study.chunking import Chunk, TurnExcerpt
from locas_agent.study.spans import words_of

ENOUGH_WORDS = 40
"""Words from which a text that never says "I" is not about who tells it. Origin: `docs/decisions.md`, read out."""
_USER, _ASSISTANT = "I", "You"
"""Speakers of turns without a name, see `TurnExcerpt.speaker`."""
_PARTS = re.compile(r"[\w’'-]+|[^\w’'-]+")
_SPEAKER = {
    "i": ("{name}", "they"),
    "i'm": ("{name} is", "they are"),
    "i've": ("{name} has", "they have"),
    "i'd": ("{name} would", "they would"),
    "i'll": ("{name} will", "they will"),
    "me": ("{name}", "them"),
    "myself": ("{name}", "themselves"),
    "my": ("{owner}", "their"),
    "mine": ("{owner}", "theirs"),
    "we": ("{name} and the others", "they"),
    "we're": ("{name} and the others are", "they are"),
    "we've": ("{name} and the others have", "they have"),
    "us": ("{name} and the others", "them"),
    "our": ("{owner}", "their"),
    "ours": ("{owner}", "theirs"),
}
"""What a word for who speaks is where it is the first of its question, and behind another one."""
_SPOKEN_TO = {
    "you": ("{name}", "them"),
    "you're": ("{name} is", "they are"),
    "you've": ("{name} has", "they have"),
    "your": ("{owner}", "their"),
    "yours": ("{owner}", "theirs"),
}
"""The same for who is spoken to."""
_TURNED = {
    "am": "is",
    "are": "is",
    "aren't": "isn't",
    "do": "does",
    "don't": "doesn't",
    "have": "has",
    "haven't": "hasn't",
    "were": "was",
    "weren't": "wasn't",
}
"""What a verb of "I" or "you" is beside a name, where it is not the same and does not just take an "s"."""
_PLURAL = {"am": "are", "was": "were", "wasn't": "weren't"}
"""What one of "I" is beside "they"."""
_SAME = frozenset(
    "was did had will would can could should must might may shall wasn't didn't hadn't won't wouldn't can't couldn't "
    "shouldn't mustn't ate became began bought brought built came caught chose drew drove fell felt found flew forgot "
    "gave got grew heard held kept knew laid led left lent let lost made meant met paid put ran read rode said sang "
    "sat saw sent set shot showed slept sold spent spoke spread stole stood swam taught thought threw told took went "
    "woke won wore wrote".split()
)
"""Verbs that are the same in every person, or of the past."""
_BESIDE = frozenset(
    "also always ever first just last never now often once only originally really still usually".split()
)
"""Words that may stand between "I" and its verb."""
_NO_VERB = frozenset("a about and as at because before by for from in into my of on or that the to when with".split())
"""Words behind an "I" whose verb stands elsewhere."""


def speakers_of(chunk: Chunk) -> list[str]:
    """Return who talks in a chunk, assistants without a name left out, in the order of their first turns."""
    return list(dict.fromkeys(each.speaker for each in chunk.excerpts if each.speaker != _ASSISTANT))


def names_among_others(chunk: Chunk) -> list[str]:
    """Return the names of who talks in a chunk, none where it is one person alone with an assistant."""
    speakers = speakers_of(chunk)
    return [name for name in speakers if name != _USER] if len(speakers) > 1 else []


def put_among_others(question: str, chunk: Chunk, name: str) -> str:
    """Return a question of a named speaker about them, and about the other one where a chunk has two."""
    others = [each for each in speakers_of(chunk) if each != name]
    return asked_about(question, name, others[0] if len(others) == 1 and others[0] != _USER else None)


def speaks_of_itself(text: str) -> bool:
    """Tell whether a text has a word of the first person."""
    return any(_key(part) in _SPEAKER for part in _PARTS.findall(text))


def may_be_about_who_tells(chunk: Chunk) -> bool:
    """Tell whether what is learnt of a chunk may be about who tells it, and not read out, as a passage of a book is.

    Somebody says "I" or "my" in it, or it is too short to tell: people drop these words, but not all evening.
    """
    told = [excerpt.said for excerpt in chunk.excerpts if excerpt.is_learnt]
    return any(map(speaks_of_itself, told)) or sum(len(words_of(text)) for text in told) < ENOUGH_WORDS


def is_of_another(question: str, chunk: Chunk, excerpt: TurnExcerpt) -> bool:
    """Tell whether a question is about somebody in a chunk, and not about who says a turn of it."""
    words = {word.key for word in words_of(question)}
    meant = [name for name in speakers_of(chunk) if name != _USER and {word.key for word in words_of(name)} <= words]
    return bool(meant) and excerpt.speaker not in meant


def asked_about(question: str, name: str, other: str | None = None) -> str:
    """Return a question in somebody's own person as one about them: "Where do I live?" as "Where does Ada live?".

    A name stands where somebody is first spoken of, "they" behind that. A question that speaks of neither stays as it
    is.

    Args:
        question: as who speaks would ask it.
        name: who speaks.
        other: who is spoken to, where that is one person.
    """
    put = _put(question, _SPEAKER, name)
    return put if other is None else _put(put, _SPOKEN_TO, other)


def _put(question: str, forms: Mapping[str, tuple[str, str]], name: str) -> str:
    """Write a name for one person of a question."""
    parts = _PARTS.findall(question)
    places = [at for at, part in enumerate(parts) if part[0].isalnum()]
    words = [_key(parts[at]) for at in places]
    written = {"name": name, "owner": f"{name}'" if name.endswith("s") else f"{name}'s"}
    is_named = False
    for number, word in enumerate(words):
        if word not in forms:
            continue
        verb = _verb_of(words, number) if word in ("i", "you") else None
        if verb is not None:
            agreeing = _PLURAL.get(words[verb], words[verb]) if is_named else _of_one(words[verb])
            parts[places[verb]] = agreeing.capitalize() if parts[places[verb]][0].isupper() else agreeing
        first, later = forms[word]
        parts[places[number]] = later if is_named else first.format(**written)
        is_named = True
    return "".join(parts)


def _key(word: str) -> str:
    """Return what a word is looked up by, its apostrophe the plain one."""
    return word.casefold().replace("’", "'")


def _verb_of(words: Sequence[str], number: int) -> int | None:
    """Return the place of the verb of an "I" or a "you", before it as in "do I", or behind an "I"; None without one.

    What stands behind a "you" that has none before it may be anything: "What did I give you yesterday?"
    """
    if number and (words[number - 1] in _TURNED or words[number - 1] in _SAME):
        return number - 1
    behind = next((at for at in range(number + 1, len(words)) if words[at] not in _BESIDE), None)
    is_verb = behind is not None and words[behind] not in _NO_VERB and words[behind].replace("'", "").isalpha()
    return behind if is_verb and words[number] == "i" else None


def _of_one(verb: str) -> str:
    """Return a verb of "I" as it goes with a name: "live" is "lives", "have" is "has", "went" stays."""
    if verb in _TURNED:
        return _TURNED[verb]
    if verb in _SAME or verb.endswith("ed"):
        return verb
    if verb.endswith("y") and verb[-2:-1] not in "aeiou":
        return f"{verb[:-1]}ies"
    return f"{verb}es" if verb.endswith(("s", "sh", "ch", "x", "z", "o")) else f"{verb}s"

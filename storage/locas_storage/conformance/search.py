"""Cases about searching the journal."""

from dataclasses import fields

import pytest

from locas_storage.conformance.samples import ADA, BEN
from locas_storage.errors import InvalidTurn
from locas_storage.records.turns import Turn, TurnDraft, UserKey
from locas_storage.store import MemoryStore

JOURNAL = [
    "My dog is called Rex.",
    "I moved to Göteborg; the DOG likes it.",
    "Nothing of note.",
    "Rex, Rex, Rex! He chased the neighbour's cat.",
    "We met at ada@example.com, see https://example.com/a_b?c=1",
    "東京に住んでいます",
    "",
    "my cat is old",
]
SYNTAX = [
    '"',
    "'",
    '"dog',
    "dog*",
    "dog OR",
    "AND",
    "NOT dog",
    "NEAR(dog rex)",
    "words:dog",
    "-dog",
    "^dog",
    "(dog",
    "dog)",
    "{words}:dog",
    "dog & !rex",
    "a' | 'b",
    "dog:*",
    "%",
    "_",
    "\\",
    "'; DROP TABLE lm_turn; --",
    '" OR "',
    "dog\n\r\tRex",
    "\u200bdog",
    "\x01",
    "😀",
    "<->",
    "dog <2> rex",
]


def told(store: MemoryStore, key: UserKey = ADA) -> None:
    """Let a user say the journal."""
    store.append(key, [TurnDraft("user", text) for text in JOURNAL])


def found(store: MemoryStore, text: str, *, limit: int = 10, key: UserKey = ADA) -> list[int]:
    """Return the numbers of the turns found."""
    return [hit.seq for hit in store.search(key, text, limit=limit)]


def test_search_finds_turns_that_share_a_word(store: MemoryStore) -> None:
    told(store)
    assert set(found(store, "dog")) == {1, 2}
    assert set(found(store, "dog cat")) == {1, 2, 4, 8}
    assert found(store, "do") == []  # a word, not a part of one
    (hit,) = store.search(ADA, "called")
    (said,) = store.turns(ADA, upto=1)
    assert isinstance(hit, Turn)
    assert [getattr(hit, one.name) for one in fields(Turn)] == [getattr(said, one.name) for one in fields(Turn)]


def test_search_compares_without_case_and_accents(store: MemoryStore) -> None:
    told(store)
    assert found(store, "GOTEBORG") == found(store, "go\u0308teborg") == [2]
    assert found(store, "\uff32\uff25\uff38") == found(store, "rex")
    assert found(store, "example") == found(store, "EXAMPLE.com") == [5]
    assert found(store, "東") == [6]


def test_search_finds_what_is_written_without_spaces_and_emoji(store: MemoryStore) -> None:
    store.append(
        ADA,
        [
            TurnDraft("user", text)
            for text in ("แมวของฉันชื่อมะลิ", "ແມວຂອງຂ້ອຍ", "ខ្ញុំមានឆ្មា", "ကြောင်", "That was fun 🎈🎈", "我的猫")
        ],
    )
    assert [found(store, text) for text in ("มะลิ", "ຂອງ", "ឆ្មា", "🎈", "猫")] == [[1], [2], [3], [5], [6]]
    assert found(store, "🎲") == []


def test_search_puts_the_best_first(store: MemoryStore) -> None:
    told(store)
    hits = store.search(ADA, "Rex")
    assert [hit.seq for hit in hits] == [4, 1]  # three times before once
    assert hits[0].score > hits[1].score > 0
    assert found(store, "called rex")[0] == 1  # both words, one of them rare, before one word three times
    assert store.search(ADA, "Rex") == hits


def test_search_puts_the_newer_of_equal_turns_first(store: MemoryStore) -> None:
    store.append(ADA, [TurnDraft("user", "same words") for _ in range(5)])
    assert found(store, "words") == [5, 4, 3, 2, 1]
    assert found(store, "words", limit=2) == [5, 4]
    assert found(store, "words", limit=0) == []
    assert len({hit.score for hit in store.search(ADA, "words")}) == 1


def test_search_shows_nothing_of_others(store: MemoryStore) -> None:
    told(store)
    others = [BEN, UserKey("other", "ada"), UserKey("default", "ad"), UserKey("default", "ada ")]
    alone = store.search(ADA, "dog rex")
    for key in others:
        store.append(key, [TurnDraft("user", "dog dog rex") for _ in range(7)])
    assert store.search(ADA, "dog rex") == alone  # not even in a score
    assert found(store, "rex", key=BEN) == [7, 6, 5, 4, 3, 2, 1]
    assert found(store, "cat", key=BEN) == []
    assert store.search(UserKey("default", "nobody"), "dog") == []


def test_search_takes_any_text_as_words(store: MemoryStore) -> None:
    told(store)
    for text in SYNTAX:
        bare = "".join(character if character.isalnum() else " " for character in text)
        assert store.search(ADA, text) == store.search(ADA, bare)
    assert found(store, SYNTAX[2]) == found(store, "dog") != []
    assert len(store.turns(ADA)) == len(JOURNAL)


def test_search_without_a_word_finds_nothing(store: MemoryStore) -> None:
    told(store)
    for text in ("", "   ", "?!", "😀", "__"):
        assert found(store, text) == []
    assert found(store, "dog " * 5_000) == found(store, "dog")


def test_search_for_what_is_no_text_is_refused(store: MemoryStore) -> None:
    told(store)
    for text in ("dog\x00", "\ud800", b"dog"):
        with pytest.raises(InvalidTurn):
            store.search(ADA, text)  # type: ignore[arg-type]
    with pytest.raises(InvalidTurn):
        store.search(ADA, "dog", limit=-1)


def test_largest_turns_are_found(store: MemoryStore) -> None:
    store.append(ADA, [TurnDraft("user", "x" * (1 << 20)), TurnDraft("user", "needle " + "\ufdfa" * 30_000)])
    store.append(ADA, [TurnDraft("user", "needle " + " ".join(f"w{number}" for number in range(140_000)))])
    assert sorted(found(store, "needle")) == [2, 3]
    assert found(store, "x" * 5_000) == [1]


def test_repeated_turn_is_found_once(store: MemoryStore) -> None:
    for _ in range(2):
        store.append(
            ADA,
            [TurnDraft("user", "only once", idempotency_key="k"), TurnDraft("user", "only once", idempotency_key="k")],
        )
    assert found(store, "once") == [1]

"""The index of words below a search.

The same order on every database, no byte left of what is gone, nothing deleted beside it.
"""

from __future__ import annotations

import random
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, text
from storage_samples import ADA, BEN

from locas_storage import InMemoryStore, SqlMemoryStore, StoreUnavailable, Turn, TurnDraft, UserKey
from locas_storage.rules import ranking
from locas_storage.sql.statements import search_index

CANARY = "canary9c1d"


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, url: str) -> Iterator[SqlMemoryStore]:
    opened = SqlMemoryStore(url if request.param == "sqlite" else request.getfixturevalue("postgres_url"))
    yield opened
    opened.close()


def test_every_store_finds_the_same_in_the_same_order(store: SqlMemoryStore) -> None:
    plain, draw = InMemoryStore(), random.Random(5)
    vocabulary = [
        "dog",
        "Dog's",
        "cat",
        "e-mail",
        "a@b.example",
        "Göteborg",
        "goteborg",
        "ﬁne",
        "fine",
        "東京",
        "x" * 70,
        "3.14",
        "don’t",
        "ß",
        "SS",
    ]
    said = [TurnDraft("user", " ".join(draw.choices(vocabulary, k=draw.randint(0, 12)))) for _ in range(300)]
    for one in (store, plain):
        one.append(ADA, said)
        one.append(BEN, said[:50])
    sizes = set()
    for _ in range(60):
        asked = " ".join(draw.choices(vocabulary, k=draw.randint(1, 4)))
        limit = draw.choice([1, 10, 1_000])
        ours, theirs = ([(hit.seq, hit.score) for hit in one.search(ADA, asked, limit=limit)] for one in (store, plain))
        assert ours == theirs
        sizes.add(len(ours))
    assert len(sizes) > 5  # they did find something, and not always the same


def test_only_the_newest_of_very_many_candidates_are_ranked(
    store: SqlMemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = InMemoryStore()
    for module in (ranking, search_index):
        monkeypatch.setattr(module, "MAX_CANDIDATES", 5)
    for one in (store, plain):
        one.append(ADA, [TurnDraft("user", f"dog {number}") for number in range(9)])
        assert [hit.seq for hit in one.search(ADA, "dog")] == [9, 8, 7, 6, 5]


def test_turn_that_was_taken_out_of_the_index_is_not_found(store: SqlMemoryStore) -> None:
    store.append(ADA, [TurnDraft("user", "dog one"), TurnDraft("user", "dog two"), TurnDraft("user", "dog three")])
    assert len(store.search(ADA, "dog")) == 3
    with store.database.write() as connection:
        search_index.remove(connection, ADA, [2])
    assert {hit.seq for hit in store.search(ADA, "dog")} == {1, 3}
    assert len(store.turns(ADA)) == 3


def test_words_are_put_in_by_the_search_that_follows(store: SqlMemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_index, "VALUES_PER_STATEMENT", 2)
    put_in, add = list[int](), search_index.add

    def counting(connection: Connection, key: UserKey, turns: Iterable[Turn]) -> None:
        said = list(turns)
        put_in.extend(one.seq for one in said)
        add(connection, key, said)

    monkeypatch.setattr(search_index, "add", counting)
    store.append(ADA, [TurnDraft("user", f"dog {number}") for number in range(5)])
    store.append(BEN, [TurnDraft("user", "dog")])
    assert put_in == []
    store.forget(ADA, [2])
    assert {hit.seq for hit in store.search(ADA, "dog")} == {1, 3, 4, 5}
    assert put_in == [1, 3, 4, 5]
    assert store.search(ADA, "dog") != []
    store.append(ADA, [TurnDraft("user", "dog again")])
    store.forget(ADA, [5])
    assert {hit.seq for hit in store.search(ADA, "dog")} == {1, 3, 4, 6}
    assert put_in == [1, 3, 4, 5, 6]
    assert store.verify().faults == ()


def test_search_that_breaks_off_is_made_up_for_by_the_next(
    store: SqlMemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("after the words were put in")

    store.append(ADA, [TurnDraft("user", "dog")])
    with monkeypatch.context() as patch:
        patch.setattr(search_index, "candidates", broken)
        with pytest.raises(RuntimeError, match="after the words"):
            store.search(ADA, "dog")
    with store.database.read() as connection:
        assert connection.execute(text("SELECT count(*) FROM lm_search")).scalar() == 0
    assert [hit.seq for hit in store.search(ADA, "dog")] == [1]


def test_turn_cannot_be_deleted_while_it_is_in_the_index(store: SqlMemoryStore) -> None:
    store.append(ADA, [TurnDraft("user", "dog")])
    store.search(ADA, "dog")

    def delete(table: str) -> None:
        with store.database.write() as connection:
            connection.execute(text(f"DELETE FROM {table}"))

    for table in ("lm_turn", "lm_subject"):
        with pytest.raises(StoreUnavailable, match=r"CONSTRAINT|23503"):
            delete(table)
    with store.database.write() as connection:
        search_index.remove(connection, ADA)
    delete("lm_turn")
    assert store.turns(ADA) == []


def test_no_byte_of_a_removed_word_is_left(url: str, tmp_path: Path) -> None:
    store = SqlMemoryStore(url)
    store.append(ADA, [TurnDraft("user", "I like dogs")])
    store.append(ADA, [TurnDraft("user", f"my code is {CANARY}")])
    store.append(BEN, [TurnDraft("user", "I like dogs too")])
    assert store.search(ADA, CANARY)
    assert store.search(BEN, "dogs")
    checkpoint(store)
    assert CANARY.encode() in (tmp_path / "locas.db").read_bytes()
    with store.database.write() as connection:
        search_index.remove(connection, ADA, [2])
        connection.execute(text("DELETE FROM lm_turn WHERE subject_id = 'ada' AND seq = 2"))
    checkpoint(store)
    for path in tmp_path.iterdir():
        # FTS5 cuts off what a word shares with the one before it, so look for the end of the word too.
        assert CANARY[3:].encode() not in path.read_bytes(), path.name
    with store.database.write() as connection:
        connection.exec_driver_sql("INSERT INTO lm_search_fts(lm_search_fts, rank) VALUES ('integrity-check', 1)")
    assert [hit.seq for hit in store.search(ADA, "dogs")] == [1]
    store.close()


def checkpoint(store: SqlMemoryStore) -> None:
    connection = store.database.engine.raw_connection()
    connection.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


def test_words_of_all_users_stand_in_no_index_of_postgresql(postgres_url: str) -> None:
    # GIN never gives up a word, not even when no row holds it any more.
    store = SqlMemoryStore(postgres_url)
    store.append(ADA, [TurnDraft("user", "dog")])
    with store.database.read() as connection:
        indexes = (
            connection.execute(text("SELECT indexdef FROM pg_indexes WHERE tablename IN ('lm_search', 'lm_turn')"))
            .scalars()
            .all()
        )
    assert len(indexes) >= 4
    assert [one for one in indexes if "words" in one or "content" in one] == []
    store.close()


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("", []),
        ("Don’t, DON'T!", ["don", "t", "don", "t"]),
        ("snake_case a-b", ["snake", "case", "a", "b"]),
        ("Ｆｕｌｌ ﬁne Ünïcode", ["full", "fine", "unicode"]),  # noqa: RUF001  full width on purpose
        ("東京 tower2", ["東", "京", "tower2"]),
        ("x" * 100, ["x" * 64]),
    ],
)
def test_words_are_cut_and_folded(said: str, found: list[str]) -> None:
    assert ranking.words_of(said) == found


def test_words_hold_letters_digits_and_symbols_only() -> None:
    # Queries are put together from words: nothing else may come through, whatever the text.
    every = "".join(chr(code) for code in range(1, 0x110000) if not 0xD800 <= code <= 0xDFFF)
    spaced: Callable[[str], str] = " ".join
    for text_of_all in (every, spaced(every)):
        for word in ranking.words_of(text_of_all):
            assert word.isprintable()
            assert {unicodedata.category(character)[0] for character in word} <= {"L", "N", "M", "S"}
            assert word.isalnum() or not word.isascii()


@pytest.mark.parametrize(
    "said", ["ฉันเลี้ยงแมวสองตัว", "ຂ້ອຍຢູ່ວຽງຈັນ", "ខ្ញុំរស់នៅភ្នំពេញ", "ကျွန်တော်ရန်ကုန်မှာနေတယ်", "私は京都に住む", "我住在上海"]
)
def test_a_part_of_a_run_without_spaces_is_found(store: SqlMemoryStore, said: str) -> None:
    store.append(ADA, [TurnDraft("user", said), TurnDraft("user", "Nothing of note.")])
    for start in range(0, max(1, len(said) - 6), 3):
        assert [hit.seq for hit in store.search(ADA, said[start : start + 6])] == [1]


def test_the_closer_of_two_thai_turns_comes_first(store: SqlMemoryStore) -> None:
    store.append(ADA, [TurnDraft("user", "แมวของฉันชื่อมะลิ"), TurnDraft("user", "ฉันมาจากเชียงใหม่")])
    assert [hit.seq for hit in store.search(ADA, "แมว")] == [1]
    assert store.search(ADA, "เชียงใหม่")[0].seq == 2


def test_an_emoji_is_a_word_whatever_its_shade(store: SqlMemoryStore) -> None:
    store.append(
        ADA,
        [
            TurnDraft("user", said)
            for said in ("Great 👍🏽!", "I love it ❤️", "We moved 🇳🇴", "👨\u200d👩\u200d👧 at home", "🇴🇳")
        ],
    )
    asked = {"👍": [1], "👍🏿": [1], "❤": [2], "🇳🇴": [3], "👧": [4], "🐕": []}
    assert {text: [hit.seq for hit in store.search(ADA, text)] for text in asked} == asked


def test_vowel_signs_belong_to_their_word(store: SqlMemoryStore) -> None:
    store.append(ADA, [TurnDraft("user", "मेरी बिल्ली का नाम"), TurnDraft("user", "बाल काटना")])
    assert [hit.seq for hit in store.search(ADA, "बिल्ली")] == [1]  # in pieces, both share the consonants

"""Cases about turns and users."""

import datetime as dt
import threading
import unicodedata

import pytest

from locas_storage.conformance.samples import ADA, BEN, draft, item, say
from locas_storage.errors import InvalidTurn
from locas_storage.records.turns import TurnDraft, UserKey, answer_key
from locas_storage.store import MemoryStore

HOSTILE = [
    "a'b",
    'a"b',
    "a%",
    "a_",
    "A",
    "a",
    "a ",
    " a",
    "a;--",
    "../a",
    unicodedata.normalize("NFC", "å"),
    unicodedata.normalize("NFD", "å"),
    "a\u200b",
    "😀",
    "a\n",
]


def test_store_keeps_the_protocol(store: MemoryStore) -> None:
    assert isinstance(store, MemoryStore)


def test_unknown_user_reads_as_empty(store: MemoryStore) -> None:
    assert store.turns(ADA) == []
    assert store.state(ADA) is None
    assert store.users() == []
    assert store.study_items(ADA) == []
    assert store.revisions(ADA) == []
    assert store.revision(ADA) is None
    assert store.audit(ADA) == []


def test_turns_come_back_as_they_went_in(store: MemoryStore) -> None:
    said = dt.datetime(2021, 3, 4, 5, 6, 7, 890123, tzinfo=dt.timezone(dt.timedelta(hours=-7)))
    before = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=2)
    first, second = store.append(
        ADA,
        [
            TurnDraft(
                "tool",
                "résumé 😀\r\n",
                name="Ada",
                session="s1",
                at=said,
                idempotency_key="k1",
                trust="web",
                token_count=4,
                learn=False,
            ),
            TurnDraft("assistant", ""),
        ],
    )
    assert (first.seq, second.seq) == (1, 2)
    assert (
        first.role,
        first.content,
        first.name,
        first.session,
        first.idempotency_key,
        first.trust,
        first.token_count,
    ) == (
        "tool",
        "résumé 😀\r\n",
        "Ada",
        "s1",
        "k1",
        "web",
        4,
    )
    assert first.at == said
    assert first.at.utcoffset() == dt.timedelta(0)
    assert (first.learn, second.learn) == (False, True)
    assert (first.local_at.isoformat(), first.offset_seconds) == (said.isoformat(), -7 * 3600)
    assert (second.local_at, second.offset_seconds) == (second.at, 0)
    assert second.at == second.created_at
    assert before < second.created_at < dt.datetime.now(dt.UTC) + dt.timedelta(seconds=2)
    assert second.idempotency_key != ""
    assert store.turns(ADA) == [first, second]
    state = store.state(ADA)
    assert state is not None
    assert (state.turns, state.next_seq, state.head, state.consolidated_seq) == (2, 3, 0, 0)


def test_turn_that_is_not_to_be_learnt_says_so_wherever_it_is_read(store: MemoryStore) -> None:
    said = TurnDraft("user", "off the record", idempotency_key="k", learn=False)
    alone, again = store.append(ADA, [said])[0], store.append(ADA, [TurnDraft("user", "x", idempotency_key="k")])[0]
    assert [alone.learn, again.learn] == [False, False]
    assert [turn.learn for turn in store.known(ADA, ["k"])] == [False]
    assert [found.learn for found in store.search(ADA, "record")] == [False]
    assert store.correct(ADA, 1, TurnDraft("user", "still off the record", learn=False)).learn is False
    store.append(ADA, [TurnDraft("user", "on the record"), TurnDraft("user", "off it", learn=False)])
    assert [turn.learn for turn in store.turns(ADA)] == [False, True, False]
    store.forget(ADA, [2])
    assert store.known(ADA, ["k"])[0].learn is True  # what is left of a forgotten turn says nothing of it


def test_turns_are_cut_by_number_and_by_newest(store: MemoryStore) -> None:
    say(store, 6)
    assert [turn.seq for turn in store.turns(ADA, after=2)] == [3, 4, 5, 6]
    assert [turn.seq for turn in store.turns(ADA, after=1, upto=4)] == [2, 3, 4]
    assert [turn.seq for turn in store.turns(ADA, newest=2)] == [5, 6]
    assert [turn.seq for turn in store.turns(ADA, upto=4, newest=2)] == [3, 4]
    assert store.turns(ADA, newest=0) == []
    assert len(store.turns(ADA, upto=10**30, newest=10**30)) == 6
    with pytest.raises(InvalidTurn):
        store.turns(ADA, newest=-1)


def test_same_key_is_one_turn(store: MemoryStore) -> None:
    first = store.append(
        ADA,
        [
            TurnDraft("user", "one", idempotency_key="k"),
            TurnDraft("user", "two", idempotency_key="k"),
            TurnDraft("user", "three"),
        ],
    )
    assert [turn.seq for turn in first] == [1, 1, 2]
    again = store.append(ADA, [TurnDraft("assistant", "other", idempotency_key="k"), TurnDraft("user", "four")])
    assert again[0] == first[0]
    assert [turn.seq for turn in again] == [1, 3]
    assert [turn.content for turn in store.turns(ADA)] == ["one", "three", "four"]
    assert store.append(BEN, [TurnDraft("user", "mine", idempotency_key="k")])[0].content == "mine"


def test_answers_are_found_by_the_key_of_their_question(store: MemoryStore) -> None:
    asked = store.append(ADA, [TurnDraft("user", "one", idempotency_key="k"), TurnDraft("user", "two")])
    (answered,) = store.append(ADA, [TurnDraft("assistant", "an answer", answers="k")])
    assert store.known(ADA, [answer_key("k"), "k"]) == [asked[0], answered]
    assert store.known(ADA, [asked[1].idempotency_key]) == [asked[1]]


def test_turn_has_one_answer(store: MemoryStore) -> None:
    store.append(
        ADA,
        [
            TurnDraft("user", "?", idempotency_key="k"),
            TurnDraft("user", "the caller's own", idempotency_key="k:answer"),
        ],
    )
    first = store.append(ADA, [TurnDraft("assistant", "yes", answers="k")])
    assert store.append(ADA, [TurnDraft("assistant", "no", answers="k")]) == first
    assert [turn.content for turn in store.turns(ADA)] == ["?", "the caller's own", "yes"]


def test_many_keys_are_looked_up_at_once(store: MemoryStore) -> None:
    drafts = [TurnDraft("user", "x", idempotency_key=f"k{number}") for number in range(1_200)]
    assert store.append(ADA, drafts) == store.append(ADA, drafts)
    assert len(store.turns(ADA)) == 1_200


def test_turns_are_found_by_their_keys(store: MemoryStore) -> None:
    assert store.known(ADA, ["k1"]) == []
    first, second, third = store.append(
        ADA, [TurnDraft("user", f"text {at}", idempotency_key=f"k{at}", name="Ada") for at in (1, 2, 3)]
    )
    store.append(BEN, [TurnDraft("user", "mine", idempotency_key="k4")])
    assert store.known(ADA, ["k3", "k1", "k4", "k3", "none"]) == [first, third]
    assert store.known(ADA, ["", "\ud800", "k\x00", "k" * 1_000, *(f"k{at}" for at in range(2, 1_300))]) == [
        second,
        third,
    ]
    assert store.known(ADA, []) == []
    store.forget(ADA, [2])
    (left,) = store.known(ADA, ["k2"])
    assert (left.seq, left.is_forgotten, left.content, left.name) == (2, True, "", None)
    store.erase(ADA)
    assert store.known(ADA, ["k1", "k2"]) == []


def test_hostile_names_never_meet(store: MemoryStore) -> None:
    keys = [UserKey(tenant, user) for tenant in HOSTILE[:4] for user in HOSTILE]
    for key in keys:
        store.append(key, [TurnDraft("user", repr((key.tenant, key.user)), idempotency_key="same", session=key.user)])
    for key in keys:
        assert [turn.content for turn in store.turns(key)] == [repr((key.tenant, key.user))]
    assert store.users() == sorted(keys, key=lambda key: (key.tenant, key.user))
    assert {key.user for key in store.users("a%")} == set(HOSTILE)
    assert store.users("A%") == []
    with pytest.raises(InvalidTurn):
        store.users("\ud800")


def test_concurrent_appends_leave_no_gap(store: MemoryStore) -> None:
    errors: list[BaseException] = []

    def work(worker: int) -> None:
        try:
            for number in range(5):
                store.append(
                    ADA, [TurnDraft("user", f"{worker}", idempotency_key=f"{worker}-{number}"), TurnDraft("user", "b")]
                )
                store.turns(ADA, newest=1)
        except BaseException as error:  # noqa: BLE001  a thread must not die unseen
            errors.append(error)

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    turns = store.turns(ADA)
    assert [turn.seq for turn in turns] == list(range(1, 161))
    assert len({turn.idempotency_key for turn in turns}) == 160


def test_users_do_not_see_each_other(store: MemoryStore) -> None:
    for key in (ADA, BEN, UserKey("other", "ada")):
        say(store, 2, key)
        store.commit(key, draft(0, 1, 2, key.short_hash.encode(), new_items=(item(),)))
        store.record(key, "refuse", {"who": key.short_hash})
    for key in (ADA, BEN, UserKey("other", "ada")):
        assert store.payload(key, 1) == key.short_hash.encode()
        assert len(store.study_items(key)) == 1
        assert [entry.facts["who"] for entry in store.audit(key)] == [key.short_hash]
    store.rollback(BEN, 0)
    state = store.state(ADA)
    assert state is not None
    assert state.head == 1

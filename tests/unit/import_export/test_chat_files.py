"""Exports of ChatGPT and Claude: what of them was said, and what is refused. The files are made up."""

from __future__ import annotations

import json
import tracemalloc
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from locas_agent.errors import ExchangeError
from locas_agent.import_export.chat_files import read_chats
from tests.unit.import_export.exported import (
    branching_chat,
    chatgpt_chat,
    chatgpt_message,
    claude_chat,
    write_json,
    write_zip,
)


def test_of_chatgpt_the_branch_shown_last_is_taken_and_nothing_hidden(tmp_path: Path) -> None:
    (chat,) = read_chats(write_json(tmp_path / "conversations.json", [branching_chat()]))
    assert (chat.source, chat.chat_id, chat.began_at) == ("chatgpt", "c-branch", datetime.fromtimestamp(1.7e9, UTC))
    assert [(message.role, message.text) for message in chat.messages] == [
        ("user", "I moved to Turin."),
        ("assistant", "Welcome to Turin."),
        ("user", "This is my cat.\nShe is called Mia."),
    ]
    assert chat.messages[0].at == datetime.fromtimestamp(1700000000.5, UTC)


def test_of_claude_every_message_is_taken_with_its_time(tmp_path: Path) -> None:
    made = claude_chat("u-1", [("human", "I row."), ("assistant", "Nice."), ("human", "")], at="2025-03-04T05:06:07Z")
    made["chat_messages"][1]["content"] = [
        {"type": "thinking", "thinking": "hidden"},
        {"type": "text", "text": "Very"},
        {"type": "tool_use", "name": "x"},
        {"type": "text", "text": "nice."},
    ]
    (chat,) = read_chats(write_zip(tmp_path / "data.zip", [made]))
    assert [(message.role, message.text) for message in chat.messages] == [
        ("user", "I row."),
        ("assistant", "Very\n\nnice."),
    ]
    assert chat.messages[0].at == datetime(2025, 3, 4, 5, 6, 7, tzinfo=UTC)


@pytest.mark.parametrize("name", ["conversations.json", "export/conversations.json", "conversations-001.json"])
def test_chats_are_found_in_an_archive_as_it_was_downloaded(tmp_path: Path, name: str) -> None:
    chats = [claude_chat(f"u-{n}", [("human", "I row.")], at="2025-03-04T05:06:07Z") for n in range(3)]
    assert len(list(read_chats(write_zip(tmp_path / "data.zip", chats, name=name)))) == 3


def test_a_chat_whose_last_node_is_not_named_is_read_from_its_newest_end(tmp_path: Path) -> None:
    chat = branching_chat()
    chat["current_node"] = chat["create_time"] = None
    (read,) = read_chats(write_json(tmp_path / "conversations.json", [chat]))
    assert read.messages[0].text == "I moved to Turin."
    assert read.began_at == read.messages[0].at


def _without(chat: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in chat.items() if name not in names}


CLAUDE = claude_chat("u-1", [("human", "my secret")], at="2025-03-04T05:06:07Z")


@pytest.mark.parametrize(
    ("chat", "said"),
    [
        ({"title": "my secret"}, "neither ChatGPT nor Claude"),
        (_without(CLAUDE, "uuid"), "KeyError"),
        (CLAUDE | {"uuid": ""}, "an id is missing"),
        (CLAUDE | {"created_at": "my secret"}, "ValueError"),
        (CLAUDE | {"chat_messages": "my secret"}, "AttributeError"),
        (CLAUDE | {"created_at": None}, "TypeError"),
        (_without(branching_chat(), "conversation_id", "id"), "an id is missing"),
        (branching_chat() | {"create_time": "my secret"}, "ValueError"),
        (branching_chat() | {"create_time": 1e99}, "OverflowError|ValueError|OSError"),
        (branching_chat() | {"mapping": ["my secret"]}, "AttributeError|TypeError"),
    ],
)
def test_what_no_export_holds_is_refused_without_a_word_of_it(tmp_path: Path, chat: Any, said: str) -> None:
    good = claude_chat("u-0", [("human", "fine")], at="2025-03-04T05:06:07Z")
    with pytest.raises(ExchangeError, match=f"conversation 2 .*({said})") as caught:
        list(read_chats(write_json(tmp_path / "conversations.json", [good, chat])))
    assert "secret" not in str(caught.value)


def test_messages_that_follow_each_other_in_a_circle_are_refused(tmp_path: Path) -> None:
    chat = branching_chat()
    chat["mapping"]["root"]["parent"] = chat["current_node"]
    with pytest.raises(ExchangeError, match="in a circle"):
        list(read_chats(write_json(tmp_path / "conversations.json", [chat])))


def test_what_is_no_export_at_all_says_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(ExchangeError, match=r"no file 'nowhere\.zip'"):
        list(read_chats(tmp_path / "nowhere.zip"))
    with pytest.raises(ExchangeError, match="no file"):
        list(read_chats(tmp_path))
    with pytest.raises(ExchangeError, match=r"no conversations\.json"):
        list(read_chats(write_zip(tmp_path / "other.zip", [], name="messages.json")))
    text = tmp_path / "notes.txt"
    text.write_text("hello")
    with pytest.raises(ExchangeError, match="no JSON list"):
        list(read_chats(text))


def test_a_damaged_archive_is_refused(tmp_path: Path) -> None:
    place = write_zip(tmp_path / "data.zip", [CLAUDE])
    with zipfile.ZipFile(place) as archive:
        at = archive.getinfo("conversations.json").header_offset + 60
    damaged = bytearray(place.read_bytes())
    damaged[at : at + 40] = bytes(40)
    place.write_bytes(damaged)
    with pytest.raises(ExchangeError):
        list(read_chats(place))


@pytest.mark.slow
def test_a_large_file_takes_the_memory_of_its_largest_conversation(tmp_path: Path) -> None:
    place = tmp_path / "data.zip"
    chat = chatgpt_chat("c", [chatgpt_message("user", "I row.", at=1.0, number="1")], at=1.0)
    chat["padding"] = "x" * 500_000
    with (
        zipfile.ZipFile(place, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("conversations.json", "w", force_zip64=True) as member,
    ):
        member.write(b"[")
        for number in range(200):
            member.write(b"," * (number > 0) + json.dumps(chat).encode())
        member.write(b"]")
    tracemalloc.start()
    count = sum(1 for _ in read_chats(place))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 200
    assert peak < 20 << 20  # of 100 MB: a megabyte read at a time, twice over while it is cut and decoded

"""A JSON array read object by object."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from locas_agent.errors import ExchangeError
from locas_agent.import_export.json_stream import JsonArray


def read(text: str, **options: int) -> list[dict[str, Any]]:
    return list(JsonArray(io.StringIO(text), **options))


OBJECTS = st.lists(
    st.dictionaries(
        st.text(max_size=5), st.recursive(st.text() | st.integers() | st.none(), st.lists, max_leaves=5), max_size=4
    ),
    max_size=5,
)


@settings(max_examples=60, deadline=None)
@given(OBJECTS, st.integers(1, 40), st.booleans())
def test_it_reads_what_json_reads_whatever_is_read_at_a_time(objects: list[Any], chunk: int, spaced: bool) -> None:
    text = json.dumps(objects, indent=2 if spaced else None)
    assert read(f" {text}\n ", chunk_chars=chunk) == objects


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the end of the file where '\\['"),
        ("{}", "another character where '\\['"),
        ("[1]", "conversation 1: got int"),
        ("[{}", "the end of the file"),
        ("[{} {}]", "another character where ','"),
        ('[{"a": 1}, {"a": ', "conversation 2 is no JSON"),
        ("[{}] x", "more behind the list of 1"),
        ('[{"a": "secret\n"}]', "conversation 1 is no JSON"),
        ("[{}, ]", "conversation 2 is no JSON"),
        ('[{"a": ' + "[" * 100000, "nested too deep|no JSON"),
    ],
)
def test_what_is_no_array_of_objects_is_refused_without_a_word_of_it(text: str, said: str) -> None:
    with pytest.raises(ExchangeError, match=said) as caught:
        read(text, chunk_chars=7)
    assert "secret" not in str(caught.value)


def test_an_object_without_end_is_given_up() -> None:
    with pytest.raises(ExchangeError, match="more than 1000 characters"):
        read('[{"a": "' + "x" * 10_000, chunk_chars=100, most_chars=1000)


def test_what_is_no_utf8_is_refused() -> None:
    stream = io.TextIOWrapper(io.BytesIO(b'[{"a": "\xff"}]'), encoding="utf-8")
    with pytest.raises(ExchangeError, match="no UTF-8"):
        list(JsonArray(stream))

"""Names of memories: one spelling each, none used twice; salts that nobody guesses."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from locas_agent import AgentMemory
from locas_agent.errors import ConfigurationError
from locas_storage import UserKey
from locas_vllm.names import MemoryName, cache_salt, served_as
from tests.unit.vllm_plugin.conftest import tell

SECRET = b"sixteen bytes or"


@settings(max_examples=30, deadline=None)
@given(st.text(min_size=1, max_size=20), st.integers(0, 10**17), st.integers(1, 10**17))
def test_name_is_read_as_it_was_written(user: str, life: int, revision: int) -> None:
    name = MemoryName(user, life, revision)
    assert MemoryName.parse(str(name)) == name


@pytest.mark.parametrize(
    "text", ["ada", "ada@", "@3", "ada@0", "ada@03", "ada@+3", "ada@3 ", "ada@0.3", "ada@1.", "ada@1.03", "ada@³", ""]
)
def test_text_that_is_no_name_and_every_second_spelling_names_nothing(text: str) -> None:
    assert MemoryName.parse("ada@3") is not None
    assert MemoryName.parse(text) is None


def test_user_may_be_called_like_an_address() -> None:
    assert MemoryName.parse("ada@example.org@3") == MemoryName("ada@example.org", 0, 3)
    assert "ada" not in repr(MemoryName.parse("ada@3"))


def test_no_name_is_used_twice_whatever_becomes_of_the_user(agent: AgentMemory) -> None:
    """Consolidated, rolled back, forgotten in part, erased, come back: each memory has a name of its own."""
    ada = agent.for_user("ada")
    seen: dict[str, str | None] = {}

    def now() -> str | None:
        name, head = served_as(agent.store, ada.key, secret=SECRET).model, agent.store.revision(ada.key)
        if name is not None:
            assert head is not None
            assert seen.setdefault(name, head.payload_sha256) == head.payload_sha256
        return name

    assert now() is None
    tell(agent, "ada", "My dog is Rex.")
    assert now() == "ada@1"
    tell(agent, "ada", "My cat is Tom.")
    assert now() == "ada@2"
    ada.rollback(1)
    assert now() == "ada@3"
    ada.forget(1)
    assert now() is None
    tell(agent, "ada", "My hen is Eve.")
    assert now() not in (None, "ada@1", "ada@2", "ada@3")
    ada.erase()
    assert now() is None
    ada.reinstate()
    assert now() is None
    assert tell(agent, "ada", "I am back.") == 1  # the store begins its numbers anew, the name does not
    assert now() == "ada@1.1"
    ada.rollback(0)
    assert now() is None
    assert len(seen) == len(set(seen)) >= 5


def test_salt_is_the_users_alone_and_hangs_on_the_secret(agent: AgentMemory) -> None:
    keys = [UserKey("default", "ada"), UserKey("default", "ben"), UserKey("other", "ada"), UserKey("a", "ba")]
    salts = [cache_salt(key, secret=SECRET) for key in keys]
    assert len(set(salts)) == len(keys)
    assert served_as(agent.store, keys[0], secret=SECRET).cache_salt == salts[0]
    assert cache_salt(keys[0], secret=SECRET[::-1]) != salts[0]
    with pytest.raises(ConfigurationError, match="3 bytes"):
        cache_salt(keys[0], secret=b"abc")

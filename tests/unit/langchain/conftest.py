"""A random backbone whose template shows tools, users with memories of their own, and no sockets."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.globals import set_llm_cache
from langchain_core.messages import BaseMessage
from pytest_socket import disable_socket, enable_socket

from langchain_locas import ChatLocas, chat_model
from langchain_locas.messages import to_chat
from locas_agent import AgentMemory, Backbone, InMemoryStore, LocasConfig
from locas_agent.memory import LocasMemory
from locas_agent.memory.serialization import to_bytes
from locas_agent.runtime import ConsolidationMode
from locas_storage import Revision, RevisionDraft, open_store
from tests.conftest import MakeMemory, byte_tokenizer, tiny_model

TOOLS_TEMPLATE = (
    "{% if tools %}<|im_start|>system\nTools:\n{% for tool in tools %}{{ tool | tojson }}\n{% endfor %}<|im_end|>\n{% "
    "endif %}"
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}"
    "{% for call in message.tool_calls or [] %}<tool_call>\n{{ call.function | tojson }}\n</tool_call>{% endfor "
    "%}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CONFIG = LocasConfig.model_validate(
    {
        "memory": {"width": 2},
        "window": {"window_tokens": 120, "max_new_tokens": 12},
        "policy": {"overflow_tokens": 60, "min_overflow_tokens": 1},
    }
)
USERS = tuple(f"user {number}" for number in range(8))

MakeAgent = Callable[..., AgentMemory]
Teach = Callable[..., Revision]


@pytest.fixture(autouse=True)
def _no_sockets() -> Iterator[None]:
    disable_socket(allow_unix_socket=True)  # event loops talk to themselves through one
    yield
    enable_socket()


def tool_backbone() -> Backbone:
    """One token per byte, random weights, a template with tools, and room for their schemas."""
    model, tokenizer = tiny_model(), byte_tokenizer()
    model.config.max_position_embeddings = 16384
    tokenizer.chat_template = TOOLS_TEMPLATE
    return Backbone(model, tokenizer, name="random with tools")


@pytest.fixture(scope="session")
def with_tools() -> Backbone:
    """The shared backbone of `tool_backbone`; never change it."""
    return tool_backbone()


@pytest.fixture
def make_agent(with_tools: Backbone, tmp_path: Path) -> Iterator[MakeAgent]:
    """An `AgentMemory` on one SQLite file, each as a process of its own would have it."""
    made: list[AgentMemory] = []

    def make(
        *,
        backbone: Backbone = with_tools,
        config: LocasConfig = CONFIG,
        consolidation: ConsolidationMode = "background",
    ) -> AgentMemory:
        store = open_store(f"sqlite:///{tmp_path / 'locas.db'}")
        made.append(AgentMemory(backbone=backbone, store=store, config=config, consolidation=consolidation))
        return made[-1]

    yield make
    for agent in made:
        agent.close()


@pytest.fixture
def agent(make_agent: MakeAgent) -> AgentMemory:
    return make_agent()


def taught(agent: AgentMemory, payload: LocasMemory, user: str, *, tenant: str = "default") -> Revision:
    """Make everything a user said learnt, as this memory."""
    handle = agent.for_user(user, tenant=tenant)
    if not handle.turns():
        handle.add("user", "Something was said.")
    state = agent.store.state(handle.key)
    assert state is not None
    if state.consolidated_seq == state.turns:
        handle.add("user", "Something more was said.")
    draft = RevisionDraft(
        parent=state.head,
        fingerprint=agent.backbone.fingerprint,
        config_hash="test",
        code_version="test",
        seed=0,
        from_seq=state.consolidated_seq + 1,
        to_seq=max(state.turns, state.consolidated_seq + 1),
        payload=to_bytes(payload),
    )
    return agent.store.commit(handle.key, draft)


@pytest.fixture
def teach(agent: AgentMemory, make_memory: MakeMemory, with_tools: Backbone) -> Teach:
    """Give a user a memory that changes every answer: `teach("ada", seed=3)`."""
    return lambda user, *, seed, tenant="default": taught(agent, make_memory(seed, on=with_tools), user, tenant=tenant)


@pytest.fixture
def model(agent: AgentMemory, teach: Teach) -> ChatLocas:
    """A chat model without a user; `USERS` have a memory each."""
    for seed, user in enumerate(USERS):
        teach(user, seed=seed)
    return ChatLocas(memory=agent)


@pytest.fixture
def cached() -> Iterator[InMemoryCache]:
    """LangChain's cache of answers, switched on."""
    cache = InMemoryCache()
    set_llm_cache(cache)
    yield cache
    set_llm_cache(None)


@pytest.fixture(scope="session")
def shared_model(with_tools: Backbone, make_memory: MakeMemory) -> ChatLocas:
    """The same, made once; never journal, teach or forget anything in its memory."""
    agent = AgentMemory(backbone=with_tools, store=InMemoryStore(), config=CONFIG)
    for seed, user in enumerate(USERS):
        taught(agent, make_memory(seed, on=with_tools), user)
    return ChatLocas(memory=agent)


@pytest.fixture
def prompts(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The texts of each prompt that reached the backbone."""
    seen: list[list[str]] = []

    def noting(messages: Sequence[BaseMessage]) -> list[dict[str, Any]]:
        chat = to_chat(messages)
        seen.append([str(message["content"]) for message in chat])
        return chat

    monkeypatch.setattr(chat_model, "to_chat", noting)
    return seen

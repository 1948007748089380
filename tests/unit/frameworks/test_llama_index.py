"""`LocasMemoryBlock` in LlamaIndex's own `Memory`: what overflows is journalled, what fits is found, users apart."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from locas_agent import AgentMemory

pytest.importorskip("llama_index.core", reason="llama-index-core is not installed: its memory block is not tested")

from llama_index.core.llms import ChatMessage
from llama_index.core.memory import Memory
from sqlalchemy.ext.asyncio import create_async_engine

from locas_frameworks.llama_index import LocasMemoryBlock


@asynccontextmanager
async def memory_of(agent: AgentMemory, user: str) -> AsyncIterator[Memory]:
    """Give a short-term memory of few tokens, above the block of a user."""
    engine = create_async_engine("sqlite+aiosqlite://")
    yield Memory.from_defaults(
        session_id="s1",
        token_limit=120,
        token_flush_size=20,
        chat_history_token_ratio=0.3,
        memory_blocks=[LocasMemoryBlock(memory=agent.for_user(user))],
        tokenizer_fn=str.split,
        async_engine=engine,
    )
    await engine.dispose()


def said(number: int, what: str) -> list[ChatMessage]:
    return [
        ChatMessage(role="user", content=f"Fact {number}: {what}, which I told you in this sentence of many words."),
        ChatMessage(role="assistant", content=f"Noted as number {number}."),
    ]


async def test_what_leaves_the_short_term_memory_is_journalled_and_found_for_its_user_alone(agent: AgentMemory) -> None:
    async with memory_of(agent, "ada") as ada, memory_of(agent, "ben") as ben:
        for number in range(8):
            await ada.aput_messages(said(number, f"my dog is called Rex{number}"))
            await ben.aput_messages(said(number, f"my boat is called Nix{number}"))
        turns = agent.for_user("ada").turns()
        shown = await ada.aget(input="What is the name of my dog Rex0?")
    assert 2 <= len(turns) < 16
    assert turns[0].content.startswith("Fact 0: my dog is called Rex0")
    assert {turn.session for turn in turns} == {"s1"}
    assert not any("Nix" in turn.content for turn in turns)
    whole = "\n".join(str(message.content) for message in shown)
    assert "what_was_said_before" in whole
    assert "my dog is called Rex0" in whole
    assert "Nix" not in whole


async def test_what_is_forgotten_is_put_into_no_prompt(agent: AgentMemory) -> None:
    ada = agent.for_user("ada")
    block = LocasMemoryBlock(memory=ada)
    await block.aput(said(1, "my dog is called Rex"), session_id="s1")
    asked = [ChatMessage(role="user", content="dog")]
    assert "Rex" in await block.aget(asked)
    ada.forget(1)
    assert "Rex" not in await block.aget(asked)


async def test_messages_of_tools_and_what_no_turn_can_hold_are_left_out(agent: AgentMemory) -> None:
    block = LocasMemoryBlock(memory=agent.for_user("ada"), learn=False)
    await block.aput(
        [
            ChatMessage(role="system", content="Be short."),
            ChatMessage(role="tool", content="42"),
            ChatMessage(role="user", content="word " * 5000),
            ChatMessage(role="user", content="a\x00b"),
            ChatMessage(role="assistant", content=None),
            ChatMessage(role="user", content="I row."),
        ]
    )
    assert [(turn.content, turn.learn) for turn in agent.for_user("ada").turns()] == [("I row.", False)]


async def test_blocks_at_once_stay_apart(agent: AgentMemory) -> None:
    blocks = {user: LocasMemoryBlock(memory=agent.for_user(user)) for user in ("ada", "ben", "cleo")}
    await asyncio.gather(
        *(
            block.aput([ChatMessage(role="user", content=f"{user} says {n}")])
            for n in range(6)
            for user, block in blocks.items()
        )
    )
    for user in blocks:
        texts = sorted(turn.content for turn in agent.for_user(user).turns())
        assert texts == [f"{user} says {n}" for n in range(6)]


async def test_it_is_cut_from_the_line_that_fits_least(agent: AgentMemory) -> None:
    block = LocasMemoryBlock(memory=agent.for_user("ada"))
    content = "the best line\nthe second line\nthe last line"
    assert await block.atruncate(content, 1) == "the best line\nthe second line"
    assert await block.atruncate(content, 1000) is None


async def test_nothing_is_looked_up_where_nothing_is_asked_or_wanted(agent: AgentMemory) -> None:
    ada = agent.for_user("ada")
    ada.add("user", "My dog is called Rex.")
    asked = [ChatMessage(role="user", content="dog")]
    assert await LocasMemoryBlock(memory=ada, found_turns=0).aget(asked) == ""
    assert await LocasMemoryBlock(memory=ada).aget([]) == ""
    assert await LocasMemoryBlock(memory=ada).aget(asked) != ""


def test_a_dump_and_a_repr_name_no_user(agent: AgentMemory) -> None:
    block = LocasMemoryBlock(memory=agent.for_user("ada"))
    assert "memory" not in block.model_dump()
    assert "ada" not in repr(block)
    assert copy.deepcopy(block).memory.key == block.memory.key

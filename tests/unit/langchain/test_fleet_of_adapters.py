"""A chat model, its middleware and a history over a fleet: each user on the backbone of the memory, moved or not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, HumanMessage

from langchain_locas import ChatLocas, LocasChatMessageHistory, LocasMemoryMiddleware
from locas_agent import AgentMemory, Backbone, Fleet
from locas_storage import open_store
from tests.conftest import MakeMemory, byte_tokenizer, tiny_model
from tests.unit.langchain.conftest import CONFIG, TOOLS_TEMPLATE, taught

pytestmark = pytest.mark.rounding


@pytest.fixture(scope="module")
def narrow() -> Backbone:
    """Another backbone, of a shorter reach."""
    model, tokenizer = tiny_model(1), byte_tokenizer()
    model.config.max_position_embeddings = 4096
    tokenizer.chat_template = TOOLS_TEMPLATE
    return Backbone(model, tokenizer, name="narrow")


@pytest.fixture
def fleet(with_tools: Backbone, narrow: Backbone, make_memory: MakeMemory, tmp_path: Path) -> Iterator[Fleet]:
    """A fleet; ada's memory is on the first backbone, ben's on the second."""
    store = open_store(f"sqlite:///{tmp_path / 'locas.db'}")
    agents = [AgentMemory(backbone=one, store=store, config=CONFIG) for one in (with_tools, narrow)]
    with Fleet(agents) as made:
        for agent, user in zip(agents, ("ada", "ben"), strict=True):
            taught(agent, make_memory(3, on=agent.backbone), user)
        yield made


def alone(agent: AgentMemory, user: str) -> str:
    return agent.for_user(user).generate([{"role": "user", "content": "Who?"}], max_new_tokens=4).text


def test_each_user_is_answered_on_the_backbone_of_the_memory(fleet: Fleet) -> None:
    first, second = fleet.agents
    model = ChatLocas(memory=fleet, max_tokens=4)
    assert model.model == first.backbone.name
    assert model.profile is not None
    assert model.profile["max_input_tokens"] == 4096  # what fits on each
    for agent, user in ((first, "ada"), (second, "ben"), (first, "nobody yet")):
        answer = model.invoke("Who?", user_id=user)
        assert answer.content == alone(agent, user)
        assert answer.response_metadata["used_memory"] is (user != "nobody yet")
    assert second.backbone.fingerprint in model._get_llm_string(user_id="ben")


def test_agent_and_history_follow_a_user_who_is_moved(fleet: Fleet, make_memory: MakeMemory) -> None:
    first, second = fleet.agents
    agent = create_agent(ChatLocas(memory=fleet, max_tokens=4), tools=[], middleware=[LocasMemoryMiddleware(fleet)])

    def asked(user: str) -> AIMessage:
        state = agent.invoke({"messages": [HumanMessage("Who?")]}, config={"configurable": {"user_id": user}})
        answer = state["messages"][-1]
        assert isinstance(answer, AIMessage)
        return answer

    before = asked("ada")
    assert before.content == alone(first, "ada")
    ada = fleet.for_user("ada")
    ada.rollback(0)
    taught(second, make_memory(5, on=second.backbone), "ada")
    assert asked("ada").content == alone(second, "ada")
    history = LocasChatMessageHistory("ada", "monday", memory=fleet)
    history.add_messages([HumanMessage("I row.")])
    assert [message.content for message in history.messages] == ["I row."]
    assert ada.turns()[-1].content == "I row."
    assert [turn.content for turn in fleet.for_user("ben").turns()] == ["Something was said."]

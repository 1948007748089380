"""A LangGraph graph of one's own, with a checkpointer.

Threads hold conversations, the memory follows the user from one to the next.

    python examples/langgraph_thread.py                       # bundled backbone, on CPU, nothing is left behind

Ada tells something in the thread "monday". It is learnt. In the thread "tuesday", whose checkpoint is empty, it is
answered from the weights; Ben, who asks the same, is not told. Ends with code 0 if so.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph

from langchain_locas import ChatLocas, LocasChatMessageHistory
from locas_agent import AgentMemory

TOLD, ASKED, ANSWER = "My dog is called Zorbin.", "What is my dog called?", "Zorbin"


def build(memory: AgentMemory) -> Any:
    """Return a graph of two nodes: one answers, one journals.

    Both find the user in `configurable`; neither keeps one.
    """
    model = ChatLocas(memory=memory)

    def answer(state: MessagesState) -> dict[str, Any]:
        return {"messages": [model.invoke(state["messages"])]}

    def journal(state: MessagesState, config: RunnableConfig) -> None:
        who = config["configurable"]
        history = LocasChatMessageHistory(who["user_id"], who["thread_id"], memory=memory)
        history.add_messages(state["messages"])  # all of them: a message that is there already is not added again

    graph = StateGraph(MessagesState)
    graph.add_sequence([answer, journal])
    graph.add_edge(START, "answer")
    # A server keeps its threads too: langgraph-checkpoint-sqlite or -postgres in the place of this one.
    return graph.compile(checkpointer=InMemorySaver())


def say(graph: Any, user: str, thread: str, text: str) -> str:
    """Say something in a thread and return the answer."""
    # Threads are the program's: their names must differ between users, or one would read the other's conversation.
    config = {"configurable": {"user_id": user, "thread_id": f"{user}, {thread}"}}
    state = graph.invoke({"messages": [("human", text)]}, config)
    answer = state["messages"][-1]
    facts = answer.response_metadata
    print(
        f"{user}, {thread} ({len(state['messages'])} messages in the thread, revision {facts['memory_revision']}): "
        f"{text} -> {answer.text}"
    )
    return str(answer.text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--backbone", default="tiny", help="'tiny' (bundled), a folder, or a hub id")
    arguments = parser.parse_args()
    with AgentMemory.load(arguments.backbone, "sqlite://") as memory:
        graph = build(memory)
        say(graph, "ada", "monday", TOLD)
        result = memory.for_user("ada").consolidate(flush=True)
        print(f"ada's memory: {result.status} {result.detail}".rstrip())
        remembered = ANSWER in say(graph, "ada", "tuesday", ASKED)
        kept_apart = ANSWER not in say(graph, "ben", "tuesday", ASKED)
    sys.exit(0 if remembered and kept_apart else "Ada was not answered from her memory, or Ben was.")


if __name__ == "__main__":
    main()

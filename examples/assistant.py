"""A terminal assistant on LangChain's `create_agent`.

Several users, each with a memory in the weights that outlives the process.

    python examples/assistant.py                              # bundled backbone, on CPU, ./assistant.db
    python examples/assistant.py --backbone Qwen/Qwen3-8B     # a backbone that can also call the memory tools by itself

Tell it something, /learn, /quit, start it again and ask: the answer comes from the weights, no turn is in the prompt.
Commands:

    /user NAME      somebody else speaks
    /learn          learn everything that was said, now; else it is learnt when enough has left the window
    /turns          what is in the journal
    /forget N       forget turn N as if it had never been said
    /quit           leave
"""

from __future__ import annotations

import argparse
import sys
import uuid
from collections.abc import Iterator

from langchain.agents import create_agent
from langgraph.checkpoint.memory import InMemorySaver

from langchain_locas import ChatLocas, LocasMemoryMiddleware, memory_tools
from locas_agent import AgentMemory, LocasError, UserMemory


class Assistant:
    """One agent for everybody; who speaks is named in each call."""

    def __init__(self, memory: AgentMemory) -> None:
        self.memory = memory
        model = ChatLocas(memory=memory)
        # The bundled backbone has no template for tools; then /forget is the only way.
        tools = memory_tools(memory) if (model.profile or {}).get("tool_calling") else []
        self.agent = create_agent(
            model, tools=tools, middleware=[LocasMemoryMiddleware(memory)], checkpointer=InMemorySaver()
        )
        self.threads: dict[str, str] = {}  # a new conversation with each start: what is older is in the memory

    def answer(self, user: str, text: str) -> Iterator[str]:
        """Yield the answer piece by piece."""
        thread = self.threads.setdefault(user, uuid.uuid4().hex)
        config = {"configurable": {"user_id": user, "thread_id": thread}}
        for chunk, _ in self.agent.stream({"messages": [("human", text)]}, config, stream_mode="messages"):
            if chunk.type == "AIMessageChunk":
                yield str(chunk.text)

    def tend(self, user: UserMemory) -> None:
        """Learn what left the window once it is enough; a server would leave that to `locas-agent work`."""
        if user.consolidation_due().is_due:
            self.learn(user, flush=False)

    def learn(self, user: UserMemory, *, flush: bool) -> None:
        """Learn, and say what became of it."""
        result = user.consolidate(flush=flush)
        print(f"({result.status}: {result.turns} turns{f', {result.detail}' if result.detail else ''})")


def run(assistant: Assistant, name: str) -> None:
    """Take line after line until they end."""
    user = assistant.memory.for_user(name)
    for line in lines():
        command, _, rest = line.strip().partition(" ")
        try:
            match command:
                case "/quit":
                    return
                case "/user" if rest:
                    name = rest
                    user = assistant.memory.for_user(name)
                    print(f"({name} speaks)")
                case "/learn":
                    assistant.learn(user, flush=True)
                case "/turns":
                    for turn in user.turns():
                        print(f"{turn.seq:4} {turn.role}: {turn.content}")
                case "/forget" if rest.isdecimal():
                    receipt = user.forget(int(rest))
                    print(
                        f"(forgotten: {len(receipt.turns)} turns, {len(receipt.revisions)} memories that had seen them)"
                    )
                case "":
                    pass
                case _ if command.startswith("/"):
                    print("Commands: /user NAME, /learn, /turns, /forget N, /quit")
                case _:
                    for piece in assistant.answer(name, line.strip()):
                        print(piece, end="", flush=True)
                    print()
                    assistant.tend(user)
        except LocasError as error:
            print(f"error: {error}", file=sys.stderr)


def lines() -> Iterator[str]:
    while True:
        try:
            yield input("> " if sys.stdin.isatty() else "")
        except EOFError:
            return


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--user", default="ada", help="who speaks first")
    parser.add_argument("--backbone", default="tiny", help="'tiny' (bundled), a folder, or a hub id")
    parser.add_argument("--store", default="sqlite:///assistant.db", help="SQLAlchemy URL of the database")
    arguments = parser.parse_args()
    with AgentMemory.load(arguments.backbone, arguments.store) as memory:
        run(Assistant(memory), arguments.user)


if __name__ == "__main__":
    main()

"""`LocasMemoryMiddleware`: gives each turn of an agent the memory of the user who speaks.

Keeps no state of any user.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from langchain.agents.middleware import AgentMiddleware, ModelRequest, ModelResponse, ToolCallRequest
from langchain_core.messages import RemoveMessage, ToolMessage
from langgraph.config import get_config
from langgraph.runtime import Runtime
from langgraph.types import Command

from langchain_locas.chat_model import ChatLocas
from langchain_locas.errors import ForeignThread
from langchain_locas.fitting import prompt_tokens
from langchain_locas.identity import USER_ID, caller
from langchain_locas.journaling import Thread, record, trim_to_window
from langchain_locas.marks import NOBODY, Marks, ThreadState
from locas_agent import MemoryHost, UserMemory
from locas_agent.errors import ConfigurationError


class LocasMemoryMiddleware(AgentMiddleware[ThreadState, Any, Any]):
    """Name the user to the model, cut its prompt to the live window, and journal each message once.

    The user is looked for in the run's context (`context={"user_id": ...}`), then the server's authenticated user, then
    `configurable`. A message is journalled under its thread and its id: before the model is called, so that a question
    survives an error, and after the agent has ended. Retries, resumed threads and other processes find it journalled. A
    message edited under its id replaces its turn.

    A thread belongs to the user who began it; anybody else's call is refused with `ForeignThread`, and leaves nothing
    in the thread. With `shared` a thread is a room: each speaker is journalled for themselves alone, and no answer
    is, since it may quote the others.

    A message that the journal refuses fails the call that brings it. Later calls pass it over, with a line in the log.

    The checkpoint keeps every message, and who said it, as a digest. The model sees the newest exchanges and those not
    learnt yet; what was forgotten it does not see. Put this middleware first: what another one's `before_agent` refuses
    before it is put down to the next caller.

    A hook never trains. With `AgentMemory(consolidation="background")` the transaction that journals a turn queues what
    is due, for `locas-agent work` or `AgentMemory.work`; inline, `UserMemory.consolidation_due` and
    `consolidate` are the program's to call between turns.

    Args:
        memory: the one behind the agent's `ChatLocas`.
        tenant: the application or customer the users belong to; the model's.
        shared: whether several users may speak in one thread.
    """

    state_schema = ThreadState

    def __init__(self, memory: MemoryHost, *, tenant: str = "default", shared: bool = False) -> None:
        super().__init__()
        self._memory = memory
        self._tenant = tenant
        self._shared = shared

    def before_agent(self, state: ThreadState, runtime: Runtime[Any]) -> dict[str, Any] | None:
        """Put down who said what is new in the thread; take out again what one says who may not speak here."""
        return self._opened(state, runtime, get_config())

    async def abefore_agent(self, state: ThreadState, runtime: Runtime[Any]) -> dict[str, Any] | None:
        """Do the same."""
        return self._opened(state, runtime, get_config())

    def before_model(self, state: ThreadState, runtime: Runtime[Any]) -> dict[str, Any] | None:
        """Refuse who may not speak here, before any model reads the thread for them."""
        self._thread(state, runtime, get_config())
        return None

    async def abefore_model(self, state: ThreadState, runtime: Runtime[Any]) -> dict[str, Any] | None:
        """Do the same."""
        return self.before_model(state, runtime)

    def wrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], ModelResponse[Any]]
    ) -> ModelResponse[Any]:
        """Journal the question, and call the model with what it has to see."""
        return handler(self._prepared(request, get_config()))

    async def awrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]]
    ) -> ModelResponse[Any]:
        """Do the same, off the event loop."""
        return await handler(await asyncio.to_thread(self._prepared, request, get_config()))

    def wrap_tool_call(
        self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], ToolMessage | Command[Any]]
    ) -> ToolMessage | Command[Any]:
        """Run a tool for the user who may speak here: a run that waits for a person may be resumed by somebody else."""
        self._thread(request.state, request.runtime, get_config())
        return handler(request)

    async def awrap_tool_call(
        self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Awaitable[ToolMessage | Command[Any]]]
    ) -> ToolMessage | Command[Any]:
        """Do the same."""
        self._thread(request.state, request.runtime, get_config())
        return await handler(request)

    def after_agent(self, state: ThreadState, runtime: Runtime[Any]) -> dict[str, Any] | None:
        """Journal the answer."""
        return self._closed(state, self._thread(state, runtime, get_config()))

    async def aafter_agent(self, state: ThreadState, runtime: Runtime[Any]) -> dict[str, Any] | None:
        """Do the same, off the event loop."""
        return await asyncio.to_thread(self._closed, state, self._thread(state, runtime, get_config()))

    def _opened(self, state: ThreadState, runtime: Runtime[Any], config: Mapping[str, Any]) -> dict[str, Any] | None:
        marks, messages = Marks.of(state), state["messages"]
        try:
            user = self._user(marks, runtime, config)
        except ConfigurationError:
            # `before_model` says so. An error here would leave the messages in the thread, for the next caller to be
            # taken as theirs.
            gone = [RemoveMessage(id=str(message.id)) for message in marks.brought(messages)]
            return {"messages": gone} if gone else None
        # An agent inside another graph may find the messages of all its users, and no marks: nothing earlier is taken
        # to be the caller's.
        is_inner = "|" in str(_configurable(config).get("checkpoint_ns") or "")
        return marks.opened(messages, user.key.digest, takes_earlier=not (self._shared or is_inner)).as_state()

    def _closed(self, state: ThreadState, thread: Thread) -> dict[str, Any]:
        recorded = record(self._memory.runtime_of(thread.user.key), thread, state["messages"])
        by = NOBODY if self._shared else thread.user.key.digest
        return thread.marks.closed(state["messages"], by, recorded.refused).as_state()

    def _prepared(self, request: ModelRequest[Any], config: Mapping[str, Any]) -> ModelRequest[Any]:
        model = self._ours(request.model)
        thread = self._thread(request.state, request.runtime, config)
        # The state holds what was said; what other middleware makes of it for this one request is shown, and not
        # journalled.
        home = self._memory.runtime_of(thread.user.key)
        recorded = record(home, thread, request.state["messages"])
        system = [request.system_message] if request.system_message is not None else []
        answer = model.answer_tokens(request.model_settings.get("max_tokens"), home=home)

        def count(messages: Any) -> int:
            return prompt_tokens(home, [*system, *messages], request.tools)

        shown = trim_to_window(home, thread, request.messages, recorded, answer_tokens=answer, count=count)
        return request.override(
            messages=shown,  # type: ignore[arg-type]
            model_settings={**request.model_settings, USER_ID: thread.user.key.user},
        )

    def _ours(self, model: Any) -> ChatLocas:
        """Refuse a model that would answer without this memory, which nobody would notice.

        Raises:
            ConfigurationError: it is no `ChatLocas`, or one of another memory or tenant.
        """
        if not isinstance(model, ChatLocas):
            raise ConfigurationError(
                f"the agent's model is a {type(model).__name__}, which cannot apply a memory held in weights: build "
                "the agent with ChatLocas"
            )
        if model.agent_memory is not self._memory or model.tenant != self._tenant:
            raise ConfigurationError(
                "the agent's ChatLocas has another memory or tenant than LocasMemoryMiddleware: give both the same"
            )
        return model

    def _thread(self, state: Mapping[str, Any], runtime: Any, config: Mapping[str, Any]) -> Thread:
        marks = Marks.of(state)
        user = self._user(marks, runtime, config)
        thread_id = _configurable(config).get("thread_id")
        return Thread(user, None if thread_id is None else str(thread_id), marks, is_shared=self._shared)

    def _user(self, marks: Marks, runtime: Any, config: Mapping[str, Any]) -> UserMemory:
        """Return who speaks.

        Raises:
            ConfigurationError: nobody is named.
            ForeignThread: another user began the thread, and it is no room.
        """
        user = self._memory.for_user(caller(runtime, config), tenant=self._tenant)
        if not self._shared and marks.owner not in (None, user.key.digest):
            raise ForeignThread(
                "this thread was begun by another user: give each user threads of their own, or build "
                "LocasMemoryMiddleware(shared=True) "
                "for a room in which several speak"
            )
        return user


def _configurable(config: Mapping[str, Any]) -> Mapping[str, Any]:
    return config.get("configurable") or {}

"""`LocasMemoryMiddleware`: gives each turn of an agent the memory of the user who speaks. Keeps no state of any user."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from langchain.agents.middleware import AgentMiddleware, AgentState, ModelRequest, ModelResponse
from langgraph.config import get_config
from langgraph.runtime import Runtime

from langchain_locas.caller import USER_ID, caller
from langchain_locas.chat_model import ChatLocas
from langchain_locas.recording import Thread, live, record
from locas_agent import AgentMemory
from locas_agent.errors import ConfigurationError


class LocasMemoryMiddleware(AgentMiddleware[AgentState[Any], Any, Any]):
    """Name the user to the model, cut its prompt to the live window, and journal each message once.

    The user is looked for in the run's context (`context={"user_id": ...}`), then the server's authenticated user, then `configurable`.
    A message is journalled under its thread and its id: before the model is called, so that a question survives an error, and after the
    agent has ended. Retries, resumed threads and other processes find it journalled.

    The checkpoint keeps every message. The model sees the newest exchanges and those not learnt yet; what was forgotten it does not see.

    A hook never trains. With `AgentMemory(consolidation="background")` the transaction that journals a turn queues what is due, for
    `locas-agent work` or `AgentMemory.work`; inline, `UserMemory.due` and `consolidate` are the program's to call between turns.

    Args:
        memory: the one behind the agent's `ChatLocas`.
        tenant: the application or customer the users belong to; the model's.
    """

    def __init__(self, memory: AgentMemory, *, tenant: str = "default") -> None:
        super().__init__()
        self._memory = memory
        self._tenant = tenant

    def wrap_model_call(self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], ModelResponse[Any]]) -> ModelResponse[Any]:
        """Journal the question, and call the model with what it has to see."""
        return handler(self._prepared(request, get_config()))

    async def awrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]]
    ) -> ModelResponse[Any]:
        """Do the same, off the event loop."""
        return await handler(await asyncio.to_thread(self._prepared, request, get_config()))

    def after_agent(self, state: AgentState[Any], runtime: Runtime[Any]) -> dict[str, Any] | None:
        """Journal the answer."""
        record(self._memory, self._thread(runtime, get_config()), state["messages"])
        return None

    async def aafter_agent(self, state: AgentState[Any], runtime: Runtime[Any]) -> dict[str, Any] | None:
        """Do the same, off the event loop."""
        await asyncio.to_thread(record, self._memory, self._thread(runtime, get_config()), state["messages"])
        return None

    def _prepared(self, request: ModelRequest[Any], config: Mapping[str, Any]) -> ModelRequest[Any]:
        model = self._ours(request.model)
        thread = self._thread(request.runtime, config)
        turns = record(self._memory, thread, request.messages)
        system = [request.system_message] if request.system_message is not None else []
        answer = model.answer_tokens(request.model_settings.get("max_tokens"))

        def count(messages: Any) -> int:
            return model.get_num_tokens_from_messages([*system, *messages], request.tools)

        return request.override(
            messages=live(self._memory, thread, request.messages, turns, answer_tokens=answer, count=count),  # type: ignore[arg-type]
            model_settings={**request.model_settings, USER_ID: thread.user.key.user},
        )

    def _ours(self, model: Any) -> ChatLocas:
        """Refuse a model that would answer without this memory, which nobody would notice.

        Raises:
            ConfigurationError: it is no `ChatLocas`, or one of another memory or tenant.
        """
        if not isinstance(model, ChatLocas):
            raise ConfigurationError(
                f"the agent's model is a {type(model).__name__}, which cannot apply a memory held in weights: build the agent with ChatLocas"
            )
        if model.agent_memory is not self._memory or model.tenant != self._tenant:
            raise ConfigurationError("the agent's ChatLocas has another memory or tenant than LocasMemoryMiddleware: give both the same")
        return model

    def _thread(self, runtime: Runtime[Any], config: Mapping[str, Any]) -> Thread:
        user = self._memory.for_user(caller(runtime, config), tenant=self._tenant)
        thread_id = (config.get("configurable") or {}).get("thread_id")
        return Thread(user, None if thread_id is None else str(thread_id))

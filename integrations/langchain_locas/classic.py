"""`LocasChainMemory`: one user's memory as a `BaseMemory`, for chains written before LangChain 1.

Needs the extra `classic`.

LangChain marks its base class for removal in version 2; new programs take `LocasMemoryMiddleware`.
"""

from __future__ import annotations

from typing import Any

from langchain_classic.base_memory import BaseMemory
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, get_buffer_string
from pydantic import ConfigDict, Field, ValidationError

from langchain_locas.keeping import keep
from langchain_locas.messages import from_turns
from langchain_locas.options import refused
from locas_agent import MemoryHost, UserMemory
from locas_agent.errors import ConfigurationError


class LocasChainMemory(BaseMemory):
    """Give a chain the turns that are not in the weights, and journal what it was told and answered.

    The variable holds the live window: the newest turns, and older ones that are not learnt yet, while the backbone's
    context has room. What is learnt is in the weights, which only `ChatLocas` applies: take it as the chain's model,
    for the same user.

    Args:
        memory: where the journal is.
        user_id: whose.
        tenant: the application or customer the user belongs to.
        session_id: the session that new turns belong to.
        memory_key: name of the variable.
        input_key: which input the user said; needed where a chain has several.
        output_key: which output the assistant said; needed where a chain has several.
        return_messages: whether the variable holds messages rather than text.

    Raises:
        ConfigurationError: an unknown option, or a value of another type.
    """

    memory: MemoryHost = Field(exclude=True, repr=False)
    user_id: str
    tenant: str = "default"
    session_id: str | None = None
    memory_key: str = "history"
    input_key: str | None = None
    output_key: str | None = None
    return_messages: bool = False

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid", hide_input_in_errors=True)

    def __init__(self, **fields: Any) -> None:
        try:
            super().__init__(**fields)
        except ValidationError as error:
            raise refused(error) from None

    @property
    def memory_variables(self) -> list[str]:
        """The one variable."""
        return [self.memory_key]

    def load_memory_variables(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Return the live window."""
        messages = from_turns(self.memory.runtime_of(self._user.key).prompts.build(self._user.key).layout.prompt_turns)
        return {self.memory_key: messages if self.return_messages else get_buffer_string(messages)}

    def save_context(self, inputs: dict[str, Any], outputs: dict[str, Any]) -> None:
        """Journal what the user said and what was answered, both or, where one is refused, neither.

        A value may be a text, a message, or several of them; a message speaks for itself, by its role and its id.

        Raises:
            ConfigurationError: a value is nothing of that, or it cannot be told which one was said.
            InvalidTurn: text that cannot be stored.
            TurnTooLong: a message does not fit into the backbone's context beside an answer.
        """
        said = _only(
            {name: value for name, value in inputs.items() if name != self.memory_key}, self.input_key, "input_key"
        )
        answered = _only(outputs, self.output_key, "output_key")
        keep(
            self.memory,
            self._user.key,
            self.session_id,
            [*_messages(said, HumanMessage), *_messages(answered, AIMessage)],
        )

    def clear(self) -> None:
        """Forget the session, or without a session_id every turn of the user, and what was learnt from them."""
        turns = [turn for turn in self._user.turns() if self.session_id is None or turn.session == self.session_id]
        if turns:
            self._user.forget(turns)

    @property
    def _user(self) -> UserMemory:
        return self.memory.for_user(self.user_id, tenant=self.tenant)


def _only(values: dict[str, Any], key: str | None, option: str) -> object:
    """Return the value of a key, or the only one."""
    names = [key] if key is not None else list(values)
    if len(names) != 1 or names[0] not in values:
        raise ConfigurationError(
            f"{option} is {key!r}, the chain has {', '.join(sorted(values)) or 'none'}: name the one that was said"
        )
    return values[names[0]]


def _messages(value: object, speaker: type[HumanMessage | AIMessage]) -> list[BaseMessage]:
    """Return what a chain was told or answered as messages; a bare text is the speaker's."""
    if isinstance(value, str):
        return [speaker(value)]
    if isinstance(value, BaseMessage):
        return [value]
    if isinstance(value, list | tuple):
        return [message for one in value for message in _messages(one, speaker)]
    raise ConfigurationError(
        f"a chain was told or answered a {type(value).__name__}, expected a text or messages: name another key, or "
        "give its text"
    )

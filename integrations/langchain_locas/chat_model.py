"""`ChatLocas`: a chat model that answers each call with the memory of the user who calls.

Owns the shape of LangChain's results and the cache key; the way of the user id into a call is `routing.py`'s. It
journals nothing: what is said is recorded by `LocasMemoryMiddleware`, `LocasChatMessageHistory`, or the verbs of
`AgentMemory`.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Self

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import LanguageModelInput, ModelProfile
from langchain_core.language_models.base import LangSmithParams
from langchain_core.language_models.chat_models import generate_from_stream
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    FieldSerializationInfo,
    ModelWrapValidatorHandler,
    ValidationError,
    field_serializer,
    model_validator,
)

from langchain_locas.errors import AnswerTimeout, PromptTooLong
from langchain_locas.fitting import fitted, prompt_tokens
from langchain_locas.identity import NO_USER, USER_ID, checked
from langchain_locas.loading import MemoryOpening, profile_of
from langchain_locas.messages import to_chat
from langchain_locas.options import StoreUrl, check_options, refused, secret, stop_words, without_values
from langchain_locas.routing import RoutedChatModel
from locas_agent import AgentMemory, ChatAnswer, GenerationStream, MemoryHost, UserKey
from locas_agent.errors import ConfigurationError, GenerationTimeout, TurnTooLong
from locas_agent.serving.tool_calls import must_call, require_tools
from locas_agent.types import DEFAULT_STORE, Dtype
from locas_storage.records.bounds import check_text

DEFAULT_MODEL = "tiny"

_STANDARD = frozenset({"api_key", "max_retries"})
"""What LangChain's interface gives every constructor and a model in this process has no use for."""


class ChatLocas(RoutedChatModel):
    """Answer with the memory of one user, named per call.

    The user is looked for in the call (`user_id=`), then in `config["configurable"]["user_id"]`, then in the
    constructor. Without one nothing is answered. Construction is cheap: the backbone is loaded when it is first needed.

    Args:
        model: "tiny" (bundled), a folder, or a hub id.
        fields: see the fields below.

    Raises:
        ConfigurationError: an unknown option, or a value that an option cannot have; it is not quoted.

    Example:
        ``ChatLocas("tiny").invoke("What is my dog called?", user_id="ada")``
    """

    model: str = DEFAULT_MODEL
    """The backbone; the name of the memory's if one is given."""
    user_id: str | None = None
    """Who is answered when a call names nobody; only for a program with one user."""
    tenant: str = "default"
    """The application or customer the users belong to."""
    store: Annotated[StoreUrl | Path | None, BeforeValidator(secret)] = StoreUrl(DEFAULT_STORE)
    """What `AgentMemory.load` takes: SQLAlchemy URL of the database, "sqlite://" for one in memory, or a path. It is
    kept as a secret."""
    memory: MemoryHost | None = Field(default=None, exclude=True, repr=False)
    """A ready memory or a `Fleet`, shared by reference; decides model, store, device and dtype. The model of a fleet is
    called as its first backbone; each user is answered on the one of the user's memory."""
    device: str | None = None
    """Where the backbone runs; the first GPU if there is one, else the CPU."""
    dtype: Dtype = "auto"
    """Dtype of the backbone."""
    temperature: float | None = None
    """0, or nothing, is greedy."""
    max_tokens: int | None = None
    """Longest answer, in tokens; the memory's configuration decides unless given."""
    seed: int = 0
    """Seed of sampling: the same call with the same seed gives the same answer."""
    stop: Annotated[list[str] | None, BeforeValidator(lambda given: None if given is None else stop_words(given))] = (
        Field(default=None, alias="stop_sequences")
    )
    """The word, or the words, before which an answer ends."""
    timeout: float | None = None
    """Longest time for an answer, in seconds."""
    streaming: bool = False
    """Whether `invoke` tells callbacks of the answer while it is written."""
    opening: MemoryOpening = Field(default_factory=MemoryOpening, exclude=True, repr=False)

    model_config = ConfigDict(
        populate_by_name=True, arbitrary_types_allowed=True, protected_namespaces=(), hide_input_in_errors=True
    )

    def __init__(self, model: str = DEFAULT_MODEL, **fields: Any) -> None:
        try:
            super().__init__(model=model, **fields)
        except ValidationError as error:
            raise refused(error) from None

    @model_validator(mode="wrap")
    @classmethod
    def _without_values(cls, fields: Any, validated: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return validated(fields)
        except ValidationError as error:
            raise without_values(error) from None

    @model_validator(mode="before")
    @classmethod
    def _known(cls, fields: Any) -> Any:
        if not isinstance(fields, Mapping):
            return fields
        names = {name for field, info in cls.model_fields.items() for name in (field, info.alias) if name}
        if unknown := sorted(set(fields) - names - _STANDARD):
            raise ConfigurationError(
                f"a ChatLocas with {', '.join(unknown)}, which it does not know: see help(ChatLocas) for its options"
            )
        return fields

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.memory is None:
            return self
        name = self.memory.agents[0].backbone.name
        if self.model not in (DEFAULT_MODEL, name) or self.store != StoreUrl(DEFAULT_STORE):
            raise ConfigurationError(
                "memory was given beside model or store: it has a backbone and a store already, give one or the others"
            )
        self.model = name
        return self

    # A copy or an assignment is validated by nobody, so what is shown is masked once more.

    @field_serializer("store")
    def _shown(self, store: object, info: FieldSerializationInfo) -> object:
        shown = secret(store)
        return str(shown) if info.mode_is_json() and shown is not None else shown

    def __repr_args__(self) -> Any:
        return [(name, secret(value) if name == "store" else value) for name, value in super().__repr_args__()]

    @property
    def lc_secrets(self) -> dict[str, str]:
        """Name the field that a subclass which LangChain serializes must leave out."""
        return {"store": "LOCAS_STORE"}

    @property
    def agent_memory(self) -> MemoryHost:
        """The memory behind this model, loaded if it was not yet.

        For middleware, histories, tools, and to consolidate.
        """
        memory = self.memory or self.opening.get(self.model, secret(self.store), self.device, self.dtype)
        if self.profile is None:
            self.profile = profile_of([agent.backbone for agent in memory.agents])
        return memory

    def _key(self, kwargs: Mapping[str, Any]) -> UserKey:
        named = kwargs.get(USER_ID, self.user_id)
        if named is None:
            raise ConfigurationError(NO_USER)
        return UserKey(self.tenant, checked(named, "the call or the constructor"))

    def _get_llm_string(self, stop: list[str] | None = None, **kwargs: Any) -> str:
        """Extend the cache key by whatever changes an answer.

        Tenant, user, backbone, and the state of the user's memory.

        The user stands in it as a digest: a cache is often a service of its own. The fence rises with every change of
        the current revision, the epoch when the user is erased, so no number comes twice.
        """
        memory, key = self.agent_memory, self._key(kwargs)
        home = memory.runtime_of(key)
        home.current(key)  # turns whose time is over are forgotten first, as they are before an answer
        state = memory.store.state(key)
        version = (state.epoch, state.fence) if state is not None else None
        bare = super()._get_llm_string(stop=stop, **{name: value for name, value in kwargs.items() if name != USER_ID})
        longest = self.answer_tokens(kwargs.get("max_tokens"), home=home)
        return f"{bare}|{key.digest}|{home.backbone.fingerprint}|{version}|{longest}"

    def answer_tokens(self, max_tokens: int | None = None, *, home: AgentMemory | None = None) -> int:
        """Return how many tokens an answer may have.

        As the call says, else the constructor, else the memory's configuration.

        Args:
            max_tokens: as the call says.
            home: the agent that answers, the first unless given.

        Raises:
            ConfigurationError: it is less than one.
        """
        given = self.max_tokens if max_tokens is None else max_tokens
        if given is not None and given < 1:
            raise ConfigurationError(
                f"max_tokens is {given}: an answer has at least one token; leave it out for the memory's configuration"
            )
        return (home or self.agent_memory.agents[0]).config.window.answer_tokens(given)

    # Generation
    # --------------------------------------------------------------------------------------------------------

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        stream, left_out = self._answer(messages, stop, kwargs)
        for text in _pieces(stream):
            chunk = ChatGenerationChunk(message=AIMessageChunk(content=text))
            if run_manager:
                run_manager.on_llm_new_token(text, chunk=chunk)
            yield chunk
        assert stream.answer is not None
        # Merging chunks concatenates metadata and adds usage: only the last one carries them.
        yield ChatGenerationChunk(message=self._last_chunk(stream.answer, left_out))

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return generate_from_stream(self._stream(messages, stop, None, **kwargs))

    def _answer(
        self, messages: Sequence[BaseMessage], stop: Sequence[str] | None, kwargs: Mapping[str, Any]
    ) -> tuple[GenerationStream, int]:
        """Return the answer to be written, and how many messages the prompt leaves to the user's journal."""
        check_options(kwargs)
        if not messages:
            raise ConfigurationError("a call without messages: there is nothing to answer")
        if kwargs.get("model", self.model) != self.model:
            raise ConfigurationError(
                "a call named another model: a memory belongs to one backbone, build another ChatLocas"
            )
        tools, user = kwargs.get("tools") or (), self._key(kwargs)
        home = self.agent_memory.runtime_of(user)
        max_tokens = self.answer_tokens(kwargs.get("max_tokens"), home=home)
        shown = fitted(home, user, messages, tools, answer_tokens=max_tokens)
        stream = self.agent_memory.for_user(user.user, tenant=user.tenant).generate_stream(
            to_chat(shown),
            stop=stop_words(stop or self.stop or ()),
            tools=tools,
            tool_choice=kwargs.get("tool_choice"),
            max_new_tokens=max_tokens,
            temperature=kwargs.get("temperature", self.temperature) or 0.0,
            seed=kwargs.get("seed", self.seed),
            timeout_seconds=kwargs.get("timeout", self.timeout),
        )
        return stream, len(messages) - len(shown)

    def _last_chunk(self, answer: ChatAnswer, left_out: int) -> AIMessageChunk:
        calls = [
            tool_call_chunk(name=call.name, args=call.arguments, id=f"call_{uuid.uuid4().hex}", index=at)
            for at, call in enumerate(answer.calls)
        ]
        total = answer.prompt_tokens + answer.answer_tokens
        return AIMessageChunk(
            content="",
            tool_call_chunks=calls,
            chunk_position="last",
            usage_metadata=UsageMetadata(
                input_tokens=answer.prompt_tokens, output_tokens=answer.answer_tokens, total_tokens=total
            ),
            response_metadata={
                "model_name": self.model,
                "model_provider": "locas",
                "finish_reason": answer.finish_reason,
                "memory_revision": answer.revision,
                "used_memory": answer.used_memory,
                "pending_turns": answer.pending_turns,
                "left_out_messages": left_out,
            },
        )

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: str | dict[str, Any] | bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Bind tools, which the backbone's chat template shows.

        Args:
            tools: functions, tools, classes or schemas.
            tool_choice: "any", or the name of a tool, makes the answer begin with a call; its arguments are the
                backbone's to write, and what does not parse comes back in `invalid_tool_calls`. Unless given the
                backbone chooses.
            kwargs: options of the call.

        Raises:
            ConfigurationError: the chat template cannot call tools, `tool_choice` names none of them, or an option is
                unknown.
        """
        check_options(kwargs)
        for agent in self.agent_memory.agents:
            require_tools(agent.backbone)
        schemas = [convert_to_openai_tool(tool) for tool in tools]
        must_call(tool_choice, schemas)
        return self.bind(tools=schemas, tool_choice=tool_choice, **kwargs)

    # Description
    # -------------------------------------------------------------------------------------------------------

    @property
    def _llm_type(self) -> str:
        return "locas-chat"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
            "seed": self.seed,
            "stop": self.stop,
        }

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        params = super()._get_ls_params(stop=stop or self.stop, **kwargs)
        params["ls_provider"] = "locas"
        return params

    def _resolve_model_profile(self) -> ModelProfile | None:
        if self.memory is None:
            return None  # when it is loaded
        return profile_of([agent.backbone for agent in self.memory.agents])

    def get_token_ids(self, text: str) -> list[int]:
        """Return the token ids of a text on the backbone, the first of a fleet.

        Raises:
            InvalidTurn: it is no text that a turn can hold.
        """
        check_text("text", text)
        return self.agent_memory.agents[0].backbone.encode(text)

    def get_num_tokens_from_messages(
        self,
        messages: Sequence[BaseMessage],
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool] | None = None,
    ) -> int:
        """Return how many tokens a prompt of these messages and tools takes, template and all.

        On the backbone, the first of a fleet.
        """
        return prompt_tokens(self.agent_memory.agents[0], messages, tools or ())


def _pieces(stream: GenerationStream) -> Iterator[str]:
    """Yield the text of an answer; what goes wrong is an error of LangChain's too."""
    try:
        yield from stream
    except TurnTooLong as error:
        raise PromptTooLong(f"{error}: send fewer messages, or let LocasMemoryMiddleware trim them") from error
    except GenerationTimeout as error:
        raise AnswerTimeout(str(error)) from error

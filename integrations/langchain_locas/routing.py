"""The way of the user id into a call of a chat model.

`BaseChatModel` hands neither `configurable` nor the constructor to `_generate`, and `batch` loses the context: each
public call makes the id an argument of its own, which reaches generation, cache key and traces.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, Literal, cast

from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.runnables import RunnableConfig, ensure_config

from langchain_locas.identity import USER_ID, checked, in_config
from locas_agent import UserKey


class RoutedChatModel(BaseChatModel):
    """A chat model each of whose calls names its user."""

    @abstractmethod
    def _key(self, kwargs: Mapping[str, Any]) -> UserKey:
        """Return the user that the options of a call name, or the model's own.

        Raises:
            ConfigurationError: nobody is named.
        """

    def _routed(self, config: RunnableConfig | None, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        if USER_ID in kwargs:
            return {**kwargs, USER_ID: checked(kwargs[USER_ID], "the call")}
        named = in_config(ensure_config(config))
        return {**kwargs, USER_ID: self._key({}).user if named is None else named}

    def invoke(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> AIMessage:
        """Answer; `user_id=` names the user."""
        return super().invoke(input, config, stop=stop, **self._routed(config, kwargs))

    async def ainvoke(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> AIMessage:
        """Answer in a worker thread; `user_id=` names the user."""
        return await super().ainvoke(input, config, stop=stop, **self._routed(config, kwargs))

    def stream(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> Iterator[AIMessageChunk]:
        """Answer piece by piece; `user_id=` names the user."""
        yield from super().stream(input, config, stop=stop, **self._routed(config, kwargs))

    async def astream(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[AIMessageChunk]:
        """Answer piece by piece, each in a worker thread; `user_id=` names the user."""
        async for chunk in super().astream(input, config, stop=stop, **self._routed(config, kwargs)):
            yield chunk

    def stream_events(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        *,
        version: Literal["v1", "v2", "v3"] = "v2",
        **kwargs: Any,
    ) -> Any:
        """Answer as events; versions 1 and 2 run through `stream`, which names the user."""
        routed = self._routed(config, kwargs) if version == "v3" else kwargs
        return cast(Any, super().stream_events)(input, config, version=version, **routed)

    def astream_events(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        *,
        version: Literal["v1", "v2", "v3"] = "v2",
        **kwargs: Any,
    ) -> Any:
        """Answer as events; versions 1 and 2 run through `astream`, which names the user."""
        routed = self._routed(config, kwargs) if version == "v3" else kwargs
        return cast(Any, super().astream_events)(input, config, version=version, **routed)

"""Who calls: the user id of one call, from wherever LangChain carries it.

There is no default user and a thread is no user: who cannot be named is refused. An id is never taken from what a model
or a tool wrote.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langgraph.runtime import get_runtime

from locas_agent.errors import ConfigurationError

USER_ID = "user_id"
"""The name of the id: of the call's argument, in `configurable` and in the runtime's context."""

_ABSENT = object()
"""Nothing was given, as against a None that was."""

NO_USER = (
    "no user_id: nobody's memory may answer. Name the user in the call (user_id=...), in the config "
    '({"configurable": {"user_id": ...}}), in the context of an agent, or in the constructor'
)


def checked(user_id: object, source: str) -> str:
    """Return an id that was given.

    A given None is refused rather than passed over: it is a user nobody looked up, and another place may name somebody
    else.

    Raises:
        ConfigurationError: it is no text, or blank.
    """
    if not isinstance(user_id, str) or not user_id.strip():
        raise ConfigurationError(
            f"user_id in {source} is {_kind(user_id)}, expected a text that names the user, such as str(account.id)"
        )
    return user_id


def in_config(config: Mapping[str, Any] | None) -> str | None:
    """Return the id in `configurable`, None if there is no such entry."""
    configurable = (config or {}).get("configurable") or {}
    return checked(configurable[USER_ID], "configurable") if USER_ID in configurable else None


def in_runtime(runtime: Any) -> str | None:
    """Return the id in the context of an agent's run, else the server's authenticated user, None without either."""
    if runtime is None:
        return None
    context = runtime.context
    named = context.get(USER_ID, _ABSENT) if isinstance(context, Mapping) else getattr(context, USER_ID, _ABSENT)
    if named is not _ABSENT:
        return checked(named, "the context")
    server = runtime.server_info
    return (
        checked(server.user.identity, "the server's identity")
        if server is not None and server.user is not None
        else None
    )


def caller(runtime: Any, config: Mapping[str, Any] | None) -> str:
    """Return who calls a middleware or a tool: context, then authenticated user, then `configurable`.

    Raises:
        ConfigurationError: nobody is named.
    """
    found = in_runtime(runtime) or in_config(config)
    if found is None:
        raise ConfigurationError(NO_USER)
    return found


def running() -> Any:
    """Return the runtime of the graph that runs here, None outside of one."""
    try:
        return get_runtime()
    except (RuntimeError, KeyError):
        return None


def _kind(value: object) -> str:
    return "blank" if isinstance(value, str) else f"of type {type(value).__name__}"

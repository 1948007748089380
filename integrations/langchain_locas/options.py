"""What a `ChatLocas` may be given.

Options of a call, stop words, the store's URL as a secret; and how a wrong one is refused.

Nothing that is refused here is quoted: a field may hold a password.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import Secret, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from langchain_locas.identity import USER_ID
from locas_agent.errors import ConfigurationError
from locas_storage import shown_url

_OPTIONS = frozenset(
    {
        USER_ID,
        "model",
        "temperature",
        "max_tokens",
        "seed",
        "timeout",
        "tools",
        "tool_choice",
        "stream",
        "ls_structured_output_format",
    }
)
"""What a call may carry. An option that would do nothing is refused, so that nobody relies on it."""

_OURS = "Value error, "
"""What pydantic puts before a message of ours."""


class StoreUrl(Secret[str]):
    """The URL of a database.

    Printed, dumped or traced it shows neither password nor options; `get_secret_value` returns all of it.
    """

    def _display(self) -> str:
        return shown_url(self.get_secret_value())


def secret(store: object) -> StoreUrl | Path | None:
    """Return what says where the store is, a URL as a secret.

    Raises:
        ConfigurationError: it is neither a URL, nor a path, nor None.
    """
    if isinstance(store, str):
        return StoreUrl(store)
    if store is None or isinstance(store, StoreUrl | Path):
        return store
    raise ConfigurationError(
        f"store is of type {type(store).__name__}, expected a URL such as 'sqlite:///locas.db'; "
        "a ready store goes into AgentMemory.load, and that in as memory="
    )


def check_options(given: Mapping[str, object]) -> None:
    """Refuse an option of a call that would do nothing.

    Raises:
        ConfigurationError: there is one.
    """
    if unknown := sorted(set(given) - _OPTIONS):
        raise ConfigurationError(
            f"a call with {', '.join(unknown)}: ChatLocas knows {', '.join(sorted(_OPTIONS))}; leave the others out"
        )


def stop_words(given: object) -> list[str]:
    """Return the words before which an answer ends, of one word or several.

    Raises:
        ConfigurationError: one of them is no text.
    """
    words: list[str] = []
    for word in given if isinstance(given, Sequence) and not isinstance(given, str) else [given]:
        if not isinstance(word, str):
            raise ConfigurationError(
                f"stop holds a value of type {type(word).__name__}, expected a text or a list of texts"
            )
        words.append(word)
    return words


def without_values(error: ValidationError) -> ValidationError:
    """Return a refusal of pydantic's without the values that were refused, which it would quote."""
    lines = [
        InitErrorDetails(
            type=PydanticCustomError(line["type"], "{said}", {"said": line["msg"]}), loc=line["loc"], input=None
        )
        for line in error.errors(include_input=False, include_context=False, include_url=False)
    ]
    return ValidationError.from_exception_data(error.title, lines, hide_input=True)


def refused(error: ValidationError) -> ConfigurationError:
    """Return the error of ours that a refusal of pydantic's stands for."""
    lines = error.errors(include_input=False, include_context=False, include_url=False)
    said = ((".".join(map(str, line["loc"])), line["msg"].removeprefix(_OURS)) for line in lines)
    return ConfigurationError("; ".join(f"{name}: {text}" if name else text for name, text in said))

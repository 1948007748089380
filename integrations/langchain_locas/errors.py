"""Errors that are ours and LangChain's at once, so that middleware which catches LangChain's catches them."""

from langchain_core.exceptions import ContextOverflowError, ModelTimeoutError

from locas_agent.errors import ConfigurationError, GenerationTimeout, TurnTooLong


class PromptTooLong(TurnTooLong, ContextOverflowError):
    """The messages do not fit into the backbone's context, or one is too long to become a turn."""


class AnswerTimeout(GenerationTimeout, ModelTimeoutError):
    """The answer was not written within the time it was given."""


class ForeignThread(ConfigurationError):
    """A user called in a thread that another user began."""

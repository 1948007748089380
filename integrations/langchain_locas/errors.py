"""Errors that are ours and LangChain's at once, so that middleware which catches LangChain's catches them. Knows nothing else."""

from langchain_core.exceptions import ContextOverflowError, ModelTimeoutError

from locas_agent.errors import LocasError, TurnTooLong


class PromptTooLong(TurnTooLong, ContextOverflowError):
    """The messages do not fit into the backbone's context."""


class AnswerTimeout(LocasError, ModelTimeoutError):
    """The answer was not written within the time it was given."""

"""LangChain adapters over the verbs of `locas_agent`.

They hold no logic of their own. Names are loaded when they are first used, so that a missing extra is named by the
class that needs it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from locas_agent.errors import MissingExtra

if TYPE_CHECKING:
    from langchain_locas.chat_model import ChatLocas
    from langchain_locas.classic import LocasChainMemory
    from langchain_locas.errors import AnswerTimeout, ForeignThread, PromptTooLong
    from langchain_locas.history import LocasChatMessageHistory
    from langchain_locas.middleware import LocasMemoryMiddleware
    from langchain_locas.tools import memory_tools

_HOME = {
    "AnswerTimeout": "langchain_locas.errors",
    "ChatLocas": "langchain_locas.chat_model",
    "ForeignThread": "langchain_locas.errors",
    "LocasChatMessageHistory": "langchain_locas.history",
    "LocasChainMemory": "langchain_locas.classic",
    "LocasMemoryMiddleware": "langchain_locas.middleware",
    "PromptTooLong": "langchain_locas.errors",
    "memory_tools": "langchain_locas.tools",
}

__all__ = [
    "AnswerTimeout",
    "ChatLocas",
    "ForeignThread",
    "LocasChainMemory",
    "LocasChatMessageHistory",
    "LocasMemoryMiddleware",
    "PromptTooLong",
    "memory_tools",
]


def __getattr__(name: str) -> Any:
    """Load a public name from the module that owns it."""
    if name not in _HOME:
        raise AttributeError(f"module 'langchain_locas' has no attribute {name!r}")
    try:
        return getattr(import_module(_HOME[name]), name)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if not package.startswith("lang") or package == __name__:
            raise
        raise MissingExtra.of("classic" if package == "langchain_classic" else "langchain", name) from error

"""Where `eval mmlu` takes its memories from: people, made up or of a file, a text, or a user of a store."""

from __future__ import annotations

import hashlib
import textwrap
from pathlib import Path

from locas_agent.agent import AgentMemory
from locas_agent.config import LocasConfig
from locas_agent.errors import ConfigurationError
from locas_agent.evaluation.recall.setup import RecallOptions, evaluation_config, handles_of, teach
from locas_agent.memory import LocasMemory
from locas_agent.types import Progress
from locas_agent.user import UserMemory

TURN_CHARACTERS = 400
"""Longest turn that a text is told in."""


def of_people(
    agent: AgentMemory, options: RecallOptions, *, progress: Progress | None = None
) -> dict[str, LocasMemory]:
    """Teach people as `eval recall` does and return the memories that were admitted, by person.

    Raises:
        ConfigurationError: none was admitted.
    """
    source = options.source()
    teach(agent, source, options, progress=progress)
    return _admitted(agent, handles_of(agent, source, options))


def of_text(agent: AgentMemory, path: Path, *, progress: Progress | None = None) -> dict[str, LocasMemory]:
    """Tell a text as turns of one user, learn all of it and return the memory.

    Args:
        agent: with `text_config`; its store is given one more user.
        path: UTF-8 text.
        progress: told of the stages.

    Raises:
        ConfigurationError: the file cannot be read or is empty, or the memory was refused.
    """
    try:
        turns = textwrap.wrap(path.read_text(encoding="utf-8"), TURN_CHARACTERS)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"{path.name}: no text that can be read ({type(error).__name__}); it has to be a file in UTF-8"
        ) from error
    if not turns:
        raise ConfigurationError(f"{path.name} holds no text")
    digest = hashlib.sha256("\n".join(turns).encode()).hexdigest()
    handle = agent.for_user(
        path.name, tenant=f"text-{digest[:12]}-{agent.config.digest()[:8]}"
    )  # another text, or learnt otherwise, is another
    for number, turn in enumerate(turns):
        handle.add("user", turn, idempotency_key=str(number))
    handle.consolidate(flush=True, progress=progress)
    return _admitted(agent, [handle])


def of_user(agent: AgentMemory, handle: UserMemory) -> dict[str, LocasMemory]:
    """Return a stored user's current memory.

    Raises:
        ConfigurationError: the user has none.
    """
    _, memory = agent.current(handle.key)
    if memory is None:
        raise ConfigurationError("this user has no memory yet: consolidate first, or name another user or store")
    return {"stored": memory}


def text_config() -> LocasConfig:
    """Return the configuration that learns from raw text by next-token loss.

    What any backbone can do, whether it knows chat or not.
    """
    config = evaluation_config(None)
    return config.model_copy(update={"training": config.training.model_copy(update={"objective": "ntp"})})


def _admitted(agent: AgentMemory, handles: list[UserMemory]) -> dict[str, LocasMemory]:
    found = {handle.key.user: agent.current(handle.key)[1] for handle in handles}
    memories = {name: memory for name, memory in found.items() if memory is not None}
    if not memories:
        reasons = sorted(
            {
                str(entry.facts["reason"])
                for handle in handles
                for entry in agent.store.audit(handle.key)
                if entry.action == "refuse"
            }
        )
        raise ConfigurationError(
            f"no memory was admitted ({', '.join(reasons) or 'nothing to learn'}): there is nothing to measure"
        )
    return memories

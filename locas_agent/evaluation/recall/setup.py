"""What `eval recall` is about: who is asked, and how their turns are told and learnt."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from locas_agent.agent import AgentMemory
from locas_agent.config import LocasConfig, PolicySettings
from locas_agent.errors import ConfigurationError
from locas_agent.evaluation.recall.generated import generated
from locas_agent.evaluation.recall.people import LeftOut, SaidTurn, Source, Teller
from locas_agent.evaluation.recall.talk import from_files
from locas_agent.types import Progress
from locas_agent.user import UserMemory

MADE_UP_USERS = 64


class RecallOptions(BaseModel):
    """What is evaluated."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    files: tuple[Path, ...] = ()
    """Files of people of the talk schema, asked in place of made-up ones."""
    users: int | None = Field(None, ge=1)
    """People; at least two where one is asked with another's memory. None means 64 made-up ones, or everybody in the
    files; fewer than all are taken from each file in turn."""
    sessions: int = Field(4, ge=1)
    """Dated sessions of each made-up person."""
    facts: int = Field(4, ge=1)
    """Facts that a made-up person tells in each session; from the second on, one of them replaces an older value."""
    seed: int = Field(0, ge=0)
    """Made-up people follow from it, and the neutral text that drift is measured on."""
    wordings: int | None = Field(None, ge=1)
    """Wordings asked of each fact, as many as it has. None means one of a made-up person's, all of the files'."""
    consolidations: int | None = Field(None, ge=1)
    """Equal steps in which each person's turns are told and learnt; None learns after each session."""
    assistant_trust: str = "user"
    """Label `trust` of all turns of the assistant. "user" is what an application's turns carry unless it says
    otherwise; `config.sources.assistant` names those that are learnt."""
    without: tuple[LeftOut, ...] = ()
    """Arms that are not asked."""
    lora_users: int = Field(16, ge=0)
    """Of the people, how many the LoRA peer is trained for, one after another; 0 leaves the arm out."""
    prefix_users: int = Field(0, ge=0)
    """The same for the prefix peer, whose arm is reported only where it was asked for."""
    users_per_batch: int = Field(32, ge=1)
    """People consolidated side by side."""

    def source(self) -> Source:
        """Return the people, the same for the same options.

        Raises:
            ConfigurationError: a file is none of the talk schema, more facts are asked for than there are relations, or
                there is one person, to be asked with another's memory.
        """
        if self.files:
            source = from_files(self.files, users=self.users, wordings=self.wordings)
        else:
            users = MADE_UP_USERS if self.users is None else self.users
            source = generated(
                users=users, sessions=self.sessions, facts=self.facts, seed=self.seed, wordings=self.wordings
            )
        if len(source.tellers) < 2 and LeftOut.WRONG_USER not in self.without:
            raise ConfigurationError(
                "there is one person; give two or more, since each is asked with another's memory too, or leave the "
                f"arm {LeftOut.WRONG_USER} out"
            )
        return source


def teach(agent: AgentMemory, source: Source, options: RecallOptions, *, progress: Progress | None = None) -> None:
    """Let everybody say their turns, and consolidate after each session or each of `options.consolidations` steps."""
    handles = handles_of(agent, source, options)
    steps = [steps_of(teller, options.consolidations) for teller in source.tellers]
    total = sum(len(each) for each in steps)
    done = 0
    for number in range(max(len(each) for each in steps)):
        learning = []
        for handle, each in zip(handles, steps, strict=True):
            if number < len(each):
                _tell(handle, each[number], options.assistant_trust)
                learning.append(handle)
        for start in range(0, len(learning), options.users_per_batch):
            batch = learning[start : start + options.users_per_batch]
            agent.consolidate_many(batch, flush=True)
            done += len(batch)
            if progress is not None:
                progress("consolidated", done, total)


def steps_of(teller: Teller, consolidations: int | None) -> list[tuple[SaidTurn, ...]]:
    """Cut a person's turns where they are learnt: behind each session, or into so many steps of equal length.

    Steps differ by one turn where the turns do not divide, and there are as many as turns where those are fewer.
    """
    turns = teller.turns
    if consolidations is None:
        numbers = sorted({turn.session for turn in turns})
        return [tuple(turn for turn in turns if turn.session == number) for number in numbers]
    steps = min(consolidations, len(turns))
    cuts = [len(turns) * number // steps for number in range(steps + 1)]
    return [turns[start:end] for start, end in pairwise(cuts)]


def handles_of(agent: AgentMemory, source: Source, options: RecallOptions) -> list[UserMemory]:
    """Return the handles of the people of an evaluation.

    Other people are another tenant, and so are other settings and other steps: in a store that was used before,
    memories learnt otherwise would be asked.
    """
    tenant = f"{source.tenant}-{agent.config.digest()[:8]}"
    if options.consolidations is not None:
        tenant += f"-{options.consolidations}"
    if options.assistant_trust != "user":
        tenant += f"-{options.assistant_trust}"
    return [agent.for_user(teller.name, tenant=tenant) for teller in source.tellers]


def evaluation_config(config: LocasConfig | None) -> LocasConfig:
    """Return the configuration with automatic consolidation off: the evaluation decides when."""
    return (config or LocasConfig()).model_copy(update={"policy": PolicySettings(automatic=False)})


def _tell(handle: UserMemory, turns: Sequence[SaidTurn], assistant_trust: str) -> None:
    for turn in turns:
        handle.add(
            turn.role,
            turn.text,
            at=turn.at,
            session=f"session {turn.session + 1}",
            idempotency_key=turn.key,
            trust=assistant_trust if turn.role == "assistant" else "user",
        )

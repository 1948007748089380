"""What `eval recall` is about: who is asked, what they tell, and which questions are put to every arm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from random import Random

from pydantic import BaseModel, ConfigDict, Field

from locas_agent.agent import AgentMemory
from locas_agent.config import LocasConfig, PolicySettings
from locas_agent.evaluation.synthetic.people import Fact, Person, make_person
from locas_agent.types import Progress
from locas_agent.user import UserMemory

ANSWER_TOKENS = 24


class RecallOptions(BaseModel):
    """What is evaluated."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    users: int = Field(64, ge=2)
    """People; at least two, since one is asked with another's memory."""
    sessions: int = Field(4, ge=1)
    """Dated sessions of each, one consolidation after each."""
    facts: int = Field(4, ge=1)
    """Facts told in each session; from the second on, one of them replaces an older value."""
    seed: int = Field(0, ge=0)
    """People follow from it."""
    lora_users: int = Field(16, ge=0)
    """Of the people, how many the LoRA peer is trained for, one after another; 0 leaves the arm out."""
    prefix_users: int = Field(0, ge=0)
    """The same for the prefix peer, whose arm is reported only where it was asked for."""
    users_per_batch: int = Field(32, ge=1)
    """People consolidated side by side."""

    def people(self) -> list[Person]:
        """Return the people, the same for the same seed."""
        return [
            make_person(Random(f"recall:{self.seed}:{index}"), sessions=self.sessions, facts_per_session=self.facts)
            for index in range(self.users)
        ]


@dataclass(frozen=True, slots=True)
class Asked:
    """One question put to every arm."""

    user: int
    fact: Fact
    text: str


def teach(agent: AgentMemory, options: RecallOptions, *, progress: Progress | None = None) -> None:
    """Let everybody tell their sessions, and consolidate after each."""
    people = options.people()
    handles = handles_of(agent, options)
    for number in range(options.sessions):
        for handle, person in zip(handles, people, strict=True):
            _tell(handle, person, number)
        for start in range(0, len(handles), options.users_per_batch):
            agent.consolidate_many(handles[start : start + options.users_per_batch], flush=True)
            if progress is not None:
                done = number * len(handles) + min(start + options.users_per_batch, len(handles))
                progress("consolidated", done, options.sessions * len(handles))


def handles_of(agent: AgentMemory, options: RecallOptions) -> list[UserMemory]:
    """Return the handles of the people of an evaluation.

    Other people are another tenant, and so are other settings: in a store that was used before, memories learnt
    otherwise would be asked.
    """
    tenant = f"recall-{options.seed}-{options.sessions}x{options.facts}-{agent.config.digest()[:8]}"
    return [agent.for_user(f"person-{index}", tenant=tenant) for index in range(options.users)]


def evaluation_config(config: LocasConfig | None) -> LocasConfig:
    """Return the configuration with automatic consolidation off: the evaluation decides when."""
    return (config or LocasConfig()).model_copy(update={"policy": PolicySettings(automatic=False)})


def _tell(handle: UserMemory, person: Person, number: int) -> None:
    session = person.sessions[number]
    for index, line in enumerate(session.lines):
        at = session.at + timedelta(seconds=20 * index)
        handle.add(
            line.role, line.text, at=at, session=f"session {number + 1}", idempotency_key=f"{number + 1}:{index}"
        )


def questions(
    agent: AgentMemory, people: Sequence[Person], handles: Sequence[UserMemory], options: RecallOptions
) -> list[Asked]:
    """Choose one wording per fact from the group the backbone never writes, and prove that none was trained on."""
    rng = Random(f"ask:{options.seed}")
    asked = [
        Asked(user, fact, rng.choice(fact.relation.asked_held))
        for user, person in enumerate(people)
        for fact in person.facts
    ]
    for user, handle in enumerate(handles):
        trained = {item.question for item in agent.store.study_items(handle.key, with_retired=True)}
        both = trained & {each.text for each in asked if each.user == user}
        if both:
            raise RuntimeError(
                f"{len(both)} questions to be asked stand among the trained ones; the backbone wrote a held-out wording"
            )
    return asked

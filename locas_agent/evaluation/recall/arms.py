"""What each arm of `eval recall` has when it is asked: turns in the prompt, a memory, both or nothing."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property

from locas_agent.agent import AgentMemory
from locas_agent.conversation.messages import Message, question, split_sessions
from locas_agent.evaluation import asking
from locas_agent.evaluation.recall.people import ANSWER_TOKENS, Asked, Source
from locas_agent.memory import LocasMemory
from locas_agent.study.forms.reading import CHAT, ReadingForm
from locas_agent.user import UserMemory
from locas_storage import Turn

SEARCHED_TURNS = 3
ARMS = (
    "none",
    "context",
    "context_turn",
    "full_context",
    "memory",
    "window_memory",
    "search",
    "search_memory",
    "wrong_user",
)
"""All arms but the peers, in the order of the report."""


@dataclass(frozen=True, slots=True)
class Setting:
    """The prompts of one arm with their memories, a row for each question."""

    prompts: list[list[Message]]
    memories: list[LocasMemory | None]
    groups: list[int]
    """Rows of one number begin alike and use the same memory; what they begin with is run once."""


class RecallArms:
    """Puts every question to every arm but the peers."""

    def __init__(
        self, agent: AgentMemory, source: Source, handles: Sequence[UserMemory], asked: Sequence[Asked]
    ) -> None:
        """Read the journals and the memories.

        Args:
            agent: whose backbone answers.
            source: who was told.
            handles: the people, in the order of the source.
            asked: every question, in the order of the people.
        """
        self._agent = agent
        self._asked = asked
        self._journals = [handle.turns() for handle in handles]
        self._sessions = [[tuple(session) for session in split_sessions(journal)] for journal in self._journals]
        self.near, self.wide = asking.reading_forms(agent)
        self.memories = [agent.memory_of(handle.key, agent.store.revision(handle.key)) for handle in handles]
        self.settings: dict[str, Callable[[], Setting]] = {
            "none": lambda: self._alone([None] * len(handles)),
            "context": lambda: self._reading([self._sessions[one.user][one.fact.session] for one in asked]),
            "context_turn": lambda: self._reading(
                [(self._journals[one.user][one.fact.turn],) for one in asked], reading=self.near
            ),
            "full_context": lambda: self._reading(self._fitting),
            "memory": lambda: self._alone(self.memories),
            "window_memory": lambda: self._reading(self._windows, self.memories, CHAT),
            "search": lambda: self._reading(self._searched),
            "search_memory": lambda: self._reading(self._searched, self.memories),
            "wrong_user": lambda: self._alone([*self.memories[1:], self.memories[0]]),
        }
        """What each arm has, made when it is asked for."""

    def answers(self, name: str) -> list[str]:
        """Return an arm's answer to every question."""
        return self._put(self.settings[name]())

    def answers_alone(self, questions: Sequence[tuple[int, str]], *, with_memory: bool) -> list[str]:
        """Answer questions of people, by place, with nothing in the prompt."""
        memories = [self.memories[user] if with_memory else None for user, _ in questions]
        return self._put(Setting([question(text) for _, text in questions], memories, [user for user, _ in questions]))

    def prompt_tokens(self, name: str) -> float:
        """Return how many tokens an arm's prompt takes, on average."""
        prompts = self.settings[name]().prompts
        return sum(len(self._agent.backbone.encode_chat(prompt)) for prompt in prompts) / len(prompts)

    def _put(self, setting: Setting) -> list[str]:
        found = asking.answers(
            self._agent,
            setting.prompts,
            setting.memories,
            answer_tokens=ANSWER_TOKENS,
            groups=setting.groups,
        )
        return [answer.text for answer in found]

    def _alone(self, memories: Sequence[LocasMemory | None]) -> Setting:
        """Put each question by itself; those of a person share the words that a chat template puts before any."""
        rows = [memories[one.user] for one in self._asked]
        return Setting([question(one.text) for one in self._asked], rows, [one.user for one in self._asked])

    def _reading(
        self,
        turns: Sequence[tuple[Turn, ...]],
        memories: Sequence[LocasMemory | None] | None = None,
        reading: ReadingForm | None = None,
    ) -> Setting:
        """Put turns before each question; those before which the same turns stand are a group."""
        form = self.wide if reading is None else reading
        numbers: dict[Hashable, int] = {}
        groups = [
            numbers.setdefault((one.user, tuple(turn.seq for turn in before)), len(numbers))
            for one, before in zip(self._asked, turns, strict=True)
        ]
        return Setting(
            [asking.prompt(before, one.text, form) for one, before in zip(self._asked, turns, strict=True)],
            [None if memories is None else memories[one.user] for one in self._asked],
            groups,
        )

    @cached_property
    def _fitting(self) -> list[tuple[Turn, ...]]:
        """Of each question's person all turns, the oldest left out where they do not fit."""
        return [
            tuple(
                asking.fitting(
                    self._agent,
                    self._journals[one.user],
                    one.text,
                    answer_tokens=ANSWER_TOKENS,
                    reading=self.wide,
                )
            )
            for one in self._asked
        ]

    @cached_property
    def _windows(self) -> list[tuple[Turn, ...]]:
        windows = [tuple(asking.window(self._agent, journal)) for journal in self._journals]
        return [windows[one.user] for one in self._asked]

    @cached_property
    def _searched(self) -> list[tuple[Turn, ...]]:
        """Of each question's person the best turns by BM25."""
        found: list[tuple[Turn, ...]] = []
        for user, journal in enumerate(self._journals):
            texts = [one.text for one in self._asked if one.user == user]
            found += [tuple(turns) for turns in asking.searched(journal, texts, limit=SEARCHED_TURNS)]
        return found

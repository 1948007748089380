"""One answer with one user's memory attached: what is asked of the backbone, what it was answered from. Stores nothing.

Knows no LangChain: tokens in, text and figures out.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from langchain_locas.errors import AnswerTimeout, PromptTooLong
from langchain_locas.stream_filter import Writing
from langchain_locas.tool_calls import Call, begins_with_call
from locas_agent import AgentMemory, UserKey
from locas_agent.backbone.detokenizer import Detokenizer
from locas_agent.consolidation.pending import overflow
from locas_agent.errors import TurnTooLong


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked, by whom, and how the answer is drawn."""

    user: UserKey
    prompt: Sequence[int] = field(repr=False)
    """What is asked, as the backbone's chat template writes it, in tokens."""
    max_tokens: int
    left_out: int = 0
    """Messages that are not in the prompt since it would not have held them; the user's journal has them."""
    has_tools: bool = False
    must_call: Sequence[str] = ()
    """The answer has to call one of these tools; empty leaves it to the backbone."""
    temperature: float = 0.0
    seed: int = 0
    stop: Sequence[str] = ()
    timeout_seconds: float | None = None


class ChatAnswer:
    """An answer under way: iterate for pieces of text, then read the rest of it.

    Attributes:
        calls: tools it calls.
        finish_reason: `stop`, `length` or `tool_calls`.
        prompt_tokens: tokens of the prompt.
        answer_tokens: tokens generated.
        revision: number of the revision that is current; None before the first.
        used_memory: whether a memory was attached.
        left_out: messages of the user's journal for which the prompt had no room.
        pending_turns: turns of the user that left the window and wait to be learnt.
    """

    def __init__(self, agent: AgentMemory, question: Question) -> None:
        self.calls: list[Call] = []
        self.finish_reason = "stop"
        self.answer_tokens = 0
        revision, memory = agent.current(question.user)
        self.revision = revision.number if revision else None
        self.used_memory = memory is not None
        self.pending_turns = pending_turns(agent, question.user)
        self._agent = agent
        self._question = question
        self._memory = agent.batch_of([memory])
        self.prompt_tokens = len(question.prompt)
        self.left_out = question.left_out

    def __iter__(self) -> Iterator[str]:
        """Yield pieces of text as they come.

        Raises:
            PromptTooLong: the messages leave no room for an answer.
            AnswerTimeout: it took longer than it was given.
        """
        question = self._question
        writing = Writing(question.stop, has_tools=question.has_tools)
        for piece in self._pieces():
            if shown := writing.take(piece):
                yield shown
            if writing.is_stopped:
                break
        last, self.calls = writing.finish()
        if last:
            yield last
        if self.calls:
            self.finish_reason = "tool_calls"
        elif not writing.is_stopped and self.answer_tokens >= self._room:
            self.finish_reason = "length"

    @property
    def _room(self) -> int:
        """Most tokens the answer may have."""
        return min(self._question.max_tokens, self._agent.backbone.context_tokens - self.prompt_tokens)

    def _pieces(self) -> Iterator[str]:
        agent, question = self._agent, self._question
        deadline = None if question.timeout_seconds is None else time.monotonic() + question.timeout_seconds
        tokens = agent.engine.stream(
            question.prompt,
            memory=self._memory,
            max_new_tokens=max(1, self._room),
            temperature=question.temperature,
            seed=question.seed,
            allowed=begins_with_call(agent.backbone, question.must_call) if question.must_call else None,
        )
        try:
            detokenizer = Detokenizer(agent.backbone.decode)
            for token in tokens:
                self.answer_tokens += 1
                yield detokenizer.add(token)
                if deadline is not None and time.monotonic() > deadline:
                    raise AnswerTimeout(
                        f"no whole answer within {question.timeout_seconds} seconds: give it longer, or fewer "
                        "max_tokens"
                    )
            yield detokenizer.finish()
        except TurnTooLong as error:
            raise PromptTooLong(f"{error}: send fewer messages, or let LocasMemoryMiddleware trim them") from error


def pending_turns(agent: AgentMemory, user: UserKey) -> int:
    """Return how many turns of a user left the window and wait to be learnt."""
    state = agent.store.state(user)
    if state is None:
        return 0
    return len(overflow(agent.store.turns(user, after=state.consolidated_seq), agent.config.window.window_tokens))

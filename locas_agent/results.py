"""What the verbs return.

Fields that hold a person's words are left out of `repr`, so that results can be logged.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from locas_storage import ConsolidationMetrics, Revision, Turn, UserKey

if TYPE_CHECKING:
    from locas_agent.memory.stats import LayerStats


@dataclass(frozen=True, slots=True)
class PromptTokens:
    """Tokens of each part of one prompt."""

    window: int
    """The newest turns, the one to be answered included."""
    overflow: int
    """Turns that left the window and are not learnt yet, kept as long as the context allows."""

    @property
    def total(self) -> int:
        """All of the prompt."""
        return self.window + self.overflow


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer, and what it was answered from."""

    text: str = field(repr=False)
    """What the backbone said."""
    turn: Turn
    """The journal's turn that holds the answer."""
    revision: int | None
    """Number of the revision that answered; None when none was attached."""
    used_memory: bool
    """Whether a memory was attached."""
    why_no_memory: str | None
    """Why none was, in words."""
    pending_turns: int
    """Turns that left the window and wait to be learnt."""
    unseen_turns: int
    """Of these, turns that did not fit into the prompt either."""
    prompt_tokens: PromptTokens
    """Tokens the prompt took, by part."""
    consolidation: Consolidation | None = None
    """What the consolidation did that this turn set off, if it did."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of a tool as the backbone wrote it."""

    name: str | None
    """Name of the tool; None where the call could not be read."""
    arguments: str = field(repr=False)
    """JSON. Where the call could not be read all of it, its mark too, so that no lenient parser takes a part for
    JSON."""


@dataclass(frozen=True, slots=True)
class ChatAnswer:
    """A stateless answer to given messages, and what it was made from."""

    text: str = field(repr=False)
    """What the backbone said, without tool calls."""
    calls: tuple[ToolCall, ...]
    """Tools that it calls."""
    finish_reason: Literal["stop", "length", "tool_calls"]
    """Why it ended: by itself or before a stop text, for want of room, or with calls of tools."""
    prompt_tokens: int
    """Tokens of the prompt."""
    answer_tokens: int
    """Tokens that were generated."""
    revision: int | None
    """Number of the user's current revision; None before the first."""
    used_memory: bool
    """Whether a memory was attached."""
    pending_turns: int
    """Turns of the user that left the window and wait to be learnt."""


@dataclass(frozen=True, slots=True)
class Recall:
    """An answer from memory alone."""

    answer: str = field(repr=False)
    """What the backbone says to the question with nothing but the memory."""
    revision: int | None
    """The revision asked; None when there is none yet, and the bare backbone answered."""
    logprob: float
    """Log-probability of the answer with the memory, nats."""
    logprob_without: float
    """Log-probability of the same answer without it, nats."""
    citations: tuple[Turn, ...] = field(repr=False)
    """Turns of the journal whose study items are answered this way: where it may have come from."""


@dataclass(frozen=True, slots=True)
class ExplainedToken:
    """One token of an explained text."""

    text: str = field(repr=False)
    """The token; a piece of a character is shown as a replacement character."""
    logprob: float
    """Its log-probability with the memory, nats."""
    logprob_without: float
    """The same without it."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """What a memory does to a text, token by token, and what the memory looks like inside."""

    tokens: tuple[ExplainedToken, ...] = field(repr=False)
    """The text's tokens in order; one that has nothing before it cannot be predicted and is left out."""
    revision: int | None
    """The revision looked at; None when there is none yet, and both figures are the bare backbone's."""
    layers: tuple[LayerStats, ...]
    """Norms and saturation of the memory's rows, the lowest layer first."""

    @property
    def logprob(self) -> float:
        """Log-probability of the text with the memory, nats."""
        return sum(token.logprob for token in self.tokens)

    @property
    def logprob_without(self) -> float:
        """The same without it."""
        return sum(token.logprob_without for token in self.tokens)


@dataclass(frozen=True, slots=True)
class Consolidation:
    """What one consolidation did: admitted with a revision, refused with the reason, or nothing to do."""

    status: Literal["admitted", "refused", "nothing", "queued", "failed"]
    """`admitted`, `refused`, `nothing`, `queued` when it was left to a worker, or `failed` when one that a reply set
    off raised an error."""
    reason: str
    """One word for programs, e.g. `drift`, `no gain`, `diverged`, `no overflow`; of a failed one the error's class."""
    detail: str
    """The same in sentences, without content; also of an admitted one, where turns that carry a fact got no question
    that held, questions were dropped, turns were left out, or the memory has another shape than the settings."""
    revision: Revision | None
    """The new head, when admitted."""
    turns: int
    """Overflow turns it was about."""
    metrics: ConsolidationMetrics = field(default_factory=ConsolidationMetrics)
    """What was measured; without figures where nothing was learnt."""

    @property
    def admitted(self) -> bool:
        """Whether a revision was published."""
        return self.status == "admitted"


@dataclass(frozen=True, slots=True)
class UserUpgrade:
    """What became of one user who was to be moved to another backbone, or back."""

    key: UserKey
    """Who."""
    status: Literal["moved", "kept", "there", "nothing", "failed", "stopped"]
    """`moved`, `kept` on the former memory with the reason, `there` where nothing was left to do, `nothing` where there
    is no memory and none was tried, `failed` with an error's class, `stopped` before it was certain."""
    reason: str
    """A few words for programs, e.g. `recalls less`, `not learnt`, `imported`, `unknown backbone`, `moving`."""
    detail: str = ""
    """The same in sentences, without content."""
    recall_before: float | None = None
    """Share of the study questions of both memories that the former one answers on its backbone, 0 to 1; None if none
    were asked, as where there was no memory."""
    recall_after: float | None = None
    """The same of the memory that was learnt anew, on the new backbone."""
    questions: int = 0
    """Questions that both were asked."""
    revision: int | None = None
    """The current revision since, if the user is on the backbone that was asked for."""


@dataclass(frozen=True, slots=True)
class WorkSummary:
    """What a worker did, in jobs unless said otherwise; a rebuild counts once for each consolidation it repeats."""

    admitted: int = 0
    """Memories that became revisions."""
    refused: int = 0
    """Memories that the admission gate refused."""
    nothing: int = 0
    """Jobs whose turns were learnt or forgotten already."""
    failed: int = 0
    """Attempts that ended in an error; they are repeated later, or dead letters by now."""
    lost: int = 0
    """Jobs that another worker took over, or whose turns were forgotten or erased meanwhile."""
    expired_turns: int = 0
    """Turns forgotten because their time was over."""

"""What a thread's checkpoint keeps about its messages: who said each, and which of them came with the call under way.

It lies in the graph's own state, so that it holds in every process and at every checkpoint, and no caller can hand it
in. A user stands in it as a digest.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Annotated, Any, NotRequired, Self

from langchain.agents.middleware import AgentState
from langchain.agents.middleware.types import PrivateStateAttr
from langchain_core.messages import BaseMessage

from langchain_locas.messages import role_of
from locas_agent.errors import ConfigurationError

NOBODY = ""
"""Stands where it is not known who said a message: it was there before, or a room's answer, which is no one user's."""


class ThreadState(AgentState[Any]):
    """The state of an agent, and what `LocasMemoryMiddleware` keeps of its messages."""

    locas_owner: NotRequired[Annotated[str, PrivateStateAttr]]
    locas_marks: NotRequired[Annotated[dict[str, dict[str, Any]], PrivateStateAttr]]
    locas_new: NotRequired[Annotated[list[str], PrivateStateAttr]]


@dataclass(frozen=True, slots=True)
class Mark:
    """What is kept about one message."""

    by: str
    """Digest of the user who said it, or `NOBODY`."""
    text: str
    """Digest of its content: another one under the same id is an edited message."""
    is_open: bool = True
    """No call has ended well since it came, or was edited: the journal may not have it yet, or not with this text."""
    is_refused: bool = False
    """The journal refused it, so it is not tried again."""


@dataclass(frozen=True, slots=True)
class Marks:
    """What is kept about a thread."""

    owner: str | None = None
    """Digest of the user who began it; None before the first call."""
    known: Mapping[str, Mark] = field(default_factory=dict)
    """By message id, those that were there when the call under way began."""
    new: frozenset[str] = frozenset()
    """Ids of the messages that came with the call under way."""

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> Self:
        """Read them from a graph's state."""
        known = {name: Mark(**mark) for name, mark in (state.get("locas_marks") or {}).items()}
        return cls(state.get("locas_owner"), known, frozenset(state.get("locas_new") or ()))

    def as_state(self) -> dict[str, Any]:
        """Return them as an update of a graph's state."""
        return {
            "locas_owner": self.owner,
            "locas_marks": {name: asdict(mark) for name, mark in self.known.items()},
            "locas_new": sorted(self.new),
        }

    def fresh(self, messages: Iterable[BaseMessage]) -> list[BaseMessage]:
        """Return the messages that are not known yet, or with another text."""
        return [
            message
            for message in messages
            if (mark := self.known.get(str(message.id))) is None or mark.text != _digest(message)
        ]

    def brought(self, messages: Sequence[BaseMessage]) -> list[BaseMessage]:
        """Return what a call that is refused brought into the thread.

        In a thread with an owner that is all that is not known, even what a call of the owner left when it broke off.
        Of a thread that has no marks yet the history stays.
        """
        fresh = self.fresh(messages)
        new = self._of_the_call(messages, {str(message.id) for message in fresh})
        return [message for message in fresh if self.owner is not None or str(message.id) in new]

    def opened(self, messages: Sequence[BaseMessage], caller: str, *, takes_earlier: bool) -> Self:
        """Return what holds while a call is under way.

        Args:
            messages: of the thread, with those of the call.
            caller: digest of who calls, to whom the messages of the call are put down.
            takes_earlier: whether unknown messages from before the call are the caller's too, else they are nobody's.
        """
        fresh = {str(message.id) for message in self.fresh(messages)}
        new = self._of_the_call(messages, fresh)
        earlier = caller if takes_earlier else NOBODY
        made = {
            name: Mark(caller if name in new else earlier, _digest(message))
            for message in messages
            if (name := str(message.id)) in fresh
        }
        known = {name: made.get(name) or self.known[name] for message in messages if (name := str(message.id))}
        return replace(self, owner=self.owner or caller, known=known, new=frozenset(new))

    def closed(self, messages: Sequence[BaseMessage], by: str, refused: Iterable[str]) -> Self:
        """Return what is kept after a call.

        Args:
            messages: of the thread, with what arose during the call.
            by: digest of whom these are put down to, or `NOBODY`.
            refused: ids of messages that the journal refused.
        """
        passed_over = set(refused)
        known: dict[str, Mark] = {}
        for message in messages:
            name = str(message.id)
            mark = self.known.get(name, Mark(by, ""))
            known[name] = Mark(
                mark.by, _digest(message), is_open=False, is_refused=mark.is_refused or name in passed_over
            )
        return replace(self, known=known, new=frozenset())

    def is_of_this_call(self, message: BaseMessage) -> bool:
        """Tell whether a message came with the call under way, or arose during it."""
        return str(message.id) in self.new or str(message.id) not in self.known

    def by(self, message: BaseMessage) -> str | None:
        """Return who said a message; None for what arose during the call."""
        mark = self.known.get(str(message.id))
        return None if mark is None else mark.by

    def is_open(self, message: BaseMessage) -> bool:
        """Tell whether the journal may not have a message yet, or not with its present text."""
        mark = self.known.get(str(message.id))
        return mark is None or mark.is_open

    def awaits(self, message: BaseMessage) -> bool:
        """Tell whether a message that was there when the call began is open."""
        return str(message.id) in self.known and self.is_open(message)

    def is_refused(self, message: BaseMessage) -> bool:
        """Tell whether the journal refused a message in an earlier call."""
        mark = self.known.get(str(message.id))
        return mark is not None and mark.is_refused

    def _of_the_call(self, messages: Sequence[BaseMessage], fresh: set[str]) -> set[str]:
        """Return ids of what a call brought.

        Edited messages, and those after the last answer, from the first one of a person on.

        Unknown ones before that were left by a call that broke off, or were there before.
        """
        edited = fresh & set(self.known)
        last = max((at for at, message in enumerate(messages) if _role(message) == "assistant"), default=-1)
        unanswered = [message for message in messages[last + 1 :] if str(message.id) in fresh - edited]
        first = next((at for at, message in enumerate(unanswered) if is_persons(message)), 0)
        return edited | {str(message.id) for message in unanswered[first:]}


def is_persons(message: BaseMessage) -> bool:
    """Tell whether a person sent a message.

    One of an unknown role counts as such, so that it is refused in the call that brings it.
    """
    return _role(message) in ("user", None)


def _role(message: BaseMessage) -> str | None:
    try:
        return role_of(message)
    except ConfigurationError:
        return None


def _digest(message: BaseMessage) -> str:
    content = (
        message.content
        if isinstance(message.content, str)
        else json.dumps(message.content, sort_keys=True, default=repr)
    )
    return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()[:32]

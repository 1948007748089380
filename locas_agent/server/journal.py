"""Messages of a request as turns of the journal: each once, although clients send the whole conversation every time.

A turn's idempotency key is a digest over the conversation's name and all that was said in it up to that turn. What
comes again has the same key and adds nothing; what was forgotten stays away, since its key does.

Most clients give a conversation no name. It is then told by how it began. The same words may begin another one later:
that is so when something else was said since. Where several began alike, a request goes on with the one of which it
repeats most.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from locas_agent import AgentMemory, MemoryHost, Turn, UserKey
from locas_agent.errors import TurnNotFound, TurnTooLong
from locas_agent.server.protocol.content import Message, merged
from locas_storage import TurnDraft

logger = logging.getLogger(__name__)

_ALIKE = 8
"""Conversations that began with the same words, of which the newest so many are told apart."""


@dataclass(frozen=True, slots=True)
class JournalledChat:
    """A conversation whose turns are journalled.

    Attributes:
        user: whose.
        session: the session that its turns belong to.
        chain: digest over all that was said so far.
        shown: the messages of the prompt: what was forgotten is left out, what was corrected is as the journal has it.
        turns: for each of these the turn that holds it; None for one that nobody said.
        learn: whether the answer may be learnt.
    """

    user: UserKey
    session: str
    chain: str = field(repr=False)
    shown: list[Message] = field(repr=False)
    turns: list[Turn | None] = field(repr=False)
    learn: bool


class ChatJournal:
    """Journals conversations that clients hold. May be called from several threads.

    Args:
        memory: whose journals.
    """

    def __init__(self, memory: MemoryHost) -> None:
        self._memory = memory
        self._store = memory.store

    def record(
        self, user: UserKey, messages: Sequence[Message], *, conversation: str | None, learn: bool
    ) -> JournalledChat:
        """Journal what was said and is not journalled yet, in one transaction.

        System messages, what tools returned and calls of tools are no turns: nobody said them.

        Args:
            user: whose.
            messages: the whole conversation.
            conversation: its name, if the client gives it one.
            learn: whether what is new, and its answer, may be learnt; what is journalled already stays as it is.

        Raises:
            TurnNotFound: the newest message was said before, and forgotten.
            TurnTooLong: a new message does not fit into the backbone's context beside an answer.
            InvalidTurn: a new message cannot be stored.
        """
        said = [at for at, message in enumerate(messages) if _is_said(message)]
        root = self._root(user, [messages[at] for at in said], conversation)
        chain = _chain(root, [messages[at] for at in said])
        session = conversation if conversation is not None else f"chat-{(chain or [root])[0][:16]}"
        known = {turn.idempotency_key: turn for turn in self._store.known(user, map(_key, chain))}
        new = [(at, digest) for at, digest in zip(said, chain, strict=True) if _key(digest) not in known]
        drafts = [_draft(messages[at], session, digest, learn) for at, digest in new]
        known |= {turn.idempotency_key: turn for turn in self._memory.append(user, drafts)}
        of = {at: known[_key(digest)] for at, digest in zip(said, chain, strict=True)}
        if said and of[said[-1]].is_forgotten:
            raise TurnNotFound("the newest message was said before and was forgotten: say it in a new conversation")
        kept = [at for at in range(len(messages)) if at not in of or not of[at].is_forgotten]
        shown = [messages[at] | {"content": of[at].content} if at in of else messages[at] for at in kept]
        return JournalledChat(user, session, chain[-1] if chain else root, shown, [of.get(at) for at in kept], learn)

    def answered(self, recorded: JournalledChat, text: str) -> None:
        """Journal the answer to what was recorded; one of blanks is none.

        Raises:
            StorageError: it cannot be stored.
        """
        message: Message = {"role": "assistant", "content": text}
        if _is_said(message):
            digest = _chain(recorded.chain, [message])[0]
            append_answer(self._memory, recorded.user, _draft(message, recorded.session, digest, recorded.learn))

    def _root(self, user: UserKey, said: Sequence[Message], conversation: str | None) -> str:
        """Return the digest from which the chain of a conversation begins."""
        if conversation is not None:
            return _digest("named", conversation)
        if not said:
            return _digest("unnamed", "0")
        begun = self._begun(user, said[0])
        roots = [_digest("unnamed", str(number)) for number in range(max(0, begun - _ALIKE), begun)]
        if not roots:
            return _digest("unnamed", "0")
        if len(said) == 1:
            return roots[-1] if self._is_open(user, said[0], roots[-1]) else _digest("unnamed", str(begun))
        chains = {root: _chain(root, said) for root in roots}
        keys = [_key(digest) for chain in chains.values() for digest in chain]
        known = {turn.idempotency_key for turn in self._store.known(user, keys)} if len(roots) > 1 else set()
        return max(reversed(roots), key=lambda root: sum(_key(digest) in known for digest in chains[root]))

    def _begun(self, user: UserKey, first: Message) -> int:
        """Return how many conversations of a user began with these words; they are numbered without a gap."""
        count = 0
        while True:
            roots = (_digest("unnamed", str(number)) for number in range(count, count + _ALIKE))
            found = len(self._store.known(user, [_key(_chain(root, [first])[0]) for root in roots]))
            count += found
            if found < _ALIKE:
                return count

    def _is_open(self, user: UserKey, first: Message, root: str) -> bool:
        """Tell whether nothing but an answer was said since a conversation began: the same call, tried again."""
        (began,) = self._store.known(user, [_key(_chain(root, [first])[0])])
        later = self._store.turns(user, after=began.seq, upto=began.seq + 2)
        return not began.is_forgotten and (
            not later or (len(later) == 1 and later[0].role == "assistant" and later[0].session == began.session)
        )


def append_answer(memory: MemoryHost, user: UserKey, draft: TurnDraft) -> None:
    """Journal an answer, cut to what a turn can hold: one call may ask for a longer answer than the settings."""
    while True:
        try:
            memory.append(user, [draft])
            return
        except TurnTooLong:
            logger.info("answer cut for the journal", extra={"action": "cut", "user": user.short_hash})
            draft = replace(draft, content=draft.content[: len(draft.content) * 3 // 4])


def fitted(
    agent: AgentMemory, recorded: JournalledChat, tools: Sequence[Mapping[str, Any]], *, answer_tokens: int
) -> list[Message]:
    """Return the messages of a prompt without its oldest turns, where it has no room for all of them.

    Those are not lost: they are journalled, and learnt or wait to be. What is no turn is never left out, nor the newest
    question and what came after it.
    """
    backbone = agent.backbone
    room = backbone.context_tokens - min(answer_tokens, backbone.context_tokens // 2)
    left = list(zip(recorded.shown, recorded.turns, strict=True))
    while True:
        chat = merged(message for message, _ in left)
        excess = len(backbone.encode_chat(chat, tools=tools or None)) - room
        shorter = _without_oldest(left, excess)
        if len(shorter) == len(left):
            return chat
        left = shorter


def _without_oldest(
    left: Sequence[tuple[Message, Turn | None]], excess_tokens: int
) -> list[tuple[Message, Turn | None]]:
    """Leave out the oldest turns before the newest question, of at least so many tokens; answers go with questions."""
    questions = [at for at, (message, _) in enumerate(left) if message["role"] == "user"]
    gone: set[int] = set()
    for at in range(questions[-1] if questions else 0):
        turn = left[at][1]
        is_answer = turn is not None and turn.role == "assistant" and at - 1 in gone
        if turn is not None and (excess_tokens > 0 or is_answer):
            gone.add(at)
            excess_tokens -= max(1, turn.token_count)
    return [each for at, each in enumerate(left) if at not in gone]


def _is_said(message: Message) -> bool:
    return message["role"] in ("user", "assistant") and bool(str(message["content"]).strip())


def _chain(root: str, said: Sequence[Message]) -> list[str]:
    """Return for each message the digest over it and all before it."""
    chain: list[str] = []
    for message in said:
        root = _digest(root, message["role"], message.get("name") or "", message["content"])
        chain.append(root)
    return chain


def _digest(*parts: str) -> str:
    hashed = hashlib.sha256()
    for part in parts:
        encoded = part.encode("utf-8", "surrogatepass")
        hashed.update(len(encoded).to_bytes(8, "big") + encoded)
    return hashed.hexdigest()


def _key(digest: str) -> str:
    return f"chat-{digest[:48]}"


def _draft(message: Message, session: str, digest: str, learn: bool) -> TurnDraft:
    return TurnDraft(
        message["role"],
        message["content"],
        name=message.get("name") if message["role"] == "user" else None,
        session=session,
        idempotency_key=_key(digest),
        learn=learn,
    )

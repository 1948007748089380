"""Chats of other programs put into a user's journal: each message once, however often the file is given."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from locas_agent.backbone import Backbone
from locas_agent.conversation.token_count import with_token_count
from locas_agent.errors import InvalidTurn, TurnTooLong
from locas_agent.import_export.chat_files import ChatSource, ExportedChat, read_chats
from locas_agent.types import Progress
from locas_storage import MemoryStore, TurnDraft, UserKey

_UNTOLD = datetime.min.replace(tzinfo=UTC)
TURNS_AT_ONCE = 500
"""Turns of one transaction."""


@dataclass(frozen=True, slots=True)
class ChatImport:
    """What became of a file of chats."""

    source: ChatSource | None
    """Whose export it is; None where it holds no conversation."""
    conversations: int
    """Conversations with something said in them."""
    turns: int
    """Messages that were added to the journal."""
    known: int
    """Messages that the journal had before."""
    left_out: int
    """Messages that do not fit into the backbone's context, or that no journal takes."""


class ChatImporter:
    """Puts exported chats into journals.

    Args:
        backbone: counts the tokens of what was said.
        store: where the journals are.
        answer_tokens: room that a turn leaves for an answer, in tokens.
    """

    def __init__(self, *, backbone: Backbone, store: MemoryStore, answer_tokens: int) -> None:
        self._backbone = backbone
        self._store = store
        self._answer_tokens = answer_tokens

    def take(self, key: UserKey, path: str | Path, *, learn: bool, progress: Progress | None) -> ChatImport:
        """Add what a file holds and the journal does not, the oldest conversation first.

        The whole file is read before the first turn is written, so that a damaged one changes nothing. Its words are in
        memory then, and what else it holds is not.

        Args:
            key: whose journal.
            path: the file.
            learn: whether the turns may be learnt.
            progress: told of the conversations.

        Raises:
            ExchangeError: it is no such file, or damaged; nothing was written.
            UserErased: the user was erased; nothing was written.
        """
        chats = sorted((chat for chat in read_chats(path) if chat.messages), key=lambda chat: chat.began_at or _UNTOLD)
        added = known = left_out = 0
        for done, chat in enumerate(chats, start=1):
            drafts = _drafts(chat, learn=learn)
            new = self._unknown(key, drafts)
            fitting = [draft for draft in map(self._counted, new) if draft is not None]
            for start in range(0, len(fitting), TURNS_AT_ONCE):
                self._store.append(key, fitting[start : start + TURNS_AT_ONCE])
            added += len(fitting)
            known += len(drafts) - len(new)
            left_out += len(chat.messages) - len(drafts) + len(new) - len(fitting)
            if progress is not None:
                progress("import", done, len(chats))
        return ChatImport(chats[0].source if chats else None, len(chats), added, known, left_out)

    def _unknown(self, key: UserKey, drafts: Sequence[TurnDraft]) -> list[TurnDraft]:
        """Return the drafts that the journal has no turn for, not even a forgotten one."""
        found = self._store.known(key, [str(draft.idempotency_key) for draft in drafts])
        before = {turn.idempotency_key for turn in found}
        return [draft for draft in drafts if draft.idempotency_key not in before]

    def _counted(self, draft: TurnDraft) -> TurnDraft | None:
        """Return a draft with its token count, None where the backbone could not read it."""
        try:
            return with_token_count(self._backbone, draft, answer_tokens=self._answer_tokens)
        except TurnTooLong:
            return None


def _drafts(chat: ExportedChat, *, learn: bool) -> list[TurnDraft]:
    """Return the turns of a conversation; a message that no journal takes is left out, and keeps no other one out."""
    drafts: dict[str, TurnDraft] = {}
    for message in chat.messages:
        name = _digest(chat.source, chat.chat_id, message.message_id)
        with suppress(InvalidTurn):
            drafts[name] = TurnDraft(
                message.role,
                message.text,
                session=f"{chat.source}:{_digest(chat.chat_id)[:32]}",
                at=message.at or chat.began_at,
                idempotency_key=f"chat:{name}",
                learn=learn,
            )
    return list(drafts.values())


def _digest(*parts: str) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

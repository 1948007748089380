"""Messages become turns of a session: all or none, in one transaction, and one that has an id once."""

from __future__ import annotations

from collections.abc import Sequence

from langchain_core.messages import BaseMessage

from langchain_locas.messages import draft_of, is_said, turn_key
from locas_agent import MemoryHost
from locas_storage import UserKey


def keep(agent: MemoryHost, user: UserKey, session: str | None, messages: Sequence[BaseMessage]) -> None:
    """Journal what was said in messages, oldest first.

    A message that has an id is one turn, however often it is given, and so is one that was read from the journal. One
    whose turn was forgotten is said again: a caller that gives it again, as a replay or an import does, wants it kept.
    What this reads does not grow with the journal.

    Raises:
        ConfigurationError: a message has no role that is known, or holds something else than text.
        InvalidTurn: text that cannot be stored.
        TurnTooLong: a message does not fit into the backbone's context beside an answer. Nothing was written, as with
            the others.
    """
    said = [message for message in messages if is_said(message)]
    keys = _keys(agent, user, session, [message.id for message in said if message.id is not None])
    new = [message for message in said if message.id is None or message.id in keys]
    if new:
        agent.append(
            user,
            [
                draft_of(message, session=session, idempotency_key=None if message.id is None else keys[message.id])
                for message in new
            ],
        )


def _keys(agent: MemoryHost, user: UserKey, session: str | None, message_ids: Sequence[str]) -> dict[str, str]:
    """Return under which key each message is one turn.

    None for a message that is itself a turn of the session, read from the journal.
    """
    read = {
        turn.idempotency_key
        for turn in agent.store.known(user, message_ids)
        if turn.session == session and not turn.is_forgotten
    }
    keys = {message_id: turn_key(session, message_id) for message_id in message_ids if message_id not in read}
    again = 0
    while gone := {turn.idempotency_key for turn in agent.store.known(user, keys.values()) if turn.is_forgotten}:
        again += 1
        keys |= {
            message_id: turn_key(session, message_id, again=again) for message_id, key in keys.items() if key in gone
        }
    return keys

"""`LocasSession`: the `Session` of the OpenAI Agents SDK over the journal, each user's conversations apart.

The SDK's protocol is structural, so nothing of it is imported here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, cast
from uuid import uuid4

from locas_agent import AgentMemory, MemoryHost, Turn
from locas_agent.conversation.token_count import with_token_count
from locas_agent.errors import ConfigurationError, InvalidTurn, TurnTooLong
from locas_storage import TurnDraft

if TYPE_CHECKING:
    from agents import SessionSettings, TResponseInputItem

Item = dict[str, Any]
Form = Literal["plain", "typed", "input", "output"]
"""How an item that is only words is written, so that it comes back as it was."""

_FORMS: tuple[Form, ...] = ("plain", "typed", "input", "output")
_PREFIX = "agents"
_JSON = "json"
_TRUST = "agents item"
_ROLES = ("user", "assistant", "system")
_MOST_ID_CHARS = 120


class LocasSession:
    """One conversation of one user, to be given to `Runner.run(agent, text, session=session)`.

    What a person and the assistant said are turns, found and learnt like others. Calls of tools, their results,
    thoughts and pictures are kept as they are for the SDK, and never learnt. Items come back as they were added.

    Args:
        memory: where the journal is.
        user_id: whose.
        session_id: which conversation; of another user the same name is another one.
        tenant: the application or customer the user belongs to.
        learn: whether what is said may be learnt.
        session_settings: of the SDK; its `limit` is how many items a run is given.
    """

    def __init__(
        self,
        memory: MemoryHost,
        user_id: str,
        session_id: str,
        *,
        tenant: str = "default",
        learn: bool = True,
        session_settings: SessionSettings | None = None,
    ) -> None:
        self.session_id = session_id
        self.session_settings = session_settings
        self._memory = memory
        self._user = memory.for_user(user_id, tenant=tenant)
        self._learn = learn

    async def get_items(self, limit: int | None = None) -> list[TResponseInputItem]:
        """Return the items, oldest first; with a limit the newest so many.

        A turn that was forgotten is not among them, one that was corrected stands in its old place.
        """
        wanted = limit if limit is not None or self.session_settings is None else self.session_settings.limit
        turns = await self._turns()
        chosen = turns if wanted is None else turns[max(0, len(turns) - max(0, wanted)) :]
        return [cast("TResponseInputItem", _item_of(turn)) for turn in chosen]

    async def add_items(self, items: list[TResponseInputItem]) -> None:
        """Journal items, all or none.

        Raises:
            ConfigurationError: an item is no JSON.
            InvalidTurn: an item is larger than a turn can be; nothing was written.
        """
        if items:
            await self._memory.crews.run("journal", self._journal, [cast("Item", item) for item in items])

    async def pop_item(self) -> TResponseInputItem | None:
        """Forget the newest item and return it, None where there is none.

        Of several calls at once each returns another one.
        """
        while turns := await self._turns():
            if (await self._user.aforget(turns[-1])).turns:
                return cast("TResponseInputItem", _item_of(turns[-1]))
        return None

    async def clear_session(self) -> None:
        """Forget the conversation: its text, and what was learnt from it."""
        if turns := await self._turns():
            await self._user.aforget(turns)

    async def _turns(self) -> list[Turn]:
        """Return the turns of this conversation, in the order in which their items were added.

        A corrected turn has another number and its old time and key. Clocks of databases tick in milliseconds, so
        calls at once may have one time: the numbers of their turns say which was first.
        """
        mine = [turn for turn in await self._user.aturns() if turn.session == self.session_id and _is_item(turn)]
        first: dict[str, int] = {}
        for turn in mine:  # by their numbers
            first.setdefault(_call_of(turn), turn.seq)
        return sorted(mine, key=lambda turn: (turn.at, first[_call_of(turn)], _index_of(turn)))

    def _journal(self, items: Sequence[Item]) -> None:
        home, call = self._memory.runtime_of(self._user.key), uuid4().hex
        drafts = [self._draft(home, item, f"{index:06x}:{call}") for index, item in enumerate(items)]
        home.append(self._user.key, drafts)

    def _draft(self, home: AgentMemory, item: Item, place: str) -> TurnDraft:
        """Return an item as a turn: its words if they are all there is to it and a turn can hold them, else JSON."""
        form, text = _words_of(item)
        if form is not None:
            key = f"{_PREFIX}:{form}:{place}:{item.get('id', '')}"
            try:
                draft = TurnDraft(item["role"], text, session=self.session_id, idempotency_key=key, learn=self._learn)
                return with_token_count(home.backbone, draft, answer_tokens=home.config.window.max_new_tokens)
            except (InvalidTurn, TurnTooLong):
                pass  # too long to be read, or half a character: JSON holds it
        return TurnDraft(
            "tool",
            _as_json(item),
            session=self.session_id,
            idempotency_key=f"{_PREFIX}:{_JSON}:{place}:",
            trust=_TRUST,
            token_count=1,  # whatever its length: it is the SDK's, and no reason to refuse the run
            learn=False,
        )


def _is_item(turn: Turn) -> bool:
    return turn.idempotency_key.startswith(f"{_PREFIX}:")


def _index_of(turn: Turn) -> int:
    """Return an item's place among those added with it."""
    return int(turn.idempotency_key.split(":")[2], 16)


def _call_of(turn: Turn) -> str:
    """Return what the items that were added by one call have in common."""
    return turn.idempotency_key.split(":")[3]


def _item_of(turn: Turn) -> Item:
    """Return the item that a turn holds."""
    _, form, _, _, item_id = turn.idempotency_key.split(":", 4)
    if form == _JSON:
        return cast("Item", json.loads(turn.content))
    return _written(cast("Form", form), turn.role, turn.content, item_id)


def _words_of(item: Mapping[str, Any]) -> tuple[Form | None, str]:
    """Return in which form an item is nothing but words, and the words; None where it is more, or something else."""
    content = item.get("content")
    if isinstance(content, list) and len(content) == 1 and isinstance(content[0], Mapping):
        content = content[0].get("text")
    item_id, role = item.get("id", ""), item.get("role")
    if not isinstance(content, str) or role not in _ROLES or not isinstance(item_id, str):
        return None, ""
    if len(item_id) > _MOST_ID_CHARS:
        return None, ""
    return next((form for form in _FORMS if _written(form, role, content, item_id) == item), None), content


def _written(form: Form, role: str, text: str, item_id: str) -> Item:
    """Write words as an item."""
    match form:
        case "plain":
            return {"role": role, "content": text}
        case "typed":
            return {"type": "message", "role": role, "content": text}
        case "input":
            return {"type": "message", "role": role, "content": [{"type": "input_text", "text": text}]}
        case "output":
            block = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
            return {"id": item_id, "type": "message", "role": role, "status": "completed", "content": [block]}


def _as_json(item: Item) -> str:
    try:
        return json.dumps(item, separators=(",", ":"))
    except (TypeError, ValueError) as error:
        raise ConfigurationError(
            f"an item of type {type(item).__name__} is no JSON: a session keeps the input items of the SDK"
        ) from error

"""The prompt of a reply: the user's newest turns, laid out and encoded by the chat template once."""

from __future__ import annotations

from dataclasses import dataclass, field

from locas_agent.backbone import Backbone
from locas_agent.config import WindowSettings
from locas_agent.conversation import window
from locas_agent.conversation.messages import conversation
from locas_storage import MemoryStore, Turn, UserKey

FIRST_TURNS = 32
"""Newest turns that are read at first; twice as many each time until they hold the window and all that is not
learnt."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """The turns that an answer is made from, and their tokens."""

    layout: window.Layout
    ids: list[int] = field(repr=False)
    """Token ids of `layout.prompt_turns` in the chat template, the opening of the answer included; empty without a
    turn."""


class PromptBuilder:
    """Builds prompts from the journal. May be called from several threads.

    Args:
        backbone: gives tokenizer, chat template and context.
        store: where journals are.
        settings: window and longest answer.
    """

    def __init__(self, backbone: Backbone, store: MemoryStore, settings: WindowSettings) -> None:
        self._backbone = backbone
        self._store = store
        self._settings = settings

    def build(self, key: UserKey, *, max_new_tokens: int | None = None, upto: int | None = None) -> Prompt:
        """Split the user's newest turns into the window, the overflow that still fits, and the rest.

        Reads only as much of the journal as that takes.

        Args:
            key: whose turns.
            max_new_tokens: longest answer, in tokens, for which the prompt leaves room; the configuration's by default.
            upto: the last turn; later ones are left out.
        """
        state = self._store.state(key)
        room = self._backbone.context_tokens - self._settings.answer_tokens(max_new_tokens)
        learnt = state.consolidated_seq if state else 0
        newest = self._newest(key, learnt, upto)
        laid = window.lay_out(
            newest, consolidated_seq=learnt, window_tokens=self._settings.window_tokens, room_tokens=room
        )
        ids = self._encoded(laid)
        # Session headers and the opening of the answer are not in the turns' counts: measure the whole prompt.
        while len(laid.prompt_turns) > 1 and (excess := len(ids) - room) > 0:
            laid = laid.shortened(excess)
            ids = self._encoded(laid)
        return Prompt(laid, ids)

    def _encoded(self, laid: window.Layout) -> list[int]:
        turns = laid.prompt_turns
        return self._backbone.encode_chat(conversation(turns)) if turns else []

    def _newest(self, key: UserKey, learnt: int, upto: int | None) -> list[Turn]:
        """Read the window and all that is not learnt, at most as many turns as could ever fit.

        What a reply costs does not grow with the journal.
        """
        most = max(FIRST_TURNS, self._backbone.context_tokens // 4)
        count = FIRST_TURNS
        while True:
            newest = self._store.turns(key, newest=count, upto=upto)
            is_full = sum(turn.token_count for turn in newest) > self._backbone.context_tokens
            has_window = window.first_of_window(newest, self._settings.window_tokens) > 0
            if len(newest) < count or count == most or is_full or (has_window and newest[0].seq <= learnt + 1):
                return newest
            count = min(2 * count, most)

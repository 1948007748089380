"""Answers: journal the turn, lay out the prompt, generate with the memory attached, journal the answer.

Knows no training: whoever calls it asks afterwards whether something is due.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from locas_agent import window
from locas_agent.backbone import Backbone
from locas_agent.config import WindowSettings
from locas_agent.counting import counted, room_beside, tokens_of
from locas_agent.decoding import check_decoding
from locas_agent.detokenizer import Detokenizer
from locas_agent.engine import Engine
from locas_agent.errors import ConfigurationError, TurnNotFound
from locas_agent.loaded import LoadedMemories
from locas_agent.memory import LocasMemory
from locas_agent.past import Kept
from locas_agent.prompting import conversation
from locas_agent.results import PromptTokens, Reply
from locas_storage import MemoryStore, Revision, Turn, TurnDraft, UserKey

Append = Callable[[UserKey, Sequence[TurnDraft]], list[Turn]]

FIRST_TURNS = 32
"""Newest turns that are read at first; twice as many each time until they hold the window and all that is not learnt."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How an answer is drawn."""

    max_new_tokens: int | None = None
    """Longest answer, in tokens; None leaves it to the configuration."""
    temperature: float = 0.0
    """0 is greedy."""
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Asked:
    """What one user says, and the key that makes a retried call one pair of turns."""

    user: UserKey
    text: str
    key: str | None = None


@dataclass(frozen=True, slots=True)
class _Prompt:
    """What one answer is made from."""

    turn: Turn
    layout: window.Layout
    revision: Revision | None
    memory: LocasMemory | None
    ids: list[int]
    kept: Kept


class Replies:
    """Answers users of one backbone.

    Args:
        backbone: the frozen language model.
        store: where journals are.
        engine: runs the backbone.
        memories: of the users.
        settings: window and longest answer.
        append: journals turns.
    """

    def __init__(
        self, *, backbone: Backbone, store: MemoryStore, engine: Engine, memories: LoadedMemories, settings: WindowSettings, append: Append
    ) -> None:
        self._backbone = backbone
        self._store = store
        self._engine = engine
        self._memories = memories
        self._settings = settings
        self._append = append

    def answer(self, asked: Sequence[Asked], sampling: Sampling) -> list[Reply]:
        """Answer several users in one batch, each row with its own memory.

        Raises:
            ConfigurationError: no answer is that long, or no such temperature; nothing was written.
            TurnTooLong: what somebody says leaves no room for the answer; nothing was written.
        """
        length = self._longest(asked, sampling)
        said = [self._say(one) for one in asked]
        prompts = [self._prompt(one, turn, length) for one, turn in zip(asked, said, strict=True)]
        generations = self._engine.generate(
            [prompt.ids for prompt in prompts], memory=self._memories.batch([prompt.memory for prompt in prompts]), max_new_tokens=length,
            temperature=sampling.temperature, seed=sampling.seed, kept=[prompt.kept for prompt in prompts],
        )  # fmt: skip
        return [self._answered(one, prompt, generation.ids) for one, prompt, generation in zip(asked, prompts, generations, strict=True)]

    def stream(self, asked: Asked, sampling: Sampling, finish: Callable[[Reply], None]) -> Iterator[str]:
        """Answer one user piece by piece; the answer is journalled and handed to `finish` when the last piece has been taken.

        Raises:
            ConfigurationError, TurnTooLong: as `answer`.
        """
        length = self._longest([asked], sampling)
        prompt = self._prompt(asked, self._say(asked), length)
        memory = self._memories.batch([prompt.memory])
        ids: list[int] = []
        tokens = self._engine.stream(
            prompt.ids, memory=memory, max_new_tokens=length, temperature=sampling.temperature, seed=sampling.seed, kept=prompt.kept
        )
        detokenizer = Detokenizer(self._backbone.decode)
        for token in tokens:
            ids.append(token)
            if text := detokenizer.add(token):
                yield text
        if text := detokenizer.finish():
            yield text
        finish(self._answered(asked, prompt, ids))

    def layout(self, key: UserKey, *, max_new_tokens: int | None = None) -> window.Layout:
        """Sort the user's newest turns into window, overflow that fits, and the rest; reads no more of the journal than that takes."""
        state = self._store.state(key)
        room = self._backbone.context_tokens - self._settings.answer_tokens(max_new_tokens)
        learnt = state.consolidated_seq if state else 0
        newest = self._newest(key, learnt)
        laid = window.lay_out(newest, consolidated_seq=learnt, window_tokens=self._settings.window_tokens, room_tokens=room)
        # Session headers and the opening of the answer are not in the turns' counts: measure the whole prompt.
        while len(laid.prompt_turns) > 1 and (excess := len(self._backbone.encode_chat(conversation(laid.prompt_turns))) - room) > 0:
            laid = laid.shortened(excess)
        return laid

    def _newest(self, key: UserKey, learnt: int) -> list[Turn]:
        """Read the window and all that is not learnt, at most as many turns as could ever fit: what a reply costs does not grow with the journal."""
        most = max(FIRST_TURNS, self._backbone.context_tokens // 4)
        count = FIRST_TURNS
        while True:
            newest = self._store.turns(key, newest=count)
            is_full = sum(turn.token_count for turn in newest) > self._backbone.context_tokens
            has_window = window.first_of_window(newest, self._settings.window_tokens) > 0
            if len(newest) < count or count == most or is_full or (has_window and newest[0].seq <= learnt + 1):
                return newest
            count = min(2 * count, most)

    def _longest(self, asked: Sequence[Asked], sampling: Sampling) -> int:
        """Return the longest answer, in tokens, after refusing what could not be answered: nobody's turn is journalled yet."""
        length = self._settings.answer_tokens(sampling.max_new_tokens)
        check_decoding(length, sampling.temperature)
        most = room_beside(self._backbone, self._settings.max_new_tokens)
        if length > most:
            raise ConfigurationError(
                f"max_new_tokens is {length}; an answer becomes a turn, and a turn of {self._backbone.name!r} has up to {most} tokens: ask for less"
            )
        for one in asked:
            counted(self._backbone, TurnDraft("user", one.text), answer_tokens=length)
        return length

    def _say(self, asked: Asked) -> Turn:
        turn = self._append(asked.user, [TurnDraft("user", asked.text, key=asked.key)])[0]
        if turn.is_forgotten:
            raise TurnNotFound(f"turn {turn.seq}, said under this key before, was forgotten: it is not answered; say it again under a new key")
        return turn

    def _prompt(self, asked: Asked, turn: Turn, length: int) -> _Prompt:
        revision, memory = self._memories.current(asked.user)
        layout = self.layout(asked.user, max_new_tokens=length)
        ids = self._backbone.encode_chat(conversation(layout.prompt_turns))
        return _Prompt(turn, layout, revision, memory, ids, self._memories.past(asked.user, revision))

    def _answered(self, asked: Asked, prompt: _Prompt, ids: Sequence[int]) -> Reply:
        """Journal an answer and describe it."""
        self._memories.keep_past(asked.user, prompt.revision, prompt.kept)
        key = f"{asked.key}:answer" if asked.key else None
        draft = TurnDraft("assistant", self._text(ids), session=prompt.turn.session, key=key)
        turn = self._append(asked.user, [draft])[0]
        layout, revision = prompt.layout, prompt.revision
        return Reply(
            text=turn.content, turn=turn, revision=revision.number if revision else None,
            used_memory=revision is not None and revision.has_payload, why_no_memory=_why_none(revision),
            pending_turns=layout.pending_turns, unseen_turns=layout.unseen_turns,
            prompt_tokens=PromptTokens(sum(t.token_count for t in layout.window), sum(t.token_count for t in layout.overflow)),
        )  # fmt: skip

    def _text(self, ids: Sequence[int]) -> str:
        """Spell an answer, cut to what a turn can hold.

        A weak backbone may write noise whose spelling has more tokens than it was drawn with.
        """
        most = room_beside(self._backbone, self._settings.max_new_tokens)
        while True:
            text = self._backbone.decode(ids).strip()
            tokens = tokens_of(self._backbone, TurnDraft("assistant", text))
            if tokens <= most or not ids:
                return text
            ids = ids[: min(len(ids) - 1, len(ids) * most // tokens)]


def _why_none(revision: Revision | None) -> str | None:
    if revision is None:
        return "nothing has been consolidated yet"
    return None if revision.has_payload else f"revision {revision.number} went back to the time before the first memory"

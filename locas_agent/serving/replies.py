"""Answers: journal the turn, lay out the prompt, generate with the memory attached, journal the answer.

Knows no training: whoever calls it asks afterwards whether something is due.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass

from locas_agent.aio import Crew, Crews
from locas_agent.backbone import Backbone
from locas_agent.backbone.detokenizer import Detokenizer
from locas_agent.config import WindowSettings
from locas_agent.conversation import window
from locas_agent.conversation.messages import conversation
from locas_agent.conversation.token_count import counted, room_beside, tokens_of
from locas_agent.errors import ConfigurationError, InvalidTurn, TurnNotFound
from locas_agent.inference import Engine
from locas_agent.inference.generation import check_decoding
from locas_agent.inference.prefix_cache import Kept
from locas_agent.memory import LocasMemory
from locas_agent.memory_cache import LoadedMemories
from locas_agent.results import PromptTokens, Reply
from locas_agent.serving.one_at_a_time import OneAtATime
from locas_storage import MemoryStore, Revision, Turn, TurnDraft, UserKey, answer_key


class ReplyStream:
    """An answer while it is being written: iterate for pieces of text; afterwards `reply` holds the result.

    The answer is journalled when the iteration ends. Left half-way, the user's turn stays and no answer is stored: the
    same call under the same key answers it. Other replies to the same user wait for it, but not for a reader that
    pauses for longer than a second.
    """

    def __init__(self, pieces: Iterator[str], finish: list[Reply], crews: Crews) -> None:
        """Take the pieces, the list into which the finished reply will be put, and threads for `async for`."""
        self._pieces = pieces
        self._finish = finish
        self._crews = crews

    def __iter__(self) -> Iterator[str]:
        """Return the pieces of text as they come."""
        return self._pieces

    async def __aiter__(self) -> AsyncIterator[str]:
        """Yield the pieces of text as they come, each written in a worker thread."""
        crew: Crew = "answers"  # the first one may wait for another answer; those after it must not wait for such calls
        while (piece := await self._crews.run(crew, next, self._pieces, None)) is not None:
            crew = "pieces"
            yield piece

    @property
    def reply(self) -> Reply | None:
        """The finished reply; None until the iteration has ended."""
        return self._finish[0] if self._finish else None


Append = Callable[[UserKey, Sequence[TurnDraft]], list[Turn]]

FIRST_TURNS = 32
"""Newest turns that are read at first; twice as many each time until they hold the window and all that is not
learnt."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How an answer is drawn."""

    max_new_tokens: int | None = None
    """Longest answer, in tokens; None leaves it to the configuration."""
    temperature: float = 0.0
    """0 is greedy."""
    seed: int = 0


@dataclass(frozen=True, slots=True)
class ReplyRequest:
    """What one user says, the key that makes a retried call one pair of turns, and the session both belong to."""

    user: UserKey
    text: str
    idempotency_key: str | None = None
    session: str | None = None

    @property
    def draft(self) -> TurnDraft:
        """The user's turn.

        Raises:
            InvalidTurn: text, key or session are none that can be journalled.
        """
        return TurnDraft("user", self.text, idempotency_key=self.idempotency_key, session=self.session)


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
    """Answers users of one backbone. May be called from several threads.

    Each call answers its own question: its prompt holds the journal up to that, whatever was said meanwhile. Calls of
    one user in this process wait for each other, so that question and answer stand together in the journal; those of
    several processes do not, there the prompt shows each answer after its question.

    Args:
        backbone: the frozen language model.
        store: where journals are.
        engine: runs the backbone.
        memories: of the users.
        settings: window and longest answer.
        append: journals turns.
    """

    def __init__(
        self,
        *,
        backbone: Backbone,
        store: MemoryStore,
        engine: Engine,
        memories: LoadedMemories,
        settings: WindowSettings,
        append: Append,
    ) -> None:
        self._backbone = backbone
        self._store = store
        self._engine = engine
        self._memories = memories
        self._settings = settings
        self._append = append
        self._one_at_a_time = OneAtATime()

    def answer(self, asked: Sequence[ReplyRequest], sampling: Sampling) -> list[Reply]:
        """Answer several users in one batch, each row with its own memory.

        Raises:
            ConfigurationError: no answer is that long, or no such temperature or seed; nothing was written.
            InvalidTurn: what somebody says cannot be journalled, nor the key or session; nothing was written.
            TurnTooLong: what somebody says leaves no room for the answer; nothing was written.
            TurnNotFound: question or answer of the key was forgotten.
        """
        length = self._longest(asked, sampling)
        with self._one_at_a_time.all_of(one.user for one in asked):
            said = [self._say(one) for one in asked]
            ready = {
                at: reply for at, one in enumerate(asked) if (reply := self._answered_before(one, said[at])) is not None
            }
            waiting = [at for at in range(len(asked)) if at not in ready]
            made = self._generate([asked[at] for at in waiting], [said[at] for at in waiting], length, sampling)
        ready.update(zip(waiting, made, strict=True))
        return [ready[at] for at in range(len(asked))]

    def _generate(
        self, asked: Sequence[ReplyRequest], said: Sequence[Turn], length: int, sampling: Sampling
    ) -> list[Reply]:
        """Answer turns in one batch."""
        if not asked:
            return []
        prompts = [self._prompt(one, turn, length) for one, turn in zip(asked, said, strict=True)]
        generations = self._engine.generate(
            [prompt.ids for prompt in prompts],
            memory=self._memories.batch([prompt.memory for prompt in prompts]),
            max_new_tokens=length,
            temperature=sampling.temperature,
            seed=sampling.seed,
            kept=[prompt.kept for prompt in prompts],
        )
        return [
            self._answered(one, prompt, generation.ids)
            for one, prompt, generation in zip(asked, prompts, generations, strict=True)
        ]

    def stream(self, asked: ReplyRequest, sampling: Sampling, finish: Callable[[Reply], None]) -> Iterator[str]:
        """Answer one user piece by piece.

        The answer is journalled and handed to `finish` when the last piece has been taken.

        Raises:
            ConfigurationError, InvalidTurn, TurnTooLong, TurnNotFound: as `answer`.
        """
        length = self._longest([asked], sampling)
        with self._one_at_a_time.of(asked.user) as hold:
            turn = self._say(asked)
            reply = self._answered_before(asked, turn)
            if reply is not None:
                with hold.pausing():
                    yield reply.text
            else:
                prompt = self._prompt(asked, turn, length)
                detokenizer = Detokenizer(self._backbone.decode)
                for text in detokenizer.texts(self._tokens(prompt, length, sampling)):
                    with hold.pausing():
                        yield text
                reply = self._answered(asked, prompt, detokenizer.ids)
        finish(reply)

    def layout(self, key: UserKey, *, max_new_tokens: int | None = None, upto: int | None = None) -> window.Layout:
        """Sort the user's newest turns into window, overflow that fits, and the rest.

        Reads no more of the journal than that takes.

        Args:
            key: whose turns.
            max_new_tokens: longest answer, in tokens, for which the prompt leaves room; unless given, the
                configuration's.
            upto: the last turn; what was said after it is left out.
        """
        state = self._store.state(key)
        room = self._backbone.context_tokens - self._settings.answer_tokens(max_new_tokens)
        learnt = state.consolidated_seq if state else 0
        newest = self._newest(key, learnt, upto)
        laid = window.lay_out(
            newest, consolidated_seq=learnt, window_tokens=self._settings.window_tokens, room_tokens=room
        )
        # Session headers and the opening of the answer are not in the turns' counts: measure the whole prompt.
        while (
            len(laid.prompt_turns) > 1
            and (excess := len(self._backbone.encode_chat(conversation(laid.prompt_turns))) - room) > 0
        ):
            laid = laid.shortened(excess)
        return laid

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

    def _longest(self, asked: Sequence[ReplyRequest], sampling: Sampling) -> int:
        """Return the longest answer, in tokens, after refusing what could not be answered.

        Nobody's turn is journalled yet.
        """
        length = self._settings.answer_tokens(sampling.max_new_tokens)
        check_decoding(length, sampling.temperature, sampling.seed)
        most = room_beside(self._backbone, self._settings.max_new_tokens)
        if length > most:
            raise ConfigurationError(
                f"max_new_tokens is {length}; an answer becomes a turn, and a turn of {self._backbone.name!r} has up "
                f"to {most} tokens: ask for less"
            )
        for one in asked:
            counted(self._backbone, one.draft, answer_tokens=length)
        return length

    def _say(self, asked: ReplyRequest) -> Turn:
        turn = self._append(asked.user, [asked.draft])[0]
        if turn.is_forgotten:
            raise TurnNotFound(
                f"turn {turn.seq}, said under this key before, was forgotten: it is not answered; say it again under a "
                "new key"
            )
        if turn.role != "user":
            raise InvalidTurn(
                f"idempotency_key: turn {turn.seq}, said under it before, has the role {turn.role!r} and cannot be "
                "answered; choose another key"
            )
        return turn

    def _answered_before(self, asked: ReplyRequest, turn: Turn) -> Reply | None:
        """Return the answer that is journalled already, for a call that is tried again; nothing is generated."""
        found = (
            self._store.known(asked.user, [answer_key(turn.idempotency_key)])
            if asked.idempotency_key is not None
            else []
        )
        if not found:
            return None
        (answer,) = found
        if answer.is_forgotten:
            raise TurnNotFound(
                f"turn {answer.seq}, the answer given under this key before, was forgotten; ask again under a new key"
            )
        layout = self.layout(asked.user)
        return Reply(
            text=answer.content,
            turn=answer,
            revision=None,
            used_memory=False,
            why_no_memory="it was answered before: this is the journalled answer",
            pending_turns=layout.pending_turns,
            unseen_turns=layout.unseen_turns,
            prompt_tokens=PromptTokens(0, 0),
        )

    def _prompt(self, asked: ReplyRequest, turn: Turn, length: int) -> _Prompt:
        revision, memory = self._memories.current(asked.user)
        layout = self.layout(asked.user, max_new_tokens=length, upto=turn.seq)
        if not layout.prompt_turns or layout.prompt_turns[-1].seq != turn.seq:
            raise TurnNotFound(f"turn {turn.seq} was forgotten before it was answered; say it again")
        ids = self._backbone.encode_chat(conversation(layout.prompt_turns))
        return _Prompt(turn, layout, revision, memory, ids, self._memories.past(asked.user, revision))

    def _tokens(self, prompt: _Prompt, length: int, sampling: Sampling) -> Iterator[int]:
        memory = self._memories.batch([prompt.memory])
        return self._engine.stream(
            prompt.ids,
            memory=memory,
            max_new_tokens=length,
            temperature=sampling.temperature,
            seed=sampling.seed,
            kept=prompt.kept,
        )

    def _answered(self, asked: ReplyRequest, prompt: _Prompt, ids: Sequence[int]) -> Reply:
        """Journal an answer and describe it."""
        self._memories.keep_past(asked.user, prompt.revision, prompt.kept)
        draft = TurnDraft(
            "assistant", self._text(ids), session=prompt.turn.session, answers=prompt.turn.idempotency_key
        )
        turn = self._append(asked.user, [draft])[0]
        layout, revision = prompt.layout, prompt.revision
        return Reply(
            text=turn.content,
            turn=turn,
            revision=revision.number if revision else None,
            used_memory=revision is not None and revision.has_payload,
            why_no_memory=_why_none(revision),
            pending_turns=layout.pending_turns,
            unseen_turns=layout.unseen_turns,
            prompt_tokens=PromptTokens(
                sum(t.token_count for t in layout.window), sum(t.token_count for t in layout.overflow)
            ),
        )

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

"""Answers: journal the turn, build the prompt, generate with the memory attached, journal the answer."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace

from locas_agent.backbone import Backbone
from locas_agent.backbone.detokenizer import Detokenizer
from locas_agent.config import WindowSettings
from locas_agent.conversation.token_count import max_turn_tokens, tokens_of, with_token_count
from locas_agent.errors import ConfigurationError, InvalidTurn, TurnNotFound
from locas_agent.inference import Engine
from locas_agent.inference.generation import check_decoding
from locas_agent.inference.prefix_cache import PrefixSlot
from locas_agent.memory import LocasMemory
from locas_agent.memory_cache import MemoryCache
from locas_agent.results import PromptTokens, Reply
from locas_agent.serving.one_at_a_time import OneAtATime
from locas_agent.serving.prompt import Prompt, PromptBuilder
from locas_storage import MemoryStore, Revision, Turn, TurnDraft, UserKey, answer_key

Append = Callable[[UserKey, Sequence[TurnDraft]], list[Turn]]


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
    """What one user says, the key that makes a retried call one pair of turns, and what holds for both of them."""

    user: UserKey
    text: str
    idempotency_key: str | None = None
    session: str | None = None
    learn: bool = True

    @property
    def draft(self) -> TurnDraft:
        """The user's turn.

        Raises:
            InvalidTurn: text, key or session are none that can be journalled.
        """
        return TurnDraft(
            "user", self.text, idempotency_key=self.idempotency_key, session=self.session, learn=self.learn
        )


@dataclass(frozen=True, slots=True)
class _Question:
    """What one answer is made from."""

    turn: Turn
    prompt: Prompt
    revision: Revision | None
    memory: LocasMemory | None
    kept: PrefixSlot


class Replies:
    """Answers users of one backbone. May be called from several threads.

    Each call answers its own question: its prompt holds the journal up to that, whatever was said meanwhile. Calls of
    one user in this process wait for each other, so that question and answer stand together in the journal; those of
    several processes do not, there the prompt shows each answer after its question.

    Args:
        backbone: the frozen language model.
        store: where journals are.
        prompts: builds prompts from journals.
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
        prompts: PromptBuilder,
        engine: Engine,
        memories: MemoryCache,
        settings: WindowSettings,
        append: Append,
    ) -> None:
        self._backbone = backbone
        self._store = store
        self._prompts = prompts
        self._engine = engine
        self._memories = memories
        self._settings = settings
        self._append = append
        self.one_at_a_time = OneAtATime()

    def answer(self, asked: Sequence[ReplyRequest], sampling: Sampling) -> list[Reply]:
        """Answer several users in one batch, each row with its own memory.

        Raises:
            ConfigurationError: no answer is that long, or no such temperature or seed; nothing was written.
            InvalidTurn: what somebody says cannot be journalled, nor the key or session; nothing was written.
            TurnTooLong: what somebody says leaves no room for the answer; nothing was written.
            TurnNotFound: question or answer of the key was forgotten.
        """
        length, drafts = self._checked(asked, sampling)
        with self.one_at_a_time.all_of(one.user for one in asked):
            said = [self._say(one.user, draft) for one, draft in zip(asked, drafts, strict=True)]
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
        questions = [self._question(one, turn, length) for one, turn in zip(asked, said, strict=True)]
        generations = self._engine.generate(
            [question.prompt.ids for question in questions],
            memory=self._memories.batch([question.memory for question in questions]),
            max_new_tokens=length,
            temperature=sampling.temperature,
            seed=sampling.seed,
            kept=[question.kept for question in questions],
        )
        return [
            self._answered(one, question, generation.ids)
            for one, question, generation in zip(asked, questions, generations, strict=True)
        ]

    def stream(self, asked: ReplyRequest, sampling: Sampling) -> Generator[str, None, Reply]:
        """Answer one user piece by piece.

        The answer is journalled and returned when the last piece has been taken.

        Raises:
            ConfigurationError, InvalidTurn, TurnTooLong, TurnNotFound: as `answer`.
        """
        length, (draft,) = self._checked([asked], sampling)
        with self.one_at_a_time.of(asked.user) as hold:
            turn = self._say(asked.user, draft)
            reply = self._answered_before(asked, turn)
            if reply is not None:
                with hold.pausing():
                    yield reply.text
            else:
                question = self._question(asked, turn, length)
                detokenizer = Detokenizer(self._backbone.decode)
                for text in detokenizer.texts(self._tokens(question, length, sampling)):
                    with hold.pausing():
                        yield text
                reply = self._answered(asked, question, detokenizer.ids)
        return reply

    def _checked(self, asked: Sequence[ReplyRequest], sampling: Sampling) -> tuple[int, list[TurnDraft]]:
        """Return the longest answer, in tokens, and the counted turns, after refusing what could not be answered.

        Nobody's turn is journalled yet.
        """
        length = self._settings.answer_tokens(sampling.max_new_tokens)
        check_decoding(length, sampling.temperature, sampling.seed)
        most = max_turn_tokens(self._backbone, self._settings.max_new_tokens)
        if length > most:
            raise ConfigurationError(
                f"max_new_tokens is {length}; an answer becomes a turn, and a turn of {self._backbone.name!r} has up "
                f"to {most} tokens: ask for less"
            )
        return length, [with_token_count(self._backbone, one.draft, answer_tokens=length) for one in asked]

    def _say(self, user: UserKey, draft: TurnDraft) -> Turn:
        turn = self._append(user, [draft])[0]
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
        layout = self._prompts.build(asked.user).layout
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

    def _question(self, asked: ReplyRequest, turn: Turn, length: int) -> _Question:
        revision, memory = self._memories.current(asked.user)
        prompt = self._prompts.build(asked.user, max_new_tokens=length, upto=turn.seq)
        turns = prompt.layout.prompt_turns
        if not turns or turns[-1].seq != turn.seq:
            raise TurnNotFound(f"turn {turn.seq} was forgotten before it was answered; say it again")
        return _Question(turn, prompt, revision, memory, self._memories.past(asked.user, revision))

    def _tokens(self, question: _Question, length: int, sampling: Sampling) -> Iterator[int]:
        memory = self._memories.batch([question.memory])
        return self._engine.stream(
            question.prompt.ids,
            memory=memory,
            max_new_tokens=length,
            temperature=sampling.temperature,
            seed=sampling.seed,
            kept=question.kept,
        )

    def _answered(self, asked: ReplyRequest, question: _Question, ids: Sequence[int]) -> Reply:
        """Journal an answer and describe it."""
        self._memories.keep_past(asked.user, question.revision, question.kept)
        said = question.turn
        draft = replace(self._draft(ids), session=said.session, answers=said.idempotency_key, learn=said.learn)
        turn = self._append(asked.user, [draft])[0]
        layout, revision = question.prompt.layout, question.revision
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

    def _draft(self, ids: Sequence[int]) -> TurnDraft:
        """Spell an answer as a counted turn, cut to what a turn can hold.

        A weak backbone may write noise whose spelling has more tokens than it was drawn with.
        """
        most = max_turn_tokens(self._backbone, self._settings.max_new_tokens)
        while True:
            draft = TurnDraft("assistant", self._backbone.decode(ids).strip())
            tokens = tokens_of(self._backbone, draft)
            if tokens <= most or not ids:
                return replace(draft, token_count=tokens)
            ids = ids[: min(len(ids) - 1, len(ids) * most // tokens)]


def _why_none(revision: Revision | None) -> str | None:
    if revision is None:
        return "nothing has been consolidated yet"
    return None if revision.has_payload else f"revision {revision.number} went back to the time before the first memory"

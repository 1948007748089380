"""A memory looked at by itself: what it answers without a turn in the prompt, and what it does to a text."""

from __future__ import annotations

from collections.abc import Sequence

from locas_agent.backbone import Backbone
from locas_agent.config import WindowSettings
from locas_agent.conversation.messages import Message, question
from locas_agent.errors import ConfigurationError
from locas_agent.inference import Engine
from locas_agent.memory.stats import layer_stats
from locas_agent.memory_cache import MemoryCache
from locas_agent.results import ExplainedToken, Explanation, Recall
from locas_agent.study.matching import same_answer
from locas_storage import MemoryStore, Turn, TurnDraft, UserKey


class MemoryInspection:
    """Asks the memories of users and shows what they do; stores nothing. May be called from several threads.

    Args:
        backbone: the frozen language model.
        store: where journals and study sets are.
        engine: runs the backbone.
        memories: of the users.
        settings: the longest answer.
    """

    def __init__(
        self,
        *,
        backbone: Backbone,
        store: MemoryStore,
        engine: Engine,
        memories: MemoryCache,
        settings: WindowSettings,
    ) -> None:
        self._backbone = backbone
        self._store = store
        self._engine = engine
        self._memories = memories
        self._settings = settings

    def recall(self, key: UserKey, text: str, *, max_new_tokens: int | None = None) -> Recall:
        """Answer from memory alone; see `UserMemory.recall`."""
        prompt = self._backbone.encode_chat(asked_alone(text))
        revision, current = self._memories.current(key)
        generation = self._engine.generate(
            [prompt],
            memory=self._memories.batch([current]),
            max_new_tokens=self._settings.answer_tokens(max_new_tokens),
        )[0]
        answer = self._backbone.decode(generation.ids).strip()
        without = float(self._engine.score([prompt], [generation.ids])[0].sum()) if generation.ids else 0.0
        return Recall(
            answer,
            revision.number if revision else None,
            sum(generation.logprobs),
            without,
            self._citations(key, text, answer),
        )

    def explain(self, key: UserKey, text: str, *, question_text: str | None = None) -> Explanation:
        """Return the log-probability of each token with the memory and without it; see `UserMemory.explain`."""
        revision, current = self._memories.current(key)
        ids = self._backbone.encode(as_said(text))
        if question_text is not None:
            prompt = self._backbone.encode_chat(asked_alone(question_text))
        else:
            start = self._backbone.tokenizer.bos_token_id
            prompt, ids = ([int(start)], ids) if start is not None else (ids[:1], ids[1:])
        if not ids:
            raise ConfigurationError(
                "a text to explain has at least one token after its beginning; give more of it, or the question it "
                "answers"
            )
        without = self._engine.score([prompt], [ids])[0]
        batch = self._memories.batch([current])
        with_memory = without if batch is None else self._engine.score([prompt], [ids], memory=batch)[0]
        rows = zip(ids, with_memory.tolist(), without.tolist(), strict=True)
        tokens = tuple(ExplainedToken(self._backbone.decode([token]), logprob, bare) for token, logprob, bare in rows)
        return Explanation(
            tokens, revision.number if revision else None, () if current is None else layer_stats(current)
        )

    def _citations(self, key: UserKey, asked: str, answer: str) -> tuple[Turn, ...]:
        """Return the turns whose study items are answered this way; of several, those asked most alike."""
        items = [
            item
            for item in self._store.study_items(key)
            if item.kind != "negative" and same_answer(item.answer, answer)
        ]
        exact = [item for item in items if same_answer(item.question, asked)] or items
        found: Sequence[int] = sorted({item.turn_seq for item in exact})
        return tuple(turn for seq in found for turn in self._store.turns(key, after=seq - 1, upto=seq))


def as_said(text: str) -> str:
    """Return a text that is asked about and not journalled, if a turn could hold it.

    What is refused does not depend on the verb.

    Raises:
        InvalidTurn: no turn could hold it.
    """
    return TurnDraft("user", text).content


def asked_alone(text: str) -> list[Message]:
    """Return the messages of a question that stands alone.

    Raises:
        InvalidTurn: no turn could hold it.
    """
    return question(as_said(text))

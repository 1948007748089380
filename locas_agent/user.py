"""`UserMemory`, the per-user handle: the verbs of one user. It holds nothing but the key; a `Runtime` does the work."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from copy import copy
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn, Self

from locas_agent.aio import Crew, Crews, to_async
from locas_agent.consolidation import policy
from locas_agent.conversation.messages import conversation
from locas_agent.errors import ConfigurationError, RevisionNotFound
from locas_agent.exports.manifest import Form
from locas_agent.import_export.archive import write_archive
from locas_agent.import_export.chats import ChatImport
from locas_agent.results import ChatAnswer, Consolidation, Explanation, Recall, Reply
from locas_agent.runtime import Host, Runtime
from locas_agent.serving.generation import ChatRequest
from locas_agent.serving.inspection import asked_alone
from locas_agent.serving.replies import ReplyRequest, Sampling
from locas_agent.serving.streams import GenerationStream, ReplyStream
from locas_agent.types import Progress
from locas_storage import CorrectedTurn, FoundTurn, Receipt, Revision, Turn, TurnDraft, UserKey


class UserMemory:
    """One user of one tenant. Cheap: it holds a key, reads nothing and writes nothing until a verb is called."""

    def __init__(self, host: Host, key: UserKey) -> None:
        self._host = host
        self.key = key

    @property
    def _runtime(self) -> Runtime:
        return self._host.runtime_of(self.key)

    def add(
        self,
        role: str,
        content: str,
        *,
        at: datetime | None = None,
        session: str | None = None,
        name: str | None = None,
        idempotency_key: str | None = None,
        trust: str = "user",
        expires_at: datetime | None = None,
        learn: bool = True,
    ) -> Turn:
        """Append one turn to the journal: one SQL transaction, no model.

        Args:
            role: `user`, `assistant`, `system` or `tool`.
            content: the text.
            at: when it was said, aware; now, in UTC, unless given. Its zone decides which day it was: prompts show the
                speaker's date.
            session: name of the session it belongs to; without names, a session is a day of the speaker's.
            name: who speaks, in a conversation of several.
            idempotency_key: the same key twice is one turn; it does not begin with U+0001, which marks keys that are
                made here.
            trust: label of where the text comes from, at most 16 characters. The settings `sources` say which labels
                are learnt from: by default the user's turns labelled "user", and the assistant's labelled "promised" or
                "found"; a turn with any other label never is.
            expires_at: when it is to be forgotten by itself, aware; never unless given.
            learn: False keeps it out of the memory: it is journalled, shown in the window and found by `search`, and
                no study set is made of it or read beside it.

        Raises:
            InvalidTurn: unknown role, or text that cannot be stored.
            TurnTooLong: it does not fit into the backbone's context beside an answer.
        """
        draft = TurnDraft(
            role,
            content,
            name=name,
            session=session,
            at=at,
            idempotency_key=idempotency_key,
            trust=trust,
            expires_at=expires_at,
            learn=learn,
        )
        return self._runtime.append(self.key, [draft])[0]

    def reply(
        self,
        text: str,
        *,
        max_new_tokens: int | None = None,
        temperature: float = 0.0,
        seed: int = 0,
        idempotency_key: str | None = None,
        session: str | None = None,
        learn: bool = True,
    ) -> Reply:
        """Journal the user's turn, answer with window and memory, journal the answer.

        Consolidate if the policy says so.

        Args:
            text: what the user says.
            max_new_tokens: longest answer, in tokens.
            temperature: 0 is greedy.
            seed: of sampling.
            idempotency_key: makes a retried call one pair of turns: a question that was not answered is answered now,
                of another the same answer returned.
            session: name of the session both turns belong to, as in `add`.
            learn: False keeps both turns out of the memory, as in `add`. A session that is not to be learnt says so
                with each of its turns.

        Raises:
            ConfigurationError: no answer is that long, or no such temperature or seed; nothing was written.
            InvalidTurn: text, idempotency key or session cannot be journalled; nothing was written.
            TurnTooLong: the text leaves no room for the answer; nothing was written.
            TurnNotFound: what was said under this key before was forgotten.
        """
        return self._host.answer(
            [ReplyRequest(self.key, text, idempotency_key, session, learn)], Sampling(max_new_tokens, temperature, seed)
        )[0]

    def stream(
        self,
        text: str,
        *,
        max_new_tokens: int | None = None,
        temperature: float = 0.0,
        seed: int = 0,
        idempotency_key: str | None = None,
        session: str | None = None,
        learn: bool = True,
    ) -> ReplyStream:
        """Do what `reply` does, piece by piece, for `for` or `async for`; see `ReplyStream`."""
        asked = ReplyRequest(self.key, text, idempotency_key, session, learn)
        sampling = Sampling(max_new_tokens, temperature, seed)
        return ReplyStream(self._stream(asked, sampling), self.crews)

    def _stream(self, asked: ReplyRequest, sampling: Sampling) -> Generator[str, None, Reply]:
        return (yield from self._runtime.stream_answer(asked, sampling))  # found when the first piece is taken

    def generate(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        stop: str | Sequence[str] = (),
        tools: Sequence[Mapping[str, Any]] = (),
        tool_choice: str | Mapping[str, Any] | bool | None = None,
        max_new_tokens: int | None = None,
        temperature: float = 0.0,
        seed: int = 0,
        timeout_seconds: float | None = None,
    ) -> ChatAnswer:
        """Answer given messages with this user's memory: nothing is journalled, nothing is learnt.

        For programs that hold the conversation themselves, such as a chat server. The messages are the whole prompt:
        the journal is not read for it.

        Args:
            messages: chat messages of the Hugging Face form, with `role` and `content`, not empty.
            stop: texts before which the answer ends.
            tools: JSON schemas of functions that the answer may call.
            tool_choice: None or "auto" leaves it to the backbone; "any" or "required", or the name of a tool, makes the
                answer begin with a call.
            max_new_tokens: longest answer, in tokens; the configuration's by default.
            temperature: 0 is greedy.
            seed: of sampling.
            timeout_seconds: longest time that the answer may take.

        Raises:
            ConfigurationError: there is no message, an option is out of bounds, or the chat template cannot call tools.
            InvalidTurn: a message holds a text that cannot be encoded.
            BackboneError: the chat template refuses the messages.
            TurnTooLong: the messages leave no room for an answer.
            GenerationTimeout: the answer took longer than `timeout_seconds`.
        """
        stream = self.generate_stream(
            messages,
            stop=stop,
            tools=tools,
            tool_choice=tool_choice,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            seed=seed,
            timeout_seconds=timeout_seconds,
        )
        for _ in stream:
            pass
        assert stream.answer is not None
        return stream.answer

    def generate_stream(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        stop: str | Sequence[str] = (),
        tools: Sequence[Mapping[str, Any]] = (),
        tool_choice: str | Mapping[str, Any] | bool | None = None,
        max_new_tokens: int | None = None,
        temperature: float = 0.0,
        seed: int = 0,
        timeout_seconds: float | None = None,
    ) -> GenerationStream:
        """Do what `generate` does, piece by piece, for `for` or `async for`; see `GenerationStream`."""
        request = ChatRequest(
            self.key, messages, stop, tools, tool_choice, max_new_tokens, temperature, seed, timeout_seconds
        )
        return GenerationStream(self._runtime.chat.stream(request), self.crews)

    def pending(self) -> list[Turn]:
        """Return the turns that left the window and wait to be learnt, oldest first."""
        return self._runtime.pending(self.key)

    def consolidate(
        self, *, flush: bool = False, wait: bool = True, progress: Progress | None = None, seed: int | None = None
    ) -> Consolidation:
        """Learn the turns that left the window; with `flush` those still in it too.

        Args:
            flush: learn everything that is not learnt yet.
            wait: False leaves it to a worker; see `AgentMemory(consolidation="background")`.
            progress: told of the stages.
            seed: overrides `training.seed`.

        Raises:
            ConfigurationError: `wait` is False and consolidation is not in the background.
            RevisionConflict: the memory moved meanwhile, or a worker took it over; nothing was written.
        """
        if not wait:
            return self._runtime.queue(self.key, flush=flush)
        return self._runtime.consolidate_keys([self.key], flush=flush, progress=progress, seed=seed)[0]

    async def aconsolidate(
        self, *, flush: bool = False, wait: bool = True, progress: Progress | None = None, seed: int | None = None
    ) -> Consolidation:
        """Do what `consolidate` does, off the event loop; what is left to a worker waits behind no training."""
        crew: Crew = "training" if wait else "journal"
        return await self.crews.run(crew, self.consolidate, flush=flush, wait=wait, progress=progress, seed=seed)

    def recall(self, question_text: str, *, max_new_tokens: int | None = None) -> Recall:
        """Answer from memory alone: no turn in the prompt, nothing stored.

        Args:
            question_text: what is asked.
            max_new_tokens: longest answer, in tokens.

        Raises:
            InvalidTurn: it is no text that a turn could hold.
            TurnTooLong: it leaves no room for an answer.
        """
        return self._runtime.inspection.recall(self.key, question_text, max_new_tokens=max_new_tokens)

    def explain(self, text: str, *, question: str | None = None) -> Explanation:
        """Tell what the memory does to a text: the log-probability of each token with and without it.

        Nothing is stored.

        Args:
            text: what is looked at, not empty.
            question: look at the text as the answer to this; a memory learns answers, so that is where it shows.
                Without it the text stands alone.

        Raises:
            ConfigurationError: no token of the text can be predicted from something before it.
            InvalidTurn: one of them is no text that a turn could hold.
            TurnTooLong: it does not fit into the backbone's context.
        """
        return self._runtime.inspection.explain(self.key, text, question_text=question)

    def export(
        self, path: str | Path, *, form: Form = "dense", multiple: int = 1, base: str | Path | None = None
    ) -> Path:
        """Write the current memory to a place that does not exist yet.

        What is written is personal data, says so, and is out of reach of `forget`.

        Args:
            path: a folder, for "memory" a file.
            form: "dense" is a standard checkpoint with the memory merged, "lora" an adapter for PEFT and LoRA servers
                with the padded backbone it stands on, "memory" a portable file that `import_memory` of another store
                takes.
            multiple: of "dense" and "lora": the FFN's width is rounded up to a multiple of this.
            base: of "lora": where the padded backbone lies, or is to be put, so that many users share one; else it goes
                into the folder.

        Returns:
            The absolute path.

        Raises:
            RevisionNotFound: there is no memory yet.
            ExchangeError: the backbone's architecture or the place refuses it.
            ConfigurationError: unknown form, or an option that it has no use for.
        """
        return self._runtime.memory_files.export(self.key, path, form=form, multiple=multiple, base=base)

    def import_memory(self, path: str | Path) -> Revision:
        """Begin with a memory that `export` wrote, in any form.

        The journal must be empty, and gets one turn that stands for it.

        Args:
            path: what `export` wrote, from the same backbone.

        Returns:
            The revision that holds it.

        Raises:
            ExchangeError: the user has turns already, or nothing is there.
            CorruptPayload: it is no export, or was altered.
            IncompatibleMemory: it belongs to another backbone.
        """
        return self._runtime.memory_files.import_memory(self.key, path)

    def import_chats(self, path: str | Path, *, learn: bool = True, progress: Progress | None = None) -> ChatImport:
        """Add the chats of a file that ChatGPT or Claude handed out, the oldest first; no model.

        Each message once, however often the file is given; one that was forgotten does not come back. A conversation is
        a session, with its own times. The turns wait to be learnt like any others.

        Args:
            path: the .zip as it was downloaded, or the `conversations.json` of it.
            learn: False keeps them out of the memory, as in `add`: they are found by `search`.
            progress: told of the conversations.

        Returns:
            How many messages were added, were there before, and were left out because no turn can hold them.

        Raises:
            ExchangeError: it is no such file, or damaged; nothing was written.
            UserErased: the user was erased; nothing was written.
        """
        return self._runtime.import_chats(self.key, path, learn=learn, progress=progress)

    def archive(self, path: str | Path) -> Path:
        """Write everything that is kept of this user to one zip, to be handed to the person.

        Turns, study items, revisions with their memories, the audit trail, and what waits to be learnt: text as JSON
        lines, memories as safetensors, in the clear. It is out of reach of `forget` and `erase`.

        Args:
            path: a file that does not exist yet.

        Returns:
            The absolute path.

        Raises:
            UnknownUser: nothing is kept of this user.
            ExchangeError: the place refuses it.
            RevisionConflict: turns were forgotten, or learnt, each time it was written.
        """
        return write_archive(self._runtime.store, self.key, path)

    def turns(self, *, after: int = 0, upto: int | None = None, newest: int | None = None) -> list[Turn]:
        """Return turns of the journal, oldest first.

        Args:
            after: only turns with a greater number.
            upto: only turns up to this number.
            newest: only the last so many of these.

        Raises:
            ConfigurationError: one of them is no integer.
        """
        for label, value in (
            ("after", after),
            ("upto", 0 if upto is None else upto),
            ("newest", 0 if newest is None else newest),
        ):
            _integer(label, value)
        return self._runtime.store.turns(self.key, after=after, upto=upto, newest=newest)

    def search(self, text: str, *, limit: int = 10) -> list[FoundTurn]:
        """Return turns of the journal that share a word with a text, best first; no model.

        Args:
            text: any text; case, accents and punctuation do not count.
            limit: how many turns at most.
        """
        return self._runtime.store.search(self.key, text, limit=limit)

    def prompt(self, text: str) -> list[dict[str, str]]:
        """Return the messages `reply` would put before the backbone for this text, with nothing stored.

        Raises:
            InvalidTurn: it is no text that a turn could hold.
        """
        asked = asked_alone(text)
        return [*conversation(self._runtime.prompts.build(self.key).layout.prompt_turns), *asked]

    def revisions(self) -> list[Revision]:
        """Return every revision, oldest first."""
        return self._runtime.store.revisions(self.key)

    def rollback(self, revision: int | Revision) -> Revision:
        """Make an older revision current, as a new head; turns learnt since are overflow again.

        0 is the time before the first.

        Raises:
            RevisionNotFound: there is no such revision, or its payload is no longer kept.
            ConfigurationError: it is neither a revision nor a number.
        """
        return self._runtime.store.rollback(
            self.key, revision.number if isinstance(revision, Revision) else _integer("revision", revision)
        )

    def history(self, turn: int | Turn) -> list[Revision]:
        """Return the revisions that were trained on a turn.

        Raises:
            RevisionNotFound: there is no such turn.
            ConfigurationError: it is neither a turn nor a number.
        """
        seq = _seq(turn)
        if not self._runtime.store.turns(self.key, after=seq - 1, upto=seq):
            raise RevisionNotFound(f"the journal has no turn {seq}; see `turns()`")
        return [revision for revision in self.revisions() if revision.from_seq <= seq <= revision.to_seq]

    def forget(
        self, turns: int | Turn | Iterable[int | Turn], *, wait: bool | None = None, progress: Progress | None = None
    ) -> Receipt:
        """Make turns as if they had never been said.

        At once, in one transaction: no prompt shows them, no answer uses a memory that saw them, their text, the study
        items and the revisions that saw them are gone. Then the memory is rebuilt from the remaining turns. An answer
        that was being written when the call began may still have been made with them.

        Args:
            turns: one or several, as turns or their numbers.
            wait: True rebuilds in this call, False leaves it to a worker; unless given, as consolidation is done.
            progress: told of the stages of the rebuild.

        Returns:
            What was removed, and up to which turn the memory is learnt again.

        Raises:
            TurnNotFound: the journal has no such turn; nothing was removed.
            UnknownUser: the user has no turns.
            ConfigurationError: something is neither a turn nor a number; nothing was removed.
        """
        receipt = self._runtime.forget(self.key, _seqs(turns))
        if self._runtime.rebuilds(receipt, wait):
            self._runtime.rebuild(self.key, progress)
        return receipt

    async def aforget(
        self, turns: int | Turn | Iterable[int | Turn], *, wait: bool | None = None, progress: Progress | None = None
    ) -> Receipt:
        """Do what `forget` does, off the event loop.

        The turns are removed at once, whatever is being trained; the rebuild waits its turn.
        """
        runtime = await self.crews.run("journal", self._host.runtime_of, self.key)
        receipt = await self.crews.run("journal", runtime.forget, self.key, _seqs(turns))
        if runtime.rebuilds(receipt, wait):
            await self.crews.run("training", runtime.rebuild, self.key, progress)
        return receipt

    def correct(
        self, turn: int | Turn, text: str, *, wait: bool | None = None, progress: Progress | None = None
    ) -> CorrectedTurn:
        """Put another text in the place of what was said in a turn.

        The turn is forgotten and the text added, in one transaction.

        What was learnt from the old text is gone as after `forget`. The new turn has the role, name, session, time,
        trust, expiry, key and `learn` of the old one; it is the newest of the journal and waits to be learnt.

        Args:
            turn: the turn, or its number.
            text: what it should have said.
            wait: see `forget`.
            progress: told of the stages of the rebuild.

        Returns:
            The new turn, with the receipt of what was removed.

        Raises:
            TurnNotFound: the journal has no such turn, or it was forgotten; nothing was changed.
            InvalidTurn: the text cannot be stored; nothing was changed.
            TurnTooLong: it does not fit into the backbone's context beside an answer; nothing was changed.
            ConfigurationError: the turn stands for an imported memory.
        """
        made = self._runtime.correct(self.key, _seq(turn), text)
        if self._runtime.rebuilds(made.receipt, wait):
            self._runtime.rebuild(self.key, progress)
        return made

    async def acorrect(
        self, turn: int | Turn, text: str, *, wait: bool | None = None, progress: Progress | None = None
    ) -> CorrectedTurn:
        """Do what `correct` does, off the event loop, as `aforget` forgets."""
        runtime = await self.crews.run("journal", self._host.runtime_of, self.key)
        made = await self.crews.run("journal", runtime.correct, self.key, _seq(turn), text)
        if runtime.rebuilds(made.receipt, wait):
            await self.crews.run("training", runtime.rebuild, self.key, progress)
        return made

    def erase(self) -> Receipt:
        """Remove everything of this user: turns, memories, study items, jobs, keys.

        What comes late is refused with `UserErased`.

        A tombstone stays, and the audit trail, which holds no content. Exported files and backups are not reached.

        Raises:
            UnknownUser: there never was such a user.
        """
        return self._runtime.erase(self.key)

    def reinstate(self) -> None:
        """Take turns of an erased user again, into an empty journal; nothing comes back.

        Raises:
            UnknownUser: there never was such a user.
        """
        self._runtime.store.reinstate(self.key)

    def consolidation_due(self) -> policy.Decision:
        """Ask the policy whether the overflow is to be learnt now.

        `reply` acts on it by itself, after `add` it is the caller's turn.
        """
        return self._runtime.consolidation_due(self.key)

    aadd = to_async(add, "journal")
    areply = to_async(reply, "answers")
    astream = stream  # what it returns is for `async for` as well: each piece off the event loop
    agenerate = to_async(generate, "answers")
    agenerate_stream = generate_stream  # as astream
    apending = to_async(pending, "journal")
    arecall = to_async(recall, "answers")
    aexplain = to_async(explain, "answers")
    aexport = to_async(export, "answers")
    aimport_memory = to_async(import_memory, "answers")
    aimport_chats = to_async(import_chats, "answers")
    aarchive = to_async(archive, "answers")
    aturns = to_async(turns, "journal")
    aprompt = to_async(prompt, "journal")
    asearch = to_async(search, "journal")
    arevisions = to_async(revisions, "journal")
    arollback = to_async(rollback, "journal")
    ahistory = to_async(history, "journal")
    aerase = to_async(erase, "journal")
    areinstate = to_async(reinstate, "journal")
    aconsolidation_due = to_async(consolidation_due, "journal")

    @property
    def crews(self) -> Crews:
        """The threads of the async twins, shared by all users."""
        return self._host.crews

    def __copy__(self) -> Self:
        """Return another handle of the same user, on the same `AgentMemory`."""
        return type(self)(self._host, self.key)

    def __deepcopy__(self, memo: dict[int, object]) -> Self:
        """Return another handle, as `__copy__` does: backbone and store are shared."""
        return copy(self)

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled.

        Raises:
            ConfigurationError: always.
        """
        raise ConfigurationError(
            "a handle belongs to an open AgentMemory and cannot be pickled: keep the user's name, and call for_user() "
            "there"
        )

    def __repr__(self) -> str:
        """Show the key, which hides the names."""
        return f"UserMemory({self.key!r})"


def _seqs(turns: int | Turn | Iterable[int | Turn]) -> list[int]:
    if isinstance(turns, int | Turn) or not isinstance(turns, Iterable):
        return [_seq(turns)]
    return [_seq(one) for one in turns]


def _seq(turn: int | Turn) -> int:
    return turn.seq if isinstance(turn, Turn) else _integer("turn", turn)


def _integer(label: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ConfigurationError(
            f"{label}: got {type(value).__name__}, expected a number, or what the verbs return it in"
        )
    return value

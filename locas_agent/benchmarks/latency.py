"""How long a reply takes as the history grows.

At turn 1,000 beside turn 20, and beside a prompt that holds the whole history.

A reply is the whole verb: the turn is journalled, the window read and encoded, the memory looked up, the answer written
and journalled. The memory has learnt all turns outside the window. Replies are to somebody who comes back: the memory
was fetched ahead, nothing was run yet. `growth-kept` is the next turn of somebody who was there just now, with keys and
values kept by both sides.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace

from locas_agent.agent import AgentMemory
from locas_agent.backbone import Backbone
from locas_agent.benchmarks.bench import SMALL, Bench
from locas_agent.benchmarks.journals import commit, fill, text
from locas_agent.benchmarks.measuring import Goal, Row, interleaved
from locas_agent.config import LocasConfig, PolicySettings, WindowSettings
from locas_agent.conversation.window import first_of_window
from locas_agent.memory import LocasMemory
from locas_storage import MemoryStore, open_store

SOON, LATE, LONG = 20, 1000, 400
"""Turns of the three journals that are compared."""
TEXTS, WORDS, ANSWER_TOKENS = 50, 12, 24
FLAT_ROUNDS, GROWTH_ROUNDS = 15, 3
CONTEXT_TOKENS = 32768

_REPLY = f"a reply of {ANSWER_TOKENS} tokens"
FLAT = Goal(
    "flat",
    f"{_REPLY} at turn {LATE:,}, window of 256 tokens and a memory; peer: ours at turn {SOON}",
    "ms",
    "ours/peer",
    1.1,
    1.0,
)
GROWTH = Goal(
    "growth",
    f"{_REPLY} at turn {LONG}, window of 256 tokens and a memory; peer: all turns in the prompt",
    "ms",
    "peer/ours",
    3.0,
    10.0,
)
KEPT = replace(
    GROWTH, name="growth-kept", workload=f"{GROWTH.workload}; keys and values of the turn before kept by both"
)


def flat(bench: Bench) -> list[Row]:
    """Measure our reply late and soon.

    Raises:
        RuntimeError: the same window was answered differently.
    """
    backbone = _backbone(bench)
    return [late_beside_soon(bench, FLAT, backbone, bench.memories(backbone, 1)[0], rounds=bench.rounds(FLAT_ROUNDS))]


def late_beside_soon(bench: Bench, goal: Goal, backbone: Backbone, memory: LocasMemory, *, rounds: int) -> Row:
    """Answer the same window behind a long and behind a short journal, in turn.

    Args:
        bench: the run.
        goal: the row to fill.
        backbone: answers.
        memory: has learnt all turns outside the window.
        rounds: how often each journal is answered.

    Raises:
        RuntimeError: the same window was answered differently, or not at all.
    """
    with closing(open_store(f"sqlite:///{bench.folder / goal.name}.db")) as store:
        late = Talk(store, backbone, memory, turns=60 if bench.is_quick else LATE)
        soon = Talk(store, backbone, memory, turns=SOON)
        before = {"late": late.prepare, "soon": soon.prepare}
        taken = interleaved({"late": late.reply, "soon": soon.reply}, rounds=rounds, device=bench.device, before=before)
    if late.answers != soon.answers or not all(late.answers):
        raise RuntimeError("journals that end alike were answered differently, or not at all: nothing was measured")
    return goal.row(taken["late"], taken["soon"])


def growth(bench: Bench) -> list[Row]:
    """Measure our reply beside one with the whole history in the prompt; they are not the same function."""
    backbone, rounds = _backbone(bench), bench.rounds(GROWTH_ROUNDS)
    turns = 60 if bench.is_quick else LONG
    rows = []
    with closing(open_store(f"sqlite:///{bench.folder / 'growth.db'}")) as store:
        for goal, is_back in ((GROWTH, True), (KEPT, False)):
            ours = Talk(store, backbone, bench.memories(backbone, 1)[0], turns=turns, is_back=is_back)
            theirs = Talk(store, backbone, None, turns=turns, is_back=is_back)
            before = {"ours": ours.prepare, "theirs": theirs.prepare}
            taken = interleaved(
                {"ours": ours.reply, "theirs": theirs.reply},
                rounds=rounds,
                device=bench.device,
                warm_up=0,
                before=before,
            )
            rows.append(goal.row(taken["ours"], taken["theirs"]))
    return rows


class Talk:
    """The same point of a conversation again and again, each time with a new user."""

    def __init__(
        self,
        store: MemoryStore,
        backbone: Backbone,
        memory: LocasMemory | None,
        *,
        turns: int,
        is_back: bool = True,
    ) -> None:
        """Take the parts.

        Args:
            store: where journals are.
            backbone: answers.
            memory: has learnt all turns outside the window; None leaves all turns in the prompt.
            turns: said before the answer, its question included.
            is_back: nothing was run yet of the conversation; else one reply was given just now.
        """
        has_all = memory is None
        window = (
            WindowSettings(window_tokens=backbone.context_tokens, max_new_tokens=ANSWER_TOKENS)
            if has_all
            else WindowSettings(max_new_tokens=ANSWER_TOKENS)
        )
        self._agent = AgentMemory(
            backbone=backbone, store=store, config=LocasConfig(window=window, policy=PolicySettings(automatic=False))
        )
        self._memory = memory
        self._turns = turns
        self._is_back = is_back
        self._name = f"{turns}{' all' * has_all}{' back' * is_back}"
        self._users = 0
        self.answers: list[str] = []

    def prepare(self) -> None:
        """Let a new user have said all but the turn that is answered next.

        The memory is fetched, or one reply was given already.
        """
        self._users += 1
        self._user = self._agent.for_user(f"{self._name} {self._users}")
        store, key, said = self._agent.store, self._user.key, self._turns - (1 if self._is_back else 3)
        fill(store, key, self._agent.backbone, turns=said, words=WORDS, repeats=TEXTS)
        if self._memory is not None:
            learnt = first_of_window(store.turns(key), self._agent.config.window.window_tokens)
            commit(store, key, self._memory, to_seq=learnt)
        self._agent.prefetch([self._user])
        if not self._is_back:
            self._user.reply(text(0, words=WORDS))

    def reply(self) -> None:
        """Answer the turn that is next."""
        self.answers.append(self._user.reply(text(1, words=WORDS)).text)

    def begin(self) -> None:
        """Answer the turn that is next as far as the first piece of text."""
        stream = iter(self._user.stream(text(1, words=WORDS)))
        self.answers.append(next(stream, ""))


def _backbone(bench: Bench) -> Backbone:
    backbone = bench.backbone(context_tokens=CONTEXT_TOKENS, words=SMALL.words)
    assert len(backbone.tokenizer) == SMALL.words
    return backbone

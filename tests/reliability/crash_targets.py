"""What a process does until it is killed or stopped, and the steps at which that can happen.

Runs in a child of `process_pool.py`, which has imported all this and warmed the learner up.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, event

from locas_agent import AgentMemory, LocasConfig
from locas_agent.backbone import Backbone
from locas_agent.consolidation.learner import Learner, Task
from locas_agent.inference import Engine
from locas_storage import Lease, SqlMemoryStore, Turn, TurnDraft, UserKey, UserState
from locas_storage.conformance.samples import draft, item
from locas_storage.errors import StorageError
from locas_storage.rules import commit as rules
from locas_storage.sql.database.engine import Database
from locas_storage.sql.statements import jobs, users
from tests.conftest import byte_tokenizer, tiny_model
from tests.unit.agent.fake_learner import quick_agent

BATCH, BATCHES = 2, 6
"""Turns of one append, and appends of one victim."""
PAYLOAD_BYTES = 50_000
INLINE_BYTES = 1_000
"""Of a store with files: less than any payload here."""
HOLD_SECONDS = 0.2
TRAINING = LocasConfig.model_validate(
    {
        "memory": {"width": 2},
        "window": {"window_tokens": 60},
        "training": {"objective": "ntp", "max_steps": 3, "anchor_tokens": 8, "window_tokens": 0},
        "admission": {"min_gain": 0.0, "max_old_loss": 1.0, "max_drift_nats": 100.0},
    }
)


class Life:
    """One process: it writes down what it was told, and ends or stops itself at a step.

    A step is what a fault point or a driver's event names, on the main thread, between the fault points `opens` and
    `closes` if these are given.

    Args:
        notes: file that survives the process, one JSON object per line; what is in it was acknowledged.
        begun: descriptor that gets a byte when the work begins.
        at_step: the step at which the signal comes, 0 for none.
        signal_number: SIGKILL or SIGSTOP.
        opens: fault point from which steps count.
        closes: fault point after which they no longer do.
    """

    def __init__(
        self,
        notes: str,
        begun: int,
        *,
        at_step: int = 0,
        signal_number: int = signal.SIGKILL,
        opens: str = "",
        closes: str = "",
    ) -> None:
        self._notes = os.open(notes, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
        self._begun = begun
        self._at_step = at_step
        self._signal = signal_number
        self._opens, self._closes = opens, closes
        self._counts = self._is_over = False
        self.steps = 0
        self.lock = threading.Lock()
        """Held while another thread of this process is in a transaction: stopped in it, the process would keep
        everybody out."""

    def begin(self) -> None:
        self._counts = not self._opens
        self.steps = 0
        os.write(self._begun, b"!")

    def tell(self, **facts: object) -> None:
        """Write down what is acknowledged; in one call, so that a line is whole or absent."""
        self.step()
        os.write(self._notes, json.dumps(facts).encode() + b"\n")
        self.step()

    def at(self, point: str) -> None:
        """Pass a fault point of the store."""
        self._counts |= point == self._opens and not self._is_over
        self.step()
        self._is_over |= point == self._closes
        self._counts &= not self._is_over

    def step(self, *_: object) -> None:
        if not self._counts or threading.current_thread() is not threading.main_thread():
            return
        self.steps += 1
        if self.steps == self._at_step:
            with self.lock:
                os.kill(os.getpid(), self._signal)

    def watch(self, store: SqlMemoryStore) -> None:
        """Make a step of each side of each statement, and of what comes before a commit or a rollback."""
        for name in ("before_cursor_execute", "after_cursor_execute", "commit", "rollback"):
            event.listen(store.database.engine, name, self.step)


# What is said and learnt, so that whoever checks can tell it again
# -----------------------------------------------------


def text_of(user: str, seq: int) -> str:
    """Return the text of a turn, unlike any other."""
    return f"{user} said {seq} {hashlib.sha256(f'{user} {seq}'.encode()).hexdigest()[:16]}"


def said(user: str, seqs: Sequence[int], *, with_keys: bool = True) -> list[TurnDraft]:
    """Return turns as their writer sends them; the key tells the number."""
    return [
        TurnDraft("user", text_of(user, seq), idempotency_key=f"turn {seq}" if with_keys else None, token_count=20)
        for seq in seqs
    ]


def payload_of(user: str, to_seq: int) -> bytes:
    """Return what stands for a memory that learnt turns up to one."""
    return hashlib.shake_256(f"{user} {to_seq}".encode()).digest(PAYLOAD_BYTES)


def learn(
    store: SqlMemoryStore,
    key: UserKey,
    to_seq: int,
    *,
    payload: bytes | None = None,
    lease: Lease | None = None,
    state: UserState | None = None,
) -> int:
    """Commit a memory of the turns up to one, with a study item of the span and one retired; return its number.

    With a `state` that was read before, it follows that one: what happened meanwhile is for the store to notice.
    """
    state = state or store.state(key)
    assert state is not None
    first = state.consolidated_seq + 1
    old = tuple(kept.item_id for kept in store.study_items(key))[:1]
    new = tuple(
        item(first, to_seq, f"Who said {text_of(key.user, seq)}?", text_of(key.user, seq)) for seq in (first, to_seq)
    )
    made = draft(
        state.head,
        first,
        to_seq,
        payload_of(key.user, to_seq) if payload is None else payload,
        new_items=new,
        retired_items=old,
        fence=state.fence,
    )
    return store.commit(key, made, lease=lease).number


def open_store(url: str, files: str | None, **more: Any) -> SqlMemoryStore:
    return SqlMemoryStore(url, files=files, inline_bytes=INLINE_BYTES, **more)


# What the processes do
# -------------------------------------------------------------------------------------------------------


def append(life: Life, store: SqlMemoryStore, key: UserKey) -> None:
    """Say something, several times, and ask for it to be learnt in the same transaction."""
    life.begin()
    for first in range(1, BATCH * BATCHES, BATCH):
        seqs = range(first, first + BATCH)
        store.append(key, said(key.user, seqs), enqueue=seqs[-1])
        life.tell(turns=list(seqs))


def claim(life: Life, store: SqlMemoryStore, key: UserKey) -> None:
    """Claim a job, keep it, give it back, claim it again."""
    life.begin()
    for _ in range(2):
        (lease,) = store.queue.claim("victim", lease_seconds=HOLD_SECONDS, key=key)
        life.tell(fence=lease.fence)
        store.queue.heartbeat(lease, lease_seconds=HOLD_SECONDS)
        store.queue.release(lease)


def train(life: Life, store: SqlMemoryStore, key: UserKey) -> None:
    """Drain the queue with the real learner."""
    agent = AgentMemory(backbone=_backbone, store=store, config=TRAINING, consolidation="background")
    agent.runner.learner = _learner
    life.begin()
    done = agent.work(lease_seconds=HOLD_SECONDS, progress=life.step)
    assert done.admitted == 1, done
    life.tell(revision=1)


def commit(life: Life, store: SqlMemoryStore, key: UserKey) -> None:
    """Commit twice under leases."""
    life.begin()
    for to_seq in (4, 6):
        store.queue.enqueue(key, to_seq)
        (lease,) = store.queue.claim("victim", lease_seconds=HOLD_SECONDS, key=key)
        life.tell(revision=learn(store, key, to_seq, lease=lease))


def forget(life: Life, store: SqlMemoryStore, key: UserKey) -> None:
    """Forget a turn of each session."""
    life.begin()
    for seq in (5, 2):
        store.forget(key, [seq])
        life.tell(forgotten=seq)


def erase(life: Life, store: SqlMemoryStore, key: UserKey) -> None:
    """Erase the user."""
    life.begin()
    store.erase(key)
    life.tell(erased=True)


def hold(life: Life, store: SqlMemoryStore, key: UserKey) -> None:
    """Claim, read, commit under a short lease."""
    life.begin()
    (lease,) = store.queue.claim("victim", lease_seconds=HOLD_SECONDS, key=key)
    try:
        state = store.state(key)
        if state is not None and state.consolidated_seq < lease.to_seq:
            learn(store, key, lease.to_seq, payload=b"stale", lease=lease, state=state)
        else:  # another has learnt it already
            store.queue.complete(lease, lease.to_seq)
        life.tell(outcome="committed")
    except StorageError as error:
        life.tell(outcome=type(error).__name__)


def work(life: Life, store: SqlMemoryStore, key: UserKey) -> None:
    """Drain the queue with a learner that learns in no time, and a short lease kept by its heartbeat."""
    agent = quick_agent(_backbone, store)
    beat = store.queue.heartbeat

    def heartbeat(lease: Lease, *, lease_seconds: float) -> None:
        with life.lock:
            beat(lease, lease_seconds=lease_seconds)

    store.queue.heartbeat = heartbeat  # type: ignore[method-assign]
    life.begin()
    done = agent.work(lease_seconds=HOLD_SECONDS)
    life.tell(outcome="LeaseLost" if done.lost and not done.admitted else "committed")


def serve(life: Life, store: SqlMemoryStore, key: UserKey) -> None:
    """Learn whatever anybody asks for, until killed."""
    life.begin()
    while True:
        try:
            for lease in store.queue.claim("victim", limit=2, lease_seconds=HOLD_SECONDS):
                life.tell(user=lease.key.user, revision=learn(store, lease.key, lease.to_seq, lease=lease))
        except StorageError as error:
            life.tell(refused=type(error).__name__)
        time.sleep(0.02)


ACTS: dict[str, Callable[[Life, SqlMemoryStore, UserKey], None]] = {
    act.__name__: act for act in (append, claim, train, commit, forget, erase, hold, work, serve)
}


# Planted faults: what the gates have to see
# ----------------------------------------------------------------------------


def lazy_commit() -> None:
    """A change returns before its transaction is committed; the next one commits it."""
    kept: dict[int, Connection] = {}

    @contextmanager
    def write(self: Database) -> Iterator[Connection]:
        if id(self) in kept:
            kept.pop(id(self)).commit()
        connection = kept[id(self)] = self.engine.connect()
        connection.begin()
        yield connection

    Database.write = write  # type: ignore[method-assign]


def commit_in_two() -> None:
    """A revision is committed before the counters that make it the current one."""
    whole = users.move_head

    def move_head(connection: Connection, *arguments: Any) -> None:
        connection.exec_driver_sql("COMMIT")
        connection.exec_driver_sql("BEGIN")
        whole(connection, *arguments)

    users.move_head = move_head


def no_fence() -> None:
    """Whoever knows the job may finish it, under whatever fence."""
    check = rules.check_follows
    jobs._holds = lambda lease: jobs.rows.belongs_to(jobs.job, lease.key)  # type: ignore[attr-defined]
    rules.check_follows = lambda made, state: check(replace(made, fence=None), state)


FAULTS = {fault.__name__: fault for fault in (lazy_commit, commit_in_two, no_fence)}


# The life of one process
# -----------------------------------------------------------------------------------------------

_backbone: Backbone
_learner: Learner


def warm_up() -> None:
    """Build the backbone and use the learner once, so that a child finds all of it done."""
    global _backbone, _learner
    _backbone = Backbone(tiny_model(), byte_tokenizer(), name="random-0")
    _learner = Learner(Engine(_backbone), TRAINING)
    _learner.learn([Task(_learner.chunks([_turn()]))])


def _turn() -> Turn:
    with closing(SqlMemoryStore("sqlite://")) as store:
        return store.append(UserKey("default", "nobody"), said("nobody", [1]))[0]


def live(
    begun: int, *, act: str, url: str, files: str | None, user: str, notes: str, fault: str = "", **how: Any
) -> None:
    """Do an act on a store and write down how many steps and seconds it took, if it comes to that."""
    if fault:
        FAULTS[fault]()
    life = Life(notes, begun, **how)
    store = open_store(url, files, fault_point=life.at)
    life.watch(store)
    store.users()  # the tables are looked at before the work begins
    started = time.monotonic()
    ACTS[act](life, store, UserKey("default", user))
    life.tell(steps=life.steps, seconds=time.monotonic() - started)


def read_notes(path: Path) -> list[dict[str, Any]]:
    """Return what a process was told before it ended."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []

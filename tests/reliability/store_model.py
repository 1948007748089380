"""What a store has to do, said again in plain Python over lists: the other side of the stateful run.

Written from the contract (`locas_storage.store`), not from a store. One `Person` is everything of one user. A method
refuses with the contract's error before it changes anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from locas_storage import (
    LeaseLost,
    RevisionConflict,
    RevisionNotFound,
    TurnNotFound,
    UnknownUser,
    UserErased,
)
from locas_storage.rules.queue import LEASE_EXPIRED, MAX_ATTEMPTS


@dataclass
class Said:
    """A turn."""

    key: str
    text: str
    is_over: bool = False
    is_forgotten: bool = False

    @property
    def is_shown(self) -> bool:
        return not self.is_over and not self.is_forgotten


@dataclass(frozen=True)
class Saved:
    """A revision, the turns that it knows, itself or from what it grew, and the items in force at it."""

    number: int
    parent: int
    restores: int | None
    from_seq: int
    to_seq: int
    payload: bytes | None
    blob: object
    """What retention counts: equal ones are kept once."""
    knows: frozenset[int]
    items: frozenset[str]
    state: str = "live"


NOTHING = Saved(0, 0, None, 1, 0, None, None, frozenset(), frozenset())


@dataclass
class Wanted:
    """The open job."""

    to_seq: int
    stops: tuple[int, ...] = ()
    attempts: int = 0
    fence: int | None = None
    """Of the lease; None while nobody holds it."""
    is_due: bool = True
    reason: str | None = None


@dataclass
class Person:
    """Everything of one user."""

    is_encrypted: bool = False
    keep: int = 3
    exists: bool = False
    is_erased: bool = False
    turns: list[Said] = field(default_factory=list)
    saved: list[Saved] = field(default_factory=list)
    items: dict[str, int] = field(default_factory=dict)
    """Study items and the revision that added each."""
    fence: int = 0
    epoch: int = 0
    job: Wanted | None = None
    dead: tuple[int, bool, int, str] | None = None
    audit: list[str] = field(default_factory=list)

    # Reading
    # ------------------------------------------------------------------------------------------------------------

    @property
    def is_standing(self) -> bool:
        return self.exists and not self.is_erased

    @property
    def head(self) -> Saved:
        return self.saved[-1] if self.saved else NOTHING

    @property
    def counters(self) -> tuple[int, int, int, int, int] | None:
        """Next turn, current revision, last turn learnt, fence, epoch."""
        return (
            (len(self.turns) + 1, self.head.number, self.head.to_seq, self.fence, self.epoch)
            if self.is_standing
            else None
        )

    @property
    def shown(self) -> list[tuple[int, str, str]]:
        return [(seq, one.key, one.text) for seq, one in enumerate(self.turns, 1) if one.is_shown]

    def sharing(self, word: str) -> set[int]:
        return {seq for seq, _, text in self.shown if word in text.split()}

    @property
    def in_queue(self) -> list[tuple[str, int, bool, int, str | None]]:
        dead = [("dead", *self.dead)] if self.dead else []
        if self.job is None:
            return dead
        state = "ready" if self.job.fence is None else "leased"
        return [*dead, (state, self.job.to_seq, bool(self.job.stops), self.job.attempts, self.job.reason)]

    def revision(self, number: int) -> Saved:
        if not 0 < number <= len(self.saved):
            raise RevisionNotFound
        return self.saved[number - 1]

    def payload(self, number: int) -> bytes:
        found = self.revision(number).payload if self.saved else None
        if found is None:
            raise RevisionNotFound
        return found

    @property
    def blobs(self) -> set[tuple[object, bytes]]:
        return {(one.blob, one.payload) for one in self.saved if one.payload is not None}

    # Writing
    # ------------------------------------------------------------------------------------------------------------

    def append(self, drafts: Sequence[Said], enqueue: int | None) -> list[tuple[int, str]]:
        if self.is_erased:
            raise UserErased
        self.exists = True
        answered = []
        for draft in drafts:
            found = next((seq for seq, one in enumerate(self.turns, 1) if one.key == draft.key), None)
            if found is None:
                self.turns.append(replace(draft))
                found = len(self.turns)
            answered.append((found, self.turns[found - 1].text))
        if enqueue is not None:
            self.ask(enqueue)
        return answered

    def require(self) -> None:
        if not self.exists:
            raise UnknownUser
        if self.is_erased:
            raise UserErased

    def commit(
        self,
        *,
        parent: int,
        from_seq: int,
        to_seq: int,
        payload: bytes,
        new: Sequence[str],
        retired: Sequence[str],
        fence: int | None,
        lease: tuple[int, int] | None,
    ) -> int:
        self.require()
        if lease is not None:
            self.held(lease[0])
        is_next = (parent, from_seq) == (self.head.number, self.head.to_seq + 1) and fence in (None, self.fence)
        if not is_next or to_seq > len(self.turns) or not set(retired) <= self.head.items or set(new) & set(self.items):
            raise RevisionConflict
        number = len(self.saved) + 1
        self.items |= dict.fromkeys(new, number)
        knows = self.head.knows | set(range(from_seq, to_seq + 1))
        items = self.head.items | set(new) - set(retired)
        blob: object = number if self.is_encrypted else payload
        self.saved.append(Saved(number, parent, None, from_seq, to_seq, payload, blob, knows, items - set(retired)))
        self.fence += 1
        kept = list(dict.fromkeys(one.blob for one in reversed(self.saved) if one.payload is not None))[: self.keep]
        kept += self.line_ends()
        self.saved = [
            one if one.payload is None or one.blob in kept else replace(one, payload=None, state="pruned")
            for one in self.saved
        ]
        if lease is not None:
            self.settle(lease, to_seq)
        return number

    def line_ends(self) -> list[object]:
        """What each memory ended with that began with nothing."""
        line_of, ends = {0: 0}, dict[int, object]()
        for one in self.saved:
            grew_from = one.parent if one.restores is None else one.restores
            line_of[one.number] = one.number if one.restores == 0 else line_of[grew_from]
            if one.payload is not None:
                ends[line_of[one.number]] = one.blob
        return list(ends.values())

    def rollback(self, number: int) -> int:
        self.require()
        target = NOTHING if number == 0 and self.saved else self.revision(number)
        if target is self.head:
            return number
        if target.state != "live":
            raise RevisionNotFound
        self.bring_back(target)
        self.audit.append("revert")
        return self.head.number

    def bring_back(self, target: Saved) -> None:
        self.saved.append(replace(target, number=len(self.saved) + 1, parent=self.head.number, restores=target.number))
        self.fence += 1

    def forget(self, seqs: Sequence[int]) -> list[int]:
        self.require()
        if any(not 0 < seq <= len(self.turns) for seq in seqs):
            raise TurnNotFound
        gone = sorted({seq for seq in seqs if not self.turns[seq - 1].is_forgotten})
        self.audit.append("forget")
        if not gone:
            return []
        for seq in gone:
            self.turns[seq - 1] = Said(self.turns[seq - 1].key, "", is_forgotten=True)
        tainted = {one.number for one in self.saved if one.knows & set(gone) and one.state != "erased"}
        stops = set(self.job.stops) if self.job else set()
        if self.head.number in tainted:
            line = self.learnt_one_after_another()
            clean = [one for one in line if one.number not in tainted and one.state == "live"]
            base = clean[-1] if clean else NOTHING
            stops |= {one.to_seq for one in line if one.number > base.number}
            self.bring_back(base)
        else:
            self.fence += 1
        self.items = {one: added for one, added in self.items.items() if added not in tainted}
        self.saved = [
            replace(
                one,
                items=one.items & set(self.items),
                **({"payload": None, "state": "erased"} if one.number in tainted else {}),
            )
            for one in self.saved
        ]
        asked, self.job = self.job.to_seq if self.job else 0, None
        waiting = tuple(sorted(stop for stop in stops if stop > self.head.to_seq))
        self.ask(max([asked, *waiting]), waiting)
        return gone

    def learnt_one_after_another(self) -> list[Saved]:
        """Return the trained revisions that the current memory grew through, oldest first."""
        line, number = [], self.head.number
        while number:
            one = self.saved[number - 1]
            if one.restores is None:
                line.insert(0, one)
            number = one.parent if one.restores is None else one.restores
        return line

    def expire(self) -> list[int]:
        over = [seq for seq, one in enumerate(self.turns, 1) if one.is_over]
        return self.forget(over) if over else []

    def erase(self) -> None:
        if not self.exists:
            raise UnknownUser
        self.turns, self.saved, self.items, self.job, self.dead, self.is_erased = [], [], {}, None, None, True
        self.fence += 1
        self.epoch += 1
        self.audit.append("erase")

    def reinstate(self) -> None:
        if not self.exists:
            raise UnknownUser
        self.is_erased = False

    # The queue
    # ----------------------------------------------------------------------------------------------------------

    def ask(self, to_seq: int, stops: tuple[int, ...] = ()) -> None:
        self.require()
        to_seq = min(to_seq, len(self.turns))
        if to_seq > self.head.to_seq:
            self.job = self.job or Wanted(to_seq, stops)
            self.job.to_seq = max(self.job.to_seq, to_seq)

    @property
    def is_due(self) -> bool:
        return self.job is not None and self.job.is_due

    def claim(self, *, runs_out: bool) -> tuple[int, int, tuple[int, ...]] | None:
        """Return fence, last turn and stops of the lease.

        None where nothing is due or the job was claimed too often.
        """
        if self.job is None or not self.job.is_due:
            return None
        if self.job.attempts >= MAX_ATTEMPTS:
            self.bury(LEASE_EXPIRED)
            return None
        self.fence += 1
        self.job.attempts += 1
        self.job.fence, self.job.is_due = self.fence, runs_out
        return self.fence, self.job.to_seq, self.job.stops

    def held(self, fence: int) -> Wanted:
        if self.job is None or self.job.fence != fence:
            raise LeaseLost
        return self.job

    def heartbeat(self, fence: int, *, runs_out: bool) -> None:
        self.held(fence).is_due = runs_out

    def settle(self, lease: tuple[int, int], to_seq: int, *, is_refused: bool = False) -> None:
        fence, claimed_to = lease
        job = self.held(fence)
        self.audit += ["refuse"] if is_refused else []
        if to_seq >= claimed_to:
            self.job = None
            if job.to_seq > claimed_to:
                self.ask(job.to_seq)

    def fail(self, fence: int, reason: str, *, is_due: bool) -> None:
        job = self.held(fence)
        if job.attempts >= MAX_ATTEMPTS:
            self.bury(reason)
        else:
            job.fence, job.is_due, job.reason = None, is_due, reason

    def release(self, fence: int) -> None:
        job = self.held(fence)
        job.fence, job.is_due, job.attempts = None, True, job.attempts - 1

    def bury(self, reason: str) -> None:
        assert self.job is not None
        self.dead = (self.job.to_seq, bool(self.job.stops), self.job.attempts, reason)
        self.job = None
        self.audit.append("refuse")

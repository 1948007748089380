"""What the pages show, read from a user's store: turns with what was learnt of them, revisions, refusals, plots."""

from __future__ import annotations

import secrets
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from locas_agent import Explanation, MemoryHost, Recall, Revision, Turn, UserMemory
from locas_storage import Job, StudyItem

PAGE_TURNS = 50
"""Turns on one page, the newest first."""
_PLOT_WIDTH, _PLOT_HEIGHT, _MARGIN = 480, 120, 24


@dataclass(frozen=True, slots=True)
class ShownTurn:
    """A turn, and what was learnt of it.

    Attributes:
        turn: what was said.
        items: study items about it, the retired ones too.
        is_learnt: whether the current memory has learnt it.
    """

    turn: Turn
    items: Sequence[StudyItem]
    is_learnt: bool


@dataclass(frozen=True, slots=True)
class TurnPage:
    """Some turns of a journal.

    Attributes:
        turns: the newest first.
        older: the number before which the next page begins; None on the last.
    """

    turns: Sequence[ShownTurn]
    older: int | None


def turn_page(memory: MemoryHost, user: UserMemory, *, before: int | None) -> TurnPage:
    """Return a page of a user's turns.

    Args:
        memory: whose store.
        user: whose.
        before: only turns with a smaller number; the newest unless given.
    """
    found = user.turns(upto=None if before is None else before - 1, newest=PAGE_TURNS + 1)
    shown = found[-PAGE_TURNS:]
    state = memory.store.state(user.key)
    learnt = state.consolidated_seq if state else 0
    about: dict[int, list[StudyItem]] = defaultdict(list)
    for item in memory.store.study_items(user.key, with_retired=True):
        about[item.turn_seq].append(item)
    turns = [ShownTurn(turn, about[turn.seq], turn.seq <= learnt) for turn in reversed(shown)]
    return TurnPage(turns, shown[0].seq if len(found) > len(shown) else None)


def overview(memory: MemoryHost, user: UserMemory) -> dict[str, Any]:
    """Return what the first page says of a user."""
    state, head = memory.store.state(user.key), memory.store.revision(user.key)
    return {
        "is_known": state is not None,
        "turns": state.turns if state else 0,
        "learnt": state.consolidated_seq if state else 0,
        "pending": len(user.pending()),
        "head": head,
        "items": len(memory.store.study_items(user.key)),
        "jobs": jobs(memory, user),
        "is_encrypted": bool(state and state.is_encrypted),
    }


def jobs(memory: MemoryHost, user: UserMemory) -> list[Job]:
    """Return what waits to be done for a user, or failed."""
    return [job for job in memory.store.queue.jobs(user.key.tenant) if job.key == user.key]


def refusals(memory: MemoryHost, user: UserMemory) -> list[Any]:
    """Return the lines of the audit trail about what was refused, the newest first."""
    return [entry for entry in reversed(memory.store.audit(user.key)) if entry.action == "refuse"]


@dataclass(frozen=True, slots=True)
class AskedBoth:
    """A question, answered with the memory and without it.

    Attributes:
        question: what was asked.
        recall: the answer from memory alone.
        bare: what the backbone says without it.
        explained: the answer of the memory, token by token.
    """

    question: str
    recall: Recall
    bare: str
    explained: Explanation | None


def ask(memory: MemoryHost, user: UserMemory, question: str) -> AskedBoth:
    """Ask a question with the memory and without it; nothing is stored.

    Args:
        memory: where the user is.
        user: whose memory.
        question: what is asked.
    """
    # a user of whom nothing is kept: the bare backbone
    nobody = memory.runtime_of(user.key).for_user(secrets.token_hex(16), tenant=user.key.tenant)
    recall = user.recall(question)
    bare = nobody.generate([{"role": "user", "content": question}]).text
    explained = user.explain(recall.answer, question=question) if recall.answer else None
    return AskedBoth(question, recall, bare.strip(), explained)


@dataclass(frozen=True, slots=True)
class Plot:
    """A line over revisions, as points of an SVG.

    Attributes:
        label: what it shows.
        points: x, y and what is said of each.
        line: the points of a polyline.
        top: the value at the upper edge.
        width, height: of the drawing.
    """

    label: str
    points: Sequence[tuple[float, float, str]]
    line: str
    top: float
    width: int = _PLOT_WIDTH
    height: int = _PLOT_HEIGHT


def plots(revisions: Sequence[Revision]) -> list[Plot]:
    """Return what can be drawn of a user's revisions; nothing of fewer than two figures."""
    measured = [(revision.number, revision.metrics.after) for revision in revisions]
    drawn = []
    for label, name in (
        ("recall of held-out questions", "probe_recall"),
        ("drift on neutral text, nats", "drift_nats"),
    ):
        figures = [(number, getattr(after, name)) for number, after in measured if after is not None]
        known = [(number, float(value)) for number, value in figures if isinstance(value, int | float)]
        if len(known) > 1:
            drawn.append(_plot(label, known))
    return drawn


def _plot(label: str, figures: Sequence[tuple[int, float]]) -> Plot:
    top = max(value for _, value in figures) or 1.0
    first, last = figures[0][0], figures[-1][0]
    wide, high = _PLOT_WIDTH - 2 * _MARGIN, _PLOT_HEIGHT - 2 * _MARGIN
    points = [
        (
            round(_MARGIN + wide * (number - first) / max(1, last - first), 1),
            round(_MARGIN + high * (1 - max(0.0, value) / top), 1),
            f"revision {number}: {value:.4g}",
        )
        for number, value in figures
    ]
    return Plot(label, points, " ".join(f"{x},{y}" for x, y, _ in points), top)

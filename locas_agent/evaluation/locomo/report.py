"""From raw answers to the figures and the table of a LoCoMo run.

Intervals resample whole conversations, since the answers of one hang together; with a single conversation there are
none. Of a few conversations that says little, so a second interval resamples questions: it speaks of these alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.table import Table

from locas_agent.evaluation.answer_book import AnswerBook
from locas_agent.evaluation.locomo.answers import OPEN, TRAP_FIRST, TRAP_SECOND, Given
from locas_agent.evaluation.locomo.arms import ARMS, forms
from locas_agent.evaluation.locomo.data import ADVERSARIAL, CATEGORIES, AskedQuestion, Dialogue
from locas_agent.evaluation.locomo.scoring import chosen, exact, official, stemmed_f1, trap_comes_first
from locas_agent.evaluation.scoring import clustered_interval, mean

ANSWERABLE = "1-4"
"""Key of all questions that have an answer, together."""
FLOORS = ("none", "constant")
LIFT, LIFT_HERE, LEAK = "memory lift", "questions anew", "wrong - none"
"""Rows of the table that are differences, and the interval of the first by questions."""


@dataclass(frozen=True, slots=True)
class _Score:
    """One question as one arm answered it; `cluster` is the number of its conversation."""

    category: int
    cluster: int
    f1: float
    exact: float
    prompt_tokens: float
    first_order: float
    trap_f1: float


def figures(
    book: AnswerBook[Given], dialogues: Sequence[Dialogue], arms: Sequence[str], *, seed: int
) -> dict[str, Any]:
    """Return every arm's scores by category, and what memory adds.

    Args:
        book: holds an answer for every arm, question and form.
        dialogues: with the questions that count.
        arms: which were asked.
        seed: of the order in which the published script would have offered the answers of category 5.
    """
    scores = {
        name: [
            _scored(book, dialogue, at, asked, name, seed)
            for at, dialogue in enumerate(dialogues)
            for asked in dialogue.questions
        ]
        for name in arms
    }
    report: dict[str, Any] = {"arms": {name: _by_category(found) for name, found in scores.items()}}
    report["adversarial"] = {
        name: _adversarial([one for one in found if one.category == ADVERSARIAL]) for name, found in scores.items()
    }
    floors = [name for name in FLOORS if name in scores]
    report["memory_lift"] = _lifts(scores, floors) if "memory" in scores and floors else None
    report["wrong_user_minus_none"] = (
        _differences(scores["wrong_user"], scores["none"]) if {"wrong_user", "none"} <= scores.keys() else None
    )
    report["memory_of_context"] = _shares(report["arms"]) if {"memory", "context"} <= scores.keys() else None
    return report


def _scored(
    book: AnswerBook[Given], dialogue: Dialogue, cluster: int, asked: AskedQuestion, arm: str, seed: int
) -> _Score:
    given = {form: book[dialogue.name, asked.number, arm, form] for form in forms(asked)}
    answer = given[OPEN].answer
    tokens = mean([float(one.prompt_tokens) for one in given.values()])
    known = float(exact(asked.category, answer, asked.gold))
    if asked.category != ADVERSARIAL:
        return _Score(asked.category, cluster, official(asked.category, answer, asked.gold), known, tokens, 0.0, 0.0)
    trap = str(asked.trap)
    picked = {
        form: official(asked.category, chosen(given[form].answer, trap, trap_first=form == TRAP_FIRST), None)
        for form in (TRAP_FIRST, TRAP_SECOND)
    }
    first = TRAP_FIRST if trap_comes_first(seed, dialogue.name, asked.number) else TRAP_SECOND
    return _Score(
        asked.category, cluster, mean(list(picked.values())), known, tokens, picked[first], stemmed_f1(answer, trap)
    )


def _kinds(scores: Sequence[_Score]) -> Iterator[tuple[str, str, list[_Score]]]:
    for category, name in CATEGORIES.items():
        yield str(category), name, [one for one in scores if one.category == category]
    yield ANSWERABLE, "answerable", [one for one in scores if one.category != ADVERSARIAL]


def _by_category(scores: Sequence[_Score]) -> dict[str, Any]:
    return {
        key: {
            "name": name,
            "n": len(found),
            "f1": round(mean([one.f1 for one in found]), 4),
            "ci95": _interval([one.f1 for one in found], found),
            "questions_ci95": _by_question([one.f1 for one in found]),
            "exact_match": round(mean([one.exact for one in found]), 4),
            "prompt_tokens": round(mean([one.prompt_tokens for one in found]), 1),
        }
        for key, name, found in _kinds(scores)
        if found
    }


def _adversarial(scores: Sequence[_Score]) -> dict[str, Any] | None:
    """Return category 5 in both treatments: two answers to choose from, and free answers against the trap."""
    if not scores:
        return None
    return {
        "n": len(scores),
        "choice": round(mean([one.f1 for one in scores]), 4),
        "choice_in_one_order": round(mean([one.first_order for one in scores]), 4),
        "abstention": round(mean([one.exact for one in scores]), 4),
        "minus_trap_f1": round(-mean([one.trap_f1 for one in scores]), 4),
    }


def _lifts(scores: dict[str, list[_Score]], floors: Sequence[str]) -> dict[str, Any]:
    """Return, for each category, memory minus the better of the floors."""
    lifts: dict[str, Any] = {}
    for name in floors:
        for key, found in _differences(scores["memory"], scores[name]).items():
            if key not in lifts or found["difference"] < lifts[key]["difference"]:
                lifts[key] = found | {"over": name}
    return lifts


def _differences(upper: Sequence[_Score], lower: Sequence[_Score]) -> dict[str, dict[str, Any]]:
    """Return the mean difference of F1, question by question, for each category."""
    pairs = list(zip(_kinds(upper), _kinds(lower), strict=True))
    found = {}
    for (key, name, above), (_, _, below) in pairs:
        values = [one.f1 - other.f1 for one, other in zip(above, below, strict=True)]
        if values:
            found[key] = {
                "name": name,
                "n": len(values),
                "difference": round(mean(values), 4),
                "ci95": _interval(values, above),
                "questions_ci95": _by_question(values),
            }
    return found


def _shares(arms: dict[str, Any]) -> dict[str, float | None]:
    """Return what share of the ceiling's F1 memory alone reaches."""
    return {
        key: round(arms["memory"][key]["f1"] / ceiling["f1"], 4) if ceiling["f1"] else None
        for key, ceiling in arms["context"].items()
    }


def _interval(values: Sequence[float], scores: Sequence[_Score]) -> list[float] | None:
    clusters = [one.cluster for one in scores]
    return clustered_interval(values, clusters) if len(set(clusters)) > 1 else None


def _by_question(values: Sequence[float]) -> list[float] | None:
    """Return the interval over questions, as if these conversations were all there are."""
    return clustered_interval(values, range(len(values))) if len(values) > 1 else None


def locomo_table(report: dict[str, Any], *, title: str | None = None) -> Table:
    """Return the official F1 of every arm by category, as people read it; whole names even in 80 columns."""
    whole = (
        f"LoCoMo's F1 in {len(report['conversations'])} conversations, "
        f"{report['sessions']} sessions, backbone {report['backbone']}"
    )
    table = _table(title or whole)
    sizes = next(iter(report["arms"].values()))
    table.add_column("arm", no_wrap=True)
    for key, cell in sizes.items():
        table.add_column(f"{key} {cell['name']} (n={cell['n']})", justify="right", overflow="fold")
    table.add_column("prompt tokens", justify="right")
    for name, cells in report["arms"].items():
        asked = [cell for key, cell in cells.items() if key != ANSWERABLE]
        tokens = sum(cell["prompt_tokens"] * cell["n"] for cell in asked) / sum(cell["n"] for cell in asked)
        table.add_row(name, *(_cell(cell["f1"], cell["ci95"]) for cell in cells.values()), f"{tokens:.0f}")
    table.add_section()
    for label, found in ((LIFT, report["memory_lift"]), (LEAK, report["wrong_user_minus_none"])):
        if found is not None:
            table.add_row(label, *(_cell(found[key]["difference"], found[key]["ci95"], sign="+") for key in sizes), "")
            if label == LIFT:
                table.add_row(LIFT_HERE, *(_span(found[key]["questions_ci95"]) for key in sizes), "")
    return table


def legend(report: dict[str, Any]) -> Table:
    """Return what each row of `locomo_table` means."""
    table = _table("Rows; in brackets the 95 % interval, conversations drawn anew")
    for column in ("row", "what it has"):
        table.add_column(column, overflow="fold")
    for name in report["arms"]:
        table.add_row(name, ARMS[name])
    if report["memory_lift"] is not None:
        table.add_row(LIFT, "memory minus the better of none and constant")
        table.add_row(LIFT_HERE, "its 95 % interval when questions are drawn anew: it holds for these conversations")
    if report["wrong_user_minus_none"] is not None:
        table.add_row(LEAK, "wrong_user minus none; should be nothing")
    return table


def adversarial_table(report: dict[str, Any]) -> Table | None:
    """Return category 5 in both treatments; None when it was not asked."""
    found = {name: one for name, one in report["adversarial"].items() if one is not None}
    if not found:
        return None
    table = _table(f"{ADVERSARIAL} {CATEGORIES[ADVERSARIAL]}, n={next(iter(found.values()))['n']}")
    for column in (
        "arm",
        "choice, both orders",
        "choice, one drawn order",
        "free answer abstains",
        "minus F1 with the trap",
    ):
        table.add_column(column, justify="left" if column == "arm" else "right")
    for name, one in found.items():
        table.add_row(
            name, *(f"{one[key]:.3f}" for key in ("choice", "choice_in_one_order", "abstention", "minus_trap_f1"))
        )
    return table


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)


def _cell(value: float, interval: list[float] | None, *, sign: str = "") -> str:
    return f"{value:{sign}.3f} {_span(interval)}".rstrip()


def _span(interval: list[float] | None) -> str:
    return "" if interval is None else f"({interval[0]:.2f} to {interval[1]:.2f})"

"""What the answers of `eval recall` come to: by age, by kind of person, for what was told again and never told."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from locas_agent.evaluation.recall.people import Asked, Source
from locas_agent.evaluation.scoring import Arm, mean
from locas_agent.study import prompts as seeds

AGES = 8
"""Parts, by the order of telling, in which a person's facts are reported."""
Answers = Mapping[str, Sequence[str]]
Right = Mapping[str, Sequence[bool]]


def share(none: float, context: float, memory: float) -> float | None:
    """Return how much of what reading adds the memory adds; None where reading adds nothing."""
    return round((memory - none) / (context - none), 4) if context > none else None


def retention(source: Source, asked: Sequence[Asked], right: Sequence[bool]) -> list[float | None]:
    """Return recall by the session that told the fact; None: all its facts were told again later."""
    return [
        _rate(hit for hit, one in zip(right, asked, strict=True) if one.fact.session == number)
        for number in range(source.sessions)
    ]


def retention_by_age(source: Source, asked: Sequence[Asked], right: Sequence[bool]) -> list[float | None]:
    """Return recall by eighths of each person's facts in the order of telling, the oldest first.

    Only facts in force, asked in their own wordings: the wordings of a replaced fact ask for a newer one, whose age is
    not theirs. None where no person has a fact of that age.
    """
    ages: list[dict[int, int]] = []
    for teller in source.tellers:
        held = [place for place in range(len(teller.facts)) if teller.newest(place) == place]
        ages.append({place: rank * AGES // len(held) for rank, place in enumerate(held)})
    return [
        _rate(hit for hit, one in zip(right, asked, strict=True) if ages[one.user].get(one.place) == age)
        for age in range(AGES)
    ]


def updated(source: Source, asked: Sequence[Asked], recalled: Sequence[str], right: Right) -> dict[str, Any] | None:
    """Score the questions about what was told again, in the former fact's wordings where it has some.

    `exact_match` names the newest value, `stale` the share that names a former one, `answered` the share that names
    either, `new_among_answered` the newest among these, and `context` the share that the backbone reads right where the
    session that tells it stands in the prompt: the ceiling.
    """
    arm = Arm(source.matches)
    stale, answered, new, context = list[bool](), list[bool](), list[bool](), list[bool]()
    for answer, one, read in zip(recalled, asked, right["context"], strict=True):
        if not one.is_updated or (_has_former_wordings(source, one) and one.is_own):
            continue
        hit = arm.add(answer, one.fact.answers, one.user)
        stale.append(_names_any(answer, one.former, source.matches, spared=(*one.fact.answers, one.text)))
        context.append(read)
        answered.append(hit or stale[-1])
        if answered[-1]:
            new.append(hit)
    report = arm.report()
    if report is None:
        return None
    return report | {
        "stale": _rate(stale),
        "answered": _rate(answered),
        "new_among_answered": _rate(new),
        "context": _rate(context),
    }


def never_told(source: Source, recalled: Sequence[str], bare: Sequence[str]) -> dict[str, Any] | None:
    """Score the answers about what was never told.

    Args:
        source: whom they were put to.
        recalled: answers with the person's memory.
        bare: answers without one, beside which a value named by chance is seen.

    Returns:
        The share that abstains, that names a value the person told, that does neither or abstains (`holds`), and what
        the bare backbone names; None without questions.
    """
    asked = source.never_told()
    if not asked:
        return None
    values = [[form for fact in teller.facts for form in fact.answers] for teller in source.tellers]
    abstains = [seeds.abstains(answer) for answer in recalled]
    told, chance = (
        [
            _names_any(answer, values[user], source.matches, spared=(text,))
            for answer, (user, text) in zip(answers, asked, strict=True)
        ]
        for answers in (recalled, bare)
    )
    return {
        "abstains": _rate(abstains),
        "names_a_told_value": _rate(told),
        "holds": _rate(quiet or not named for quiet, named in zip(abstains, told, strict=True)),
        "bare_names_a_told_value": _rate(chance),
        "n": len(asked),
    }


def abstention(source: Source, recalled: Sequence[str]) -> dict[str, Any] | None:
    """Return the score of saying so when asked for what was never told."""
    arm = Arm()
    for (user, _), answer in zip(source.never_told(), recalled, strict=True):
        arm.add("yes" if seeds.abstains(answer) else "no", ("yes",), user)
    return arm.report()


def names_other_fact(source: Source, asked: Sequence[Asked], answers: Answers) -> dict[str, float | None]:
    """Return by arm the share of answers that name a value of another fact of the person.

    A value that stands in the question, or in what is right, is none.
    """
    found: dict[str, float | None] = {}
    for name, given in answers.items():
        found[name] = _rate(
            _names_any(answer, _others(source, one), source.matches, spared=(*one.fact.answers, one.text))
            for answer, one in zip(given, asked, strict=True)
        )
    return found


def by_group(
    source: Source, asked: Sequence[Asked], right: Right, covered: Mapping[tuple[int, int], bool]
) -> dict[str, dict[str, dict[str, Any]]]:
    """Return a small table for each style of person and each kind of teller.

    Args:
        source: whom the questions were put to.
        asked: every question.
        right: by arm, which answers are.
        covered: by person and fact, both by place, whether a study item holds it.
    """
    styles = [source.tellers[one.user].style for one in asked]
    tellers = [one.fact.role for one in asked]
    told = {
        (user, place): (teller.style, fact.role)
        for user, teller in enumerate(source.tellers)
        for place, fact in enumerate(teller.facts)
    }
    return {
        label: {
            group: _rates(
                [at for at, name in enumerate(names) if name == group],
                right,
                [covered[key] for key, groups in told.items() if groups[part] == group],
            )
            for group in sorted(set(names))
        }
        for part, (label, names) in enumerate((("styles", styles), ("tellers", tellers)))
    }


def _rates(rows: Sequence[int], right: Right, covered: Sequence[bool]) -> dict[str, Any]:
    rates = {name: mean([float(right[name][row]) for row in rows]) for name in ("none", "context", "memory")}
    ratio = round(rates["memory"] / rates["context"], 4) if rates["context"] else None
    return {
        "n": len(rows),
        **{name: round(rate, 4) for name, rate in rates.items()},
        "memory_over_context": ratio,
        "coverage": _rate(covered),
    }


def _others(source: Source, one: Asked) -> list[str]:
    """Return the accepted forms of all facts of the person but the one that is asked for and what it made untrue."""
    own = {*one.fact.answers, *one.former}
    return [form for fact in source.tellers[one.user].facts for form in fact.answers if form not in own]


def _has_former_wordings(source: Source, one: Asked) -> bool:
    facts = source.tellers[one.user].facts
    older = one.fact.replaces
    return older is not None and bool(facts[older].questions)


def _names_any(
    answer: str, forms: Iterable[str], matches: Callable[[str, str], bool], *, spared: Sequence[str]
) -> bool:
    """Tell whether an answer names one of the forms that stands in none of the spared texts."""
    return any(matches(answer, form) and not any(matches(text, form) for text in spared) for form in forms)


def _rate(hits: Iterable[bool]) -> float | None:
    found = [float(hit) for hit in hits]
    return round(mean(found), 4) if found else None

"""From answers about passages to figures: scores, what is gained over nothing, and the share of what reading gains.

Intervals resample whole passages, since the questions of one hang together; for a single passage there are none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from locas_agent.evaluation.passages.asking import PassageAsked
from locas_agent.evaluation.passages.scoring import squad_exact, squad_f1
from locas_agent.evaluation.scoring import clustered_interval, mean, ratio_interval
from locas_agent.study.matching import contains, token_f1

MEASURES = ("exact_match", "squad_exact_match", "squad_f1")
"""By which arms are compared: containment, as `eval recall` scores, and the two of SQuAD's scorer."""


@dataclass(frozen=True, slots=True)
class PassageScores:
    """What each answer of one arm is worth, by measure, and to which passage it belongs."""

    values: Mapping[str, Sequence[float]]
    clusters: Sequence[int]

    def report(self) -> dict[str, Any]:
        """Return the means with n and the 95 % intervals of those that arms are compared by."""
        return {
            "exact_match": round(mean(self.values["exact_match"]), 4),
            "f1": round(mean(self.values["f1"]), 4),
            "n": len(self.clusters),
            "ci95": self.interval(self.values["exact_match"]),
            "squad_exact_match": round(mean(self.values["squad_exact_match"]), 4),
            "squad_exact_match_ci95": self.interval(self.values["squad_exact_match"]),
            "squad_f1": round(mean(self.values["squad_f1"]), 4),
            "squad_f1_ci95": self.interval(self.values["squad_f1"]),
        }

    def interval(self, values: Sequence[float]) -> list[float] | None:
        """Return the 95 % interval of a mean over the questions; None for one passage."""
        return clustered_interval(values, self.clusters) if len(set(self.clusters)) > 1 else None


def scored(answers: Sequence[str], asked: Sequence[PassageAsked]) -> PassageScores:
    """Score the answers to questions, in their order."""
    pairs = [(answer, one.gold) for answer, one in zip(answers, asked, strict=True)]
    return PassageScores(
        {
            "exact_match": [float(contains(answer, gold)) for answer, gold in pairs],
            "f1": [token_f1(answer, gold) for answer, gold in pairs],
            "squad_exact_match": [float(squad_exact(answer, gold)) for answer, gold in pairs],
            "squad_f1": [squad_f1(answer, gold) for answer, gold in pairs],
        },
        [one.passage for one in asked],
    )


def over_none(arm: PassageScores, none: PassageScores, context: PassageScores) -> dict[str, dict[str, Any]]:
    """Return, for each measure, what an arm adds to nothing, and its share of what reading adds.

    Returns:
        `difference` (arm - none, question by question) and `share` ((arm - none) / (context - none); None where reading
        adds nothing), each with its interval.
    """
    found: dict[str, dict[str, Any]] = {}
    for measure in MEASURES:
        gained = _differences(arm.values[measure], none.values[measure])
        read = _differences(context.values[measure], none.values[measure])
        has_share, has_interval = mean(read) > 0, len(set(arm.clusters)) > 1
        found[measure] = {
            "difference": round(mean(gained), 4),
            "difference_ci95": arm.interval(gained),
            "share": round(mean(gained) / mean(read), 4) if has_share else None,
            "share_ci95": ratio_interval(gained, read, arm.clusters) if has_share and has_interval else None,
        }
    return found


def by_coverage(arm: PassageScores, covered: Sequence[bool]) -> dict[str, float | None]:
    """Return how many questions study covered, and how many of these and of the others are answered.

    Args:
        arm: the scores.
        covered: of each question, whether an item has its answer.

    Returns:
        `coverage`, and the exact match as `exact_match_covered` and `exact_match_uncovered`; None where there are none.
    """
    pairs = list(zip(arm.values["exact_match"], covered, strict=True))
    found: dict[str, float | None] = {"coverage": round(mean([float(one) for one in covered]), 4)}
    for name, wanted in (("exact_match_covered", True), ("exact_match_uncovered", False)):
        right = [value for value, is_covered in pairs if is_covered is wanted]
        found[name] = round(mean(right), 4) if right else None
    return found


def sequence(
    steps: Sequence[Sequence[str]], asked: Sequence[PassageAsked], none: Sequence[str], refused: int
) -> dict[str, Any]:
    """Return what a memory recalls while passage after passage is learnt.

    Args:
        steps: after each passage, the answers to the questions about it and those before it.
        asked: the questions about all passages of the sequence.
        none: the bare backbone's answers to them.
        refused: consolidations that were not admitted.

    Returns:
        `sequence`: the scores after each passage, over the questions about what was told by then; `sequence_by_passage`
        the exact match of each passage by then; `sequence_none` the bare backbone's scores on all of them;
        `sequence_fall` each passage's exact match just after it was learnt minus that after the last one.
    """
    scores = [scored(answers, asked[: len(answers)]) for answers in steps]
    own = [
        right
        for number, step in enumerate(scores)
        for right, passage in zip(step.values["exact_match"], step.clusters, strict=True)
        if passage == number
    ]
    last = scores[-1]
    fallen = _differences(own, last.values["exact_match"])
    return {
        "sequence": [step.report() for step in scores],
        "sequence_by_passage": [_by_passage(step) for step in scores],
        "sequence_none": scored(none, asked).report(),
        "sequence_fall": {"difference": round(mean(fallen), 4), "ci95": last.interval(fallen)},
        "sequence_refused": refused,
    }


def _by_passage(scores: PassageScores) -> list[float]:
    exact = list(zip(scores.values["exact_match"], scores.clusters, strict=True))
    return [round(mean([right for right, passage in exact if passage == at]), 4) for at in sorted(set(scores.clusters))]


def _differences(above: Sequence[float], below: Sequence[float]) -> list[float]:
    return [one - other for one, other in zip(above, below, strict=True)]
